"""States over time: live, hold, decay, idle, hidden; consent, presence and vehicle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cag_avatar.errors import InputError
from cag_avatar_node.face_blend import Face
from cag_avatar_node.presence import Gate, Presence, PresenceConfig, PresenceState

REST = Face(np.full(52, 0.2, np.float32), np.eye(4))
TURNED = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 0.1], [0, 0, 0, 1]])
FACE = Face(np.full(52, 0.8, np.float32), TURNED)
CONFIG: dict[str, Any] = {
    "live_s": 0.1, "hold_s": 0.5, "decay_s": 1.0, "idle_s": 10.0, "return_s": 0.0,
}  # fmt: skip


def make(*, interpolate: bool = False, **changes: Any) -> Presence:
    config = PresenceConfig(**{**CONFIG, **changes})
    return Presence(config, lambda seconds: REST, interpolate=interpolate)


def value(presence: Presence, now: float, **options: Any) -> float:
    face = presence.look(now, **options).face
    assert face is not None
    return float(face.code[0])


def test_hidden_until_an_operator_is_there() -> None:
    presence = make()
    shown = presence.look(0.0)
    assert shown.name == "hidden:absent"
    assert shown.face is None
    presence.see(None, 1.0)
    assert presence.look(100.0).name == "hidden:absent"
    presence.see(FACE, 101.0)
    assert presence.look(101.0).name == "live"


def test_a_resting_face_at_once_for_those_who_want_it() -> None:
    shown = make(show_idle_at_start=True).look(1e6)
    assert shown.name == "idle"
    assert shown.face is REST


def test_states_and_faces_over_time() -> None:
    presence = make()
    presence.see(FACE, 10.0)
    expected = [
        (10.05, "live", 0.8),
        (10.2, "hold", 0.8),
        (10.49, "hold", 0.8),
        (10.75, "decay", 0.2 + 0.6 * (3 * 0.75**2 - 2 * 0.75**3)),
        (11.0, "decay", 0.5),
        (11.51, "idle", 0.2),
        (21.49, "idle", 0.2),
    ]
    for now, name, code in expected:
        assert presence.look(now).name == name, now
        assert value(presence, now) == pytest.approx(code, rel=1e-5), now
    half = presence.look(11.0).face
    assert half is not None
    np.testing.assert_allclose(half.motion[2, 3], 0.05)  # the head goes to its rest as well
    assert presence.look(21.51).name == "hidden:absent"
    assert presence.look(1e6).face is None


def test_a_message_without_a_face_holds_at_once() -> None:
    presence = make()
    presence.see(FACE, 10.0)
    presence.see(None, 10.01)
    assert presence.look(10.01).state is PresenceState.HOLD
    presence.see(FACE, 10.04)
    assert presence.look(10.04).state is PresenceState.LIVE


def test_slow_codes_are_live_between_two_of_them() -> None:
    presence = make()
    for step in range(4):
        presence.see(FACE, 0.16 * step)
    assert presence.look(0.48 + 0.3).name == "live"
    assert presence.look(0.48 + 0.41).name == "hold"
    presence.see(FACE, 5.0)  # a gap is no interval
    assert presence.look(5.0 + 0.41).name == "hold"


def test_without_times_it_rests_and_hides_at_once() -> None:
    presence = make(hold_s=0.0, decay_s=0.0, idle_s=0.0)
    presence.see(FACE, 0.0)
    assert presence.look(0.0).name == "live"
    assert presence.look(0.01).name == "hidden:absent"


@pytest.mark.parametrize("away", [0.3, 1.0, 5.0, 100.0])
def test_a_code_that_comes_back_is_eased_in(away: float) -> None:
    presence = make(return_s=0.2)
    presence.see(FACE, 0.0)
    presence.look(0.3)
    assert value(presence, 0.4) == pytest.approx(0.8, rel=1e-5)
    before = presence.look(away).face or REST
    for step in range(100):
        now = away + 0.01 * step
        if step % 4 == 0:
            presence.see(Face(np.full(52, 0.5, np.float32), TURNED), now)
        shown = presence.look(now)
        assert shown.face is not None
        assert shown.state is PresenceState.LIVE
        assert np.abs(shown.face.code - before.code).max() < 0.06, step
        assert np.abs(shown.face.motion - before.motion).max() < 0.15, step
        before = shown.face
    np.testing.assert_allclose(before.code, 0.5)
    assert presence.arrived(away + 1.0)


def test_one_lost_frame_does_not_slow_the_next_one() -> None:
    presence = make(return_s=0.2)
    presence.see(FACE, 0.0)
    presence.look(0.5)
    presence.see(FACE, 0.5)
    presence.see(None, 0.54)
    presence.look(0.54)
    presence.see(Face(np.zeros(52, np.float32), TURNED), 0.58)
    presence.look(0.58)
    assert value(presence, 0.62) == 0.0


def test_what_is_still_needs_no_new_picture() -> None:
    presence = make(return_s=0.2)
    presence.see(FACE, 0.0)
    assert not presence.look(0.05).still, "eased in"
    for now in (0.09, 0.18, 0.27):
        presence.see(FACE, now)
    assert presence.look(0.27).still
    assert presence.look(0.7).face is FACE
    assert presence.look(0.7).still
    assert not presence.look(1.0).still, "fading"
    assert not presence.look(5.0).still, "blinking"


def test_presence_by_word_overrules_what_follows_from_the_codes() -> None:
    presence = make()
    presence.tell_present(True, 0.0)
    assert presence.look(1.0).name == "idle"
    presence.see(FACE, 2.0)
    assert presence.look(1000.0).name == "idle", "present without a face: not hidden"
    presence.tell_present(False, 1000.0)
    presence.see(FACE, 1000.0)
    assert presence.look(1000.0).name == "hidden:absent", "codes of nobody"
    presence.tell_present(True, 1001.0)
    presence.see(FACE, 1001.0)
    assert presence.look(1001.0).name == "live"
    presence.tell_present(False, 1001.0)
    names = [presence.look(1001.0 + dt).name for dt in (0.3, 1.0, 1.6)]
    assert names == ["hold", "decay", "hidden:absent"]


def test_a_word_about_presence_can_grow_old() -> None:
    presence = make(presence_timeout_s=2.0)
    presence.tell_present(True, 0.0)
    assert presence.look(1.9).name == "idle"
    assert presence.look(2.1).name == "hidden:absent"


def test_consent_required_and_withdrawn() -> None:
    presence = make(require_consent=True)
    presence.see(FACE, 0.0)
    assert presence.look(0.0).name == "hidden:consent"
    presence.tell_consent(True)
    assert presence.look(0.05).name == "live"
    presence.tell_consent(False)
    assert presence.look(0.05).name == "hidden:consent"
    free = make()
    free.see(FACE, 0.0)
    assert free.look(0.0).name == "live"
    free.tell_consent(False)
    assert free.look(0.0).name == "hidden:consent", "who says no is not shown"


def test_driving_hides() -> None:
    presence = make()
    presence.see(FACE, 0.0)
    assert presence.look(0.0, Gate.DRIVING).name == "hidden:driving"
    assert presence.look(0.05).name == "live"
    presence.tell_consent(False)
    assert presence.look(0.05, Gate.DRIVING).name == "hidden:consent"


def test_driving_freezes_and_thaws_without_a_jump() -> None:
    presence = make(return_s=0.2)
    assert presence.look(0.0, Gate.FREEZE).name == "hidden:driving", "nothing to freeze"
    presence.see(FACE, 1.0)
    frozen = presence.look(1.1).face
    still = presence.look(1.2, Gate.FREEZE)
    for step in range(41):
        presence.see(Face(np.zeros(52, np.float32), np.eye(4)), 1.2 + 0.02 * step)
        presence.look(1.2 + 0.02 * step, Gate.FREEZE)
    later = presence.look(2.0, Gate.FREEZE)
    assert still.face is later.face is frozen
    assert later.name == "hold"
    assert later.frozen
    thawed = presence.look(2.001)
    assert thawed.state is PresenceState.LIVE
    assert thawed.face is not None
    assert frozen is not None
    np.testing.assert_allclose(thawed.face.code, frozen.code, atol=0.02)
    assert value(presence, 2.3) == 0.0


def test_the_frozen_picture_of_who_has_gone_does_not_stay() -> None:
    presence = make()
    presence.see(FACE, 0.0)
    presence.look(0.0)
    assert presence.look(5.0, Gate.FREEZE).name == "hold"
    assert presence.look(20.0, Gate.FREEZE).name == "hidden:driving"


def test_the_robots_own_expression_brings_a_hidden_face_back() -> None:
    presence = make()
    assert presence.look(0.0, speaking=True).name == "idle"
    assert presence.look(1.0).name == "hidden:absent"
    assert presence.look(2.0, Gate.DRIVING, speaking=True).name == "hidden:driving"


def test_gliding_between_codes() -> None:
    presence = make(interpolate=True)
    for step in range(5):
        presence.see(Face(np.full(52, 0.1 * step, np.float32), np.eye(4)), 0.04 * step)
        presence.look(0.04 * step)
    assert value(presence, 0.18) == pytest.approx(0.35, abs=0.01)
    assert not presence.look(0.18).still
    assert value(presence, 0.21) == pytest.approx(0.4)
    assert presence.look(0.21).still


def test_idle_time_begins_with_the_fade() -> None:
    seconds: list[float] = []

    def idle(passed: float) -> Face:
        seconds.append(passed)
        return REST

    presence = Presence(PresenceConfig(**CONFIG), idle)
    presence.see(FACE, 0.0)
    for now in (0.0, 0.6, 1.0, 3.0):
        presence.look(now)
    assert seconds[-3:] == pytest.approx([0.0, 0.4, 2.4])


def test_negative_times_are_refused() -> None:
    with pytest.raises(InputError, match="hold_s -1.0 must not be negative"):
        PresenceConfig(hold_s=-1.0)
