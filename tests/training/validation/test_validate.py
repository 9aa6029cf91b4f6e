"""Each planted fault is named, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.validation import ValidationConfig, ValidationResult, validate

from cag_avatar.head_models import ARKIT_INDEX, ARKIT_NAMES
from tests.training.validation.conftest import FPS, SIZE, Damaged

JAW = ARKIT_INDEX["jawOpen"]
SIDES = [
    ARKIT_INDEX.get(n.replace("Left", "@").replace("Right", "Left").replace("@", "Right"), i)
    for i, n in enumerate(ARKIT_NAMES)
]


def named(result: ValidationResult) -> set[tuple[str, str]]:
    return {(f.severity, f.check) for f in result.findings if f.severity != "note"}


def late(rows: np.ndarray) -> np.ndarray:
    """Row t becomes that of frame t - 1."""
    return np.concatenate([rows[:1], rows[:-1]])


def shifted_codes(d: Damaged) -> None:
    d.tensors(codes=late)


def shifted(d: Damaged) -> None:
    d.tensors(codes=late, head_pose=late, torso_pose=late)


def shifted_with_landmarks(d: Damaged) -> None:
    d.tensors(codes=late, head_pose=late, torso_pose=late, landmarks=late)


def shifted_early(d: Damaged) -> None:
    def early(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([rows[2:], rows[-1:], rows[-1:]])

    d.tensors(codes=early, head_pose=early, torso_pose=early)


def exchanged(d: Damaged) -> None:
    d.tensors(codes=lambda c: c[:, SIDES])


def mirrored(d: Damaged) -> None:
    for folder in ("images", "alpha"):
        d.pictures(folder, lambda _, picture: np.ascontiguousarray(picture[:, ::-1]))


def mirrored_landmarks(d: Damaged) -> None:
    def mirror(points: np.ndarray) -> np.ndarray:
        points[..., 0] = SIZE - points[..., 0]
        return points

    d.tensors(landmarks=mirror)


def no_jaw(d: Damaged) -> None:
    def close(codes: np.ndarray) -> np.ndarray:
        codes[:, JAW] = 0
        return codes

    d.tensors(codes=close)


def principal_point(d: Damaged) -> None:
    d.camera(cx=0.03 * SIZE)


def principal_point_without_landmarks(d: Damaged) -> None:
    d.camera(cx=0.06 * SIZE)
    d.tensors(landmarks=np.zeros_like)


def focal(d: Damaged) -> None:
    d.camera(fx=0.1 * SIZE * 2, fy=0.1 * SIZE * 2)


def holes(d: Damaged) -> None:
    def punch(number: int, matte: np.ndarray) -> np.ndarray:
        if number % 4 == 0:
            cv2.circle(matte, (SIZE // 2, SIZE // 2), 6, 0, -1)
        return matte

    d.pictures("alpha", punch)


def islands(d: Damaged) -> None:
    def add(number: int, matte: np.ndarray) -> np.ndarray:
        matte[4:20, 4:20] = 255
        return matte

    d.pictures("alpha", add)


def flicker(d: Damaged) -> None:
    def grow(number: int, matte: np.ndarray) -> np.ndarray:
        return cv2.dilate(matte, np.ones((5, 5), np.uint8)) if number % 2 else matte

    d.pictures("alpha", grow)


def frozen(d: Damaged) -> None:
    def hold(codes: np.ndarray) -> np.ndarray:
        codes[30:60] = codes[30]
        return codes

    d.tensors(codes=hold)


def no_smile(d: Damaged) -> None:
    def sober(codes: np.ndarray) -> np.ndarray:
        for side in ("Left", "Right"):
            codes[:, ARKIT_INDEX[f"mouthSmile{side}"]] *= 0.2
        return codes

    d.tensors(codes=sober)


def wrong_order(d: Damaged) -> None:
    d.reorder(np.random.default_rng(1).permutation(len(d.open())))


def spikes(d: Damaged) -> None:
    def jump(poses: np.ndarray) -> np.ndarray:
        c, s = np.cos(0.15), np.sin(0.15)
        turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], np.float32)
        for t in (20, 51, 77):
            poses[t, :3, :3] = poses[t, :3, :3] @ turn
        return poses

    d.tensors(head_pose=jump)


def scaled_poses(d: Damaged) -> None:
    d.tensors(head_pose=lambda p: p * np.array([1, 1, 1.2, 1], np.float32))


def back_in_time(d: Damaged) -> None:
    def swap(times: np.ndarray) -> np.ndarray:
        times[[40, 41]] = times[[41, 40]]
        return times

    d.tensors(timestamps=swap)


def wrong_rate(d: Damaged) -> None:
    d.tensors(timestamps=lambda t: t * FPS / 30)


def per_cent(d: Damaged) -> None:
    d.tensors(codes=lambda c: c * 100)


def bad_landmarks(d: Damaged) -> None:
    def scatter(points: np.ndarray) -> np.ndarray:
        points[40:46, :, :2] += np.random.default_rng(0).normal(0, 5, points[40:46, :, :2].shape)
        return points

    d.tensors(landmarks=scatter)


def dark(d: Damaged) -> None:
    d.pictures("images", lambda _, picture: (picture // 8).astype(np.uint8))


def burnt(d: Damaged) -> None:
    d.pictures("images", lambda _, p: np.clip(p.astype(int) * 2, 0, 255).astype(np.uint8))


def blurred(d: Damaged) -> None:
    def blur(number: int, picture: np.ndarray) -> np.ndarray:
        return cv2.blur(picture, (9, 9)) if number % 5 == 0 else picture

    d.pictures("images", blur)


def repeated(d: Damaged) -> None:
    order = np.arange(len(d.open()))
    order[4::5] -= 1
    d.reorder(order)


FAULTS: list[tuple[Callable[[Damaged], None], str, str, str]] = [
    (shifted, "error", "shifted", "1 frame too late"),
    (shifted_with_landmarks, "error", "shifted", "1 frame too late"),
    (shifted_early, "error", "shifted", "2 frames too early"),
    (shifted_codes, "error", "shifted", "the expression code is 1 frame too late"),
    (exchanged, "error", "sides", "exchanged in the coefficients"),
    (mirrored, "error", "sides", "pictures are mirrored"),
    (mirrored_landmarks, "error", "sides", "left eye"),
    (no_jaw, "error", "missing-jaw", "jawOpen stays neutral"),
    (principal_point, "error", "camera", "too far to the right"),
    (principal_point_without_landmarks, "error", "camera", "outside the person's outline"),
    (focal, "error", "camera", "too large"),
    (holes, "error", "matte-holes", "holes in the head in 23 frames"),
    (islands, "warning", "matte-islands", "apart from the person"),
    (flicker, "warning", "matte-flicker", "flickers"),
    (frozen, "error", "frozen", "30 frames"),
    (no_smile, "warning", "range", "nobody smiled"),
    (wrong_order, "error", "wrong-order", "does not move like"),
    (spikes, "error", "pose-jumps", "jumps in 3 frames"),
    (scaled_poses, "error", "poses", "rigid motion"),
    (back_in_time, "error", "timestamps", "does not grow"),
    (wrong_rate, "warning", "timestamps", "25 frames per second, the time stamps 30"),
    (per_cent, "error", "code-range", "leaves its range"),
    (bad_landmarks, "warning", "reprojection", "in 6 frames"),
    (dark, "warning", "light", "dark"),
    (burnt, "warning", "light", "burnt out"),
    (blurred, "warning", "blur", "18 frames"),
    (repeated, "warning", "repeats", "18 pictures"),
]


def test_a_clean_dataset_is_clean(clean: Dataset) -> None:
    result = validate(clean)
    assert named(result) == set()
    assert result.errors == result.warnings == 0


@pytest.mark.parametrize(("plant", "severity", "check", "words"), FAULTS)
def test_a_planted_fault_is_named_and_nothing_else(
    plant: Callable[[Damaged], None],
    severity: str,
    check: str,
    words: str,
    damaged: Damaged,
) -> None:
    plant(damaged)
    result = validate(damaged.open(), ValidationConfig(detect=False))
    assert named(result) == {(severity, check)}
    assert any(words in f.what for f in result.findings if f.check == check)
