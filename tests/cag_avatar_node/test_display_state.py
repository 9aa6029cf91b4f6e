"""What the page is to show, from what is known."""

from __future__ import annotations

import pytest

from cag_avatar_node.display_state import DisplayKind, DisplayState, decide_state, parse_state


@pytest.mark.parametrize("name", ["live", "hold", "decay", "idle"])
def test_states_by_name(name: str) -> None:
    assert parse_state(name) == DisplayState(DisplayKind(name))
    assert parse_state(name).kind.shows_picture


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hidden", "absent"),
        ("hidden:absent", "absent"),
        ("hidden:consent", "consent"),
        (" HIDDEN:driving\n", "driving"),
        ("hidden:something new", "absent"),
    ],
)
def test_hidden_is_hidden_whatever_the_reason(text: str, reason: str) -> None:
    state = parse_state(text)
    assert state == DisplayState(DisplayKind.HIDDEN, reason)
    assert not state.kind.shows_picture


@pytest.mark.parametrize("text", ["", "lost", "waiting", "inactive", "lively", "hidden driving"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not one of live, hold"):
        parse_state(text)


def test_codes_are_those_of_the_page() -> None:
    assert [kind.code for kind in DisplayKind] == list(range(8))


LIVE, HOLD = parse_state("live"), parse_state("hold")
DRIVING = parse_state("hidden:driving")


@pytest.mark.parametrize(
    ("told", "age", "kind"),
    [
        (None, None, DisplayKind.WAITING),
        (LIVE, None, DisplayKind.WAITING),
        (None, 0.1, DisplayKind.LIVE),
        (HOLD, 0.1, DisplayKind.HOLD),
        (LIVE, 1.1, DisplayKind.LOST),
        (None, 1.1, DisplayKind.LOST),
        (DRIVING, 0.1, DisplayKind.HIDDEN),
        (DRIVING, None, DisplayKind.HIDDEN),
        (DRIVING, 100.0, DisplayKind.HIDDEN),
    ],
)
def test_decision(told: DisplayState | None, age: float | None, kind: DisplayKind) -> None:
    assert decide_state(told, age, 1.0).kind is kind


def test_inactive_and_required_state() -> None:
    assert decide_state(LIVE, 0.1, 1.0, active=False).kind is DisplayKind.INACTIVE
    assert decide_state(None, 0.1, 1.0, require_state=True).kind is DisplayKind.WAITING
    assert decide_state(LIVE, 0.1, 1.0, require_state=True).kind is DisplayKind.LIVE


def test_an_idle_avatar_may_stand_still() -> None:
    idle = parse_state("idle")
    assert decide_state(idle, 9.0, 1.0, still=True).kind is DisplayKind.IDLE
    assert decide_state(idle, 9.0, 1.0, still=False).kind is DisplayKind.LOST
    assert decide_state(HOLD, 9.0, 1.0, still=True).kind is DisplayKind.HOLD, "frozen"
    assert decide_state(HOLD, 9.0, 1.0, still=False).kind is DisplayKind.LOST
    assert decide_state(LIVE, 9.0, 1.0, still=True).kind is DisplayKind.LOST
