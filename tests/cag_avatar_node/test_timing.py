"""Rates and percentiles over a window, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from cag_avatar_node.timing import TimingWindow


def test_empty() -> None:
    window = TimingWindow()
    assert window.rate(0.0) == 0
    assert window.percentiles(0.0, 50) is None


def test_rate_and_percentiles() -> None:
    window = TimingWindow(10)
    for index in range(101):
        window.add(index * 0.04, index * 1e-3)
    assert window.rate(4.0) == pytest.approx(25)
    assert window.percentiles(4.0, 50, 95) == pytest.approx([0.050, 0.095])


def test_old_events_are_forgotten() -> None:
    window = TimingWindow(2)
    window.add(0.0, 9.0)
    window.add(3.0, 1.0)
    window.add(4.0, 1.0)
    assert window.percentiles(4.0, 100) == [1.0]
    assert window.rate(4.0) == pytest.approx(1)
    assert window.rate(20.0) == 0


def test_a_stall_lowers_the_rate() -> None:
    window = TimingWindow(10)
    for index in range(26):
        window.add(index * 0.04, 0.0)
    assert window.rate(1.0) == pytest.approx(25)
    assert window.rate(5.0) == pytest.approx(26 / 5)


def test_window_must_be_positive() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        TimingWindow(0)
