"""Blinks and sway of a resting face."""

from __future__ import annotations

import numpy as np
import pytest

from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_INDEX
from cag_avatar_node.face_blend import Face
from cag_avatar_node.idle_motion import BLINK_S, EYES, IdleConfig, IdleMotion

REST = Face(np.full(52, 0.1, np.float32), np.eye(4))
TIMES = np.arange(0.0, 120.0, 0.01)


def blinks(config: IdleConfig) -> tuple[np.ndarray, np.ndarray]:
    idle = IdleMotion(config)
    closed = np.array([idle.closed(float(time)) for time in TIMES])
    return closed, TIMES[1:][(closed[1:] > 0) & (closed[:-1] == 0)]


def test_blinks_come_every_three_to_five_seconds_and_close_the_eyes() -> None:
    closed, starts = blinks(IdleConfig())
    gaps = np.diff(starts)
    assert len(gaps) > 20
    assert gaps.min() >= 3.0 - 0.02
    assert gaps.max() <= 5.0 + 0.02
    assert gaps.std() > 0.2, "like a clock"
    assert closed.max() == pytest.approx(1.0, abs=1e-3)
    assert np.mean(closed > 0) < 0.15


def test_a_blink_closes_faster_than_it_opens() -> None:
    closed, starts = blinks(IdleConfig())
    one = closed[(starts[0] - 0.02 <= TIMES) & (starts[0] + BLINK_S + 0.02 >= TIMES)]
    rise, fall = np.diff(one).max(), -np.diff(one).min()
    assert rise > 1.5 * fall
    assert np.abs(np.diff(one)).max() < 0.25, "a jump"


def test_the_same_seed_blinks_alike() -> None:
    first, other = blinks(IdleConfig(seed=4))[1], blinks(IdleConfig(seed=5))[1]
    np.testing.assert_array_equal(first, blinks(IdleConfig(seed=4))[1])
    assert len(first) != len(other) or not np.allclose(first, other)


def test_both_eyes_and_only_they_move_the_code() -> None:
    idle = IdleMotion()
    start = float(idle.until_blink(0.0))
    shut = idle.face(REST, start + 0.1)
    assert [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]] == EYES
    np.testing.assert_allclose(shut.code[EYES], 1.0)
    np.testing.assert_array_equal(np.delete(shut.code, EYES), np.delete(REST.code, EYES))
    np.testing.assert_array_equal(REST.code, np.float32(0.1))
    assert idle.until_blink(start + 0.1) == 0.0


def test_eyes_close_as_far_as_the_avatar_can() -> None:
    idle = IdleMotion()
    shut = np.array([0.6, 0.05], np.float32)
    closed = idle.face(REST, idle.until_blink(0.0) + 0.1, shut).code
    np.testing.assert_allclose(closed[EYES], [0.6, 0.1])


def test_the_head_sways_a_little_and_sets_in_softly() -> None:
    idle = IdleMotion(IdleConfig(sway_deg=2.0))
    np.testing.assert_allclose(idle.face(REST, 0.0).motion, np.eye(4))
    yaw = []
    for time in TIMES[::10]:
        motion = idle.sway(float(time))
        assert motion is not None
        yaw.append(np.degrees(np.arctan2(motion[0, 2], motion[2, 2])))
    assert 1.5 < np.abs(yaw).max() <= 2.01
    assert np.abs(np.diff(yaw)).max() < 0.3, "a tenth of a second"
    assert np.abs(yaw[:5]).max() < 0.2, "the first half second"
    assert IdleMotion(IdleConfig(sway_deg=0.0)).face(REST, 5.0).motion is REST.motion


def test_bad_times_are_refused() -> None:
    with pytest.raises(InputError, match="blink_min_s"):
        IdleConfig(blink_min_s=5.0, blink_max_s=3.0)
    with pytest.raises(InputError, match="idle_sway_deg"):
        IdleConfig(sway_deg=-1.0)
