"""What a vehicle's state allows."""

from __future__ import annotations

import pytest

from cag_avatar_node.driving_gate import DrivingGate


def test_ignored_by_default() -> None:
    gate = DrivingGate()
    gate.tell_state("moving", 0.0)
    assert gate.open(0.0)


@pytest.mark.parametrize("policy", ["hide", "freeze"])
def test_only_parked_is_open(policy: str) -> None:
    gate = DrivingGate(policy, timeout_s=2.0)  # type: ignore[arg-type]
    assert not gate.open(0.0), "unknown"
    for name, is_open in (("parked", True), ("idling", False), ("moving", False)):
        assert gate.tell_state(name, 1.0)
        assert gate.open(1.5) is is_open
    gate.tell_state("parked", 1.0)
    assert gate.open(3.0)
    assert not gate.open(3.1), "stale"
    assert gate.state(3.1) == "moving"
    gate.tell_state("parked", 5.0)
    assert not gate.tell_state("Parked!", 5.1), "unknown name"
    assert not gate.open(5.1)


def test_a_passengers_display_may_show_it() -> None:
    gate = DrivingGate("hide")
    gate.tell_state("moving", 0.0)
    gate.tell_passenger_display(True)
    assert gate.open(0.0)
    gate.tell_passenger_display(False)
    assert not gate.open(0.0)
