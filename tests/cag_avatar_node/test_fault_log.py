"""Faults are counted always and warned about once."""

from __future__ import annotations

from cag_avatar_node.fault_log import FaultLog


def test_each_kind_warns_once_and_counts() -> None:
    warnings: list[str] = []
    faults = FaultLog(warnings.append)
    for _ in range(3):
        faults.add("step", "bad step")
    faults.add("encoding", "bad encoding")
    assert faults.counts() == {"step": 3, "encoding": 1}
    assert len(warnings) == 2
    assert warnings[0].startswith("bad step")
    assert warnings[1].startswith("bad encoding")
