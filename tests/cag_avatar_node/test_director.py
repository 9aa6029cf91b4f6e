"""When the avatar is drawn, on a clock of the test's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_INDEX
from cag_avatar_node.director import Director, RateConfig
from cag_avatar_node.driving_gate import DrivingGate
from cag_avatar_node.face_blend import Face
from cag_avatar_node.idle_motion import IdleConfig
from cag_avatar_node.presence import PresenceConfig, Shown
from cag_avatar_node.robot_expression import RobotExpression

BLINK = ARKIT_INDEX["eyeBlinkLeft"]
JAW = ARKIT_INDEX["jawOpen"]


class PlainAvatar:
    """Rests at zero."""

    rest = Face(np.zeros(52, np.float32), np.eye(4))
    shut = np.ones(2, np.float32)

    def express(self, change: NDArray[np.float32]) -> Face:
        return Face(self.rest.code + change, self.rest.motion)


def face(value: float) -> Face:
    return Face(np.full(52, value, np.float32), np.eye(4))


class Stand:
    """Plays a director through time; keeps when and what it drew."""

    def __init__(self, policy: Any = "ignore", **options: Any) -> None:
        rates = {
            name: options.pop(name)
            for name in ("timer", "rate_hz", "idle_rate_hz")
            if name in options
        }
        self.director = Director(
            PlainAvatar(), PresenceConfig(**options), IdleConfig(), RateConfig(**rates),
            RobotExpression(0.4, 10.0), DrivingGate(policy),
        )  # fmt: skip
        self.drawn: list[tuple[float, Shown]] = []
        self.due = 0.0
        self.audience = 1

    def message(self, value: float | None, now: float) -> None:
        self.run(now)
        self.director.presence.see(None if value is None else face(value), now)
        shown = self.director.look(now)
        if self.director.wanted_by_message(shown):
            self.drawn.append((now, shown))
            self.director.drew(shown, now, by_message=True)
        self.due = self.director.due(shown, now)

    def run(self, until: float) -> None:
        looks = 0
        while self.due < until:
            now = self.due
            shown = self.director.look(now)
            if self.director.wanted_by_clock(shown, now, self.audience):
                self.drawn.append((now, shown))
                self.director.drew(shown, now)
            self.due = self.director.due(shown, now)
            assert self.due > now, "a loop without a pause"
            looks += 1
        assert looks <= 250 * (until + 1)

    def between(self, start: float, end: float) -> list[Shown]:
        return [shown for now, shown in self.drawn if start <= now < end]


def test_hidden_is_drawn_once_and_again_for_newcomers() -> None:
    stand = Stand()
    stand.run(10.0)
    assert [shown.name for _, shown in stand.drawn] == ["hidden:absent"]
    stand.audience = 2
    stand.run(20.0)
    assert len(stand.drawn) == 2
    stand.audience = 1
    stand.run(30.0)
    assert len(stand.drawn) == 2


def test_one_picture_a_message_once_eased_in() -> None:
    stand = Stand()
    for index in range(50):
        stand.message(0.01 * index, 1 + index / 25)
    assert len(stand.between(1.0, 1.0 + 50 / 25 - 0.01)) == 50
    assert stand.drawn[-1][1].face is not None
    assert stand.drawn[-1][1].face.code[0] == pytest.approx(0.49)


def test_a_single_code_is_eased_in_by_the_clock() -> None:
    stand = Stand(hold_s=5.0)
    stand.message(1.0, 1.0)
    stand.run(2.0)
    values = [s.face.code[JAW] for s in stand.between(1.0, 2.0) if s.face is not None]
    assert 4 <= len(values) <= 10
    assert values == sorted(values)
    assert values[-1] == 1.0
    assert len(stand.between(1.3, 2.0)) == 0, "what is still is drawn again"


def test_rates_of_fade_idle_blink_and_placard() -> None:
    stand = Stand(return_s=0.0, rate_hz=30.0, idle_rate_hz=5.0, idle_s=20.0)
    stand.message(1.0, 1.0)
    stand.run(40.0)
    assert len(stand.between(1.01, 1.25)) == 0
    assert 18 <= len(stand.between(1.25, 2.0)) <= 26
    idle = stand.between(2.0, 21.0)
    closed = [s.face.code[BLINK] for s in idle if s.face is not None]
    blinking = sum(value > 0 for value in closed)
    assert max(closed) > 0.9, "a blink was missed"
    calm = len(closed) - blinking
    assert 70 <= calm <= 110, "5 a second"
    assert 8 * 3 <= blinking <= 10 * 7
    assert stand.between(21.0, 40.0)[-1].name == "hidden:absent"
    assert len(stand.between(22.1, 40.0)) == 0


def test_idle_rate_of_zero_draws_one_resting_face() -> None:
    stand = Stand(return_s=0.0, idle_rate_hz=0.0)
    stand.message(1.0, 1.0)
    stand.run(20.0)
    shown = stand.between(2.0, 20.0)
    assert len(shown) == 1
    assert shown[0].face is PlainAvatar.rest


def test_the_timer_draws_at_its_own_rate_and_rests_when_nothing_moves() -> None:
    stand = Stand(timer=True, rate_hz=50.0, return_s=0.0, hold_s=5.0)
    for index in range(25):
        stand.message(0.02 * index, 1 + index * 0.04)
    pictures = stand.between(1.2, 1.9)
    assert len(pictures) == pytest.approx(35, abs=2)
    values = [shown.face.code[JAW] for shown in pictures if shown.face is not None]
    np.testing.assert_allclose(np.diff(values), 0.01, atol=2e-3)
    stand.run(4.0)
    assert len(stand.between(2.1, 4.0)) == 0


def test_lost_faces_do_not_draw_the_resting_face_at_message_rate() -> None:
    stand = Stand(return_s=0.0, idle_rate_hz=5.0)
    stand.message(1.0, 1.0)
    for index in range(1, 100):
        stand.message(None, 1 + index / 25)
    assert len(stand.between(2.1, 3.1)) <= 15


def test_the_robot_speaks_only_while_nobody_is_there() -> None:
    stand = Stand(idle_s=1.0, return_s=0.0)
    smile = np.zeros(52, np.float32)
    smile[JAW] = 0.5
    stand.run(1.0)
    stand.director.express(smile, 1.0)
    stand.run(3.0)
    assert stand.drawn[-1][1].name == "idle"
    assert stand.drawn[-1][1].face is not None
    assert stand.drawn[-1][1].face.code[JAW] == pytest.approx(0.5)
    opening = [s.face.code[JAW] for s in stand.between(1.1, 1.5) if s.face is not None]
    assert np.abs(np.diff(opening)).max() < 0.2
    stand.message(0.0, 3.0)
    stand.director.express(smile, 3.0)
    stand.run(6.0)
    assert all(s.face.code[JAW] == 0 for s in stand.between(3.0, 6.0) if s.face is not None)
    assert stand.drawn[-1][1].name == "hidden:absent"
    stand.director.presence.tell_present(True, 6.0)
    stand.director.express(smile, 6.0)
    stand.run(7.0)
    assert all(s.face.code[JAW] == 0 for s in stand.between(6.0, 7.0) if s.face is not None)


def test_the_robot_falls_silent_softly_when_somebody_is_announced() -> None:
    stand = Stand()
    smile = np.zeros(52, np.float32)
    smile[JAW] = 0.5
    stand.director.express(smile, 0.0)
    stand.run(3.0)
    stand.director.presence.tell_present(True, 3.0)
    stand.run(4.0)
    values = [s.face.code[JAW] for s in stand.between(2.9, 4.0) if s.face is not None]
    assert values[0] == pytest.approx(0.5)
    assert values[-1] == 0
    assert np.abs(np.diff(values)).max() < 0.2


def test_a_frozen_picture_is_not_drawn_again() -> None:
    stand = Stand("freeze", return_s=0.0)
    stand.director.gate.tell_state("parked", 1.0)
    stand.message(0.5, 1.0)
    stand.director.gate.tell_state("moving", 1.05)
    for index in range(20):
        stand.message(0.05 * index, 1.1 + index / 25)
    assert len(stand.between(1.05, 2.0)) == 0
    assert stand.director.look(1.9).name == "hold"
    stand.director.gate.tell_state("parked", 1.9)
    stand.message(0.3, 1.91)
    assert stand.drawn[-1][1].name == "live"


def test_a_new_avatar_is_drawn_at_once() -> None:
    stand = Stand(return_s=0.0, hold_s=9.0)
    stand.message(0.5, 1.0)
    stand.run(2.0)
    count = len(stand.drawn)
    stand.director.set_avatar(PlainAvatar())
    stand.run(2.2)
    assert len(stand.drawn) == count + 1


def test_the_head_rests_when_it_must_not_move() -> None:
    stand = Stand(show_idle_at_start=True)
    stand.director.head_moves = False
    stand.run(8.0)
    for _, shown in stand.drawn:
        assert shown.face is not None
        np.testing.assert_array_equal(shown.face.motion, np.eye(4))
    stand.director.head_moves = True
    stand.run(12.0)
    assert stand.drawn[-1][1].face is not None
    assert np.abs(stand.drawn[-1][1].face.motion - np.eye(4)).max() > 1e-3


def test_bad_rates_are_refused() -> None:
    with pytest.raises(InputError, match="rate_hz must be positive"):
        RateConfig(rate_hz=0.0)
