"""Subscribing while something is wanted."""

from __future__ import annotations

from cag_avatar_node.demand import Demand


def test_starts_at_once_and_ends_after_the_patience() -> None:
    demand = Demand(patience=2.0)
    assert not demand.look(False, 0.0)
    assert demand.look(True, 1.0)
    assert demand.look(False, 2.9)
    assert not demand.look(False, 3.1)
    assert demand.look(True, 3.2)


def test_a_viewer_that_comes_back_finds_it() -> None:
    demand = Demand(patience=2.0)
    looks = [demand.look(t % 3 == 0, float(t)) for t in range(12)]
    assert all(looks)
