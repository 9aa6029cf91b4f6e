from __future__ import annotations

import os

import pytest

from cag_avatar_node.core_share import renderer_environment


@pytest.mark.parametrize(("cores", "threads"), [(1, "1"), (2, "1"), (8, "7")])
def test_one_core_is_left(monkeypatch: pytest.MonkeyPatch, cores: int, threads: str) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert renderer_environment() == {"OMP_NUM_THREADS": threads}


def test_the_user_s_choice_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert renderer_environment() == {}
