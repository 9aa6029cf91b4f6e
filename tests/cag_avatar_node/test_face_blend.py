"""Mixing of codes and motions, and gliding from one to the next."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from cag_avatar_node.face_blend import (
    Face,
    Interpolator,
    blend_faces,
    blend_motions,
    motion_of_pose,
    pose_of_motion,
    smoothstep,
)


def turned(*degrees: float, shift: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    motion = np.eye(4)
    motion[:3, :3] = cv2.Rodrigues(np.radians(degrees))[0]
    motion[:3, 3] = shift
    return motion


def face(value: float, *degrees: float) -> Face:
    return Face(np.full(52, value, np.float32), turned(*degrees) if degrees else np.eye(4))


def test_half_way_is_half_the_turn_about_the_same_axis() -> None:
    first, second = turned(0, 20, 0), turned(0, 60, 0, shift=(0.1, 0, -0.2))
    middle = blend_motions(first, second, 0.25)
    np.testing.assert_allclose(middle, turned(0, 30, 0, shift=(0.025, 0, -0.05)), atol=1e-9)


def test_the_shortest_way_is_taken_at_constant_speed() -> None:
    first, second = turned(0, 0, 170), turned(0, 0, -170)
    way = [blend_motions(first, second, share)[:3, :3] for share in np.linspace(0, 1, 6)]
    steps = [np.linalg.norm(cv2.Rodrigues(a.T @ b)[0]) for a, b in itertools.pairwise(way)]
    np.testing.assert_allclose(steps, np.radians(20 / 5), rtol=1e-6)


def test_the_way_ends_where_it_should_whatever_the_axes() -> None:
    first, second = turned(0, 50, 0), turned(40, 0, 20)
    np.testing.assert_allclose(blend_motions(first, second, 1e-9), first, atol=1e-8)
    np.testing.assert_allclose(blend_motions(first, second, 1 - 1e-9), second, atol=1e-8)


def test_faces_mix_codes_and_stay_float32() -> None:
    mixed = blend_faces(face(0.2), face(0.6, 0, 10, 0), 0.5)
    np.testing.assert_allclose(mixed.code, 0.4, rtol=1e-6)
    assert mixed.code.dtype == np.float32
    np.testing.assert_allclose(mixed.motion, turned(0, 5, 0), atol=1e-9)
    first, second = face(0.0), face(1.0)
    assert blend_faces(first, second, -1) is first
    assert blend_faces(first, second, 2) is second


def test_smoothstep_starts_and_ends_at_rest() -> None:
    assert [smoothstep(x) for x in (-1, 0, 0.5, 1, 9)] == [0, 0, 0.5, 1, 1]
    assert smoothstep(0.01) < 0.001


def test_motion_and_pose_are_inverse() -> None:
    rest = turned(180, 5, 0, shift=(0.01, 0.02, 0.8))
    pose = turned(170, 15, 3, shift=(0.03, 0.0, 0.7))
    motion = motion_of_pose(pose, rest)
    np.testing.assert_allclose(pose_of_motion(motion, rest), pose, atol=1e-12)
    np.testing.assert_allclose(motion_of_pose(rest, rest), np.eye(4), atol=1e-12)


def test_gliding_reaches_each_code_one_interval_later_without_a_jump() -> None:
    glide = Interpolator(max_interval_s=0.1)
    assert glide.at(0.0) is None
    glide.add(face(0.0), 0.0)
    assert glide.at(0.0).code[0] == 0.0  # type: ignore[union-attr]
    for step in range(1, 6):
        now = 0.04 * step
        before = glide.at(now)
        glide.add(face(0.1 * step), now)
        after = glide.at(now)
        assert before is not None
        assert after is not None
        np.testing.assert_allclose(after.code, before.code, atol=1e-6)
    np.testing.assert_allclose(glide.at(0.22).code, 0.45, atol=1e-3)  # type: ignore[union-attr]
    assert not glide.arrived(0.22)
    assert glide.arrived(0.241)
    np.testing.assert_allclose(glide.at(0.241).code, 0.5, atol=1e-6)  # type: ignore[union-attr]


def test_a_code_that_comes_early_or_late_does_not_make_it_jump() -> None:
    glide = Interpolator(max_interval_s=0.1)
    random = np.random.default_rng(1)
    now, times = 0.0, []
    for _ in range(60):
        glide.add(face(float(random.random())), now)
        times.append(now)
        now += float(random.uniform(0.005, 0.3))
    shown = []
    glide = Interpolator(max_interval_s=0.1)
    random = np.random.default_rng(1)
    for moment in np.arange(0.0, times[-1], 0.001):
        while times and times[0] <= moment:
            glide.add(face(float(random.random())), times.pop(0))
        found = glide.at(float(moment))
        assert found is not None
        shown.append(found.code[0])
    # Within a millisecond at most a tenth of the way of the whole range.
    assert np.abs(np.diff(shown)).max() < 0.1


def test_negative_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        Interpolator(-1.0)
