from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cag_avatar.tracking.torso import torso_poses

SIZE, FOCAL, FRAMES = 240, 420.0, 11
CENTRE = (120.0, 118.0)


@pytest.fixture(scope="module")
def cloth() -> NDArray[np.uint8]:
    """A smooth random texture, larger than the picture."""
    noise = np.random.default_rng(0).standard_normal((2 * SIZE, 2 * SIZE)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)  # type: ignore[call-overload]


def similarity(scale: float, roll: float, shift: tuple[float, float]) -> NDArray[np.float64]:
    """Motion of the picture about the principal point, [2, 3]."""
    a, b = scale * np.cos(roll), scale * np.sin(roll)
    linear = np.array([[a, -b], [b, a]])
    offset = np.array(CENTRE) - linear @ CENTRE + shift
    return np.column_stack([linear, offset])


def picture(cloth: NDArray[np.uint8], motion: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The texture seen through a motion; index + 0.5 is the pixel's centre."""
    start = np.array([[1, 0, -SIZE / 2], [0, 1, -SIZE / 2], [0, 0, 1.0]])
    whole = np.vstack([motion, [0, 0, 1]])
    half = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]])
    return cv2.warpAffine(
        cloth, (half @ whole @ np.linalg.inv(half) @ start)[:2], (SIZE, SIZE), flags=cv2.INTER_CUBIC
    )  # type: ignore[return-value]


def head_poses() -> NDArray[np.float64]:
    """The head stays, but for a shake in every other frame; the middle frame is the median."""
    pose = np.tile(np.diag([1.0, -1.0, -1.0, 1.0]), (FRAMES, 1, 1))
    pose[:, :3, 3] = (0.01, -0.03, 0.7)
    for t in range(FRAMES):
        angle = 0.06 * (t - FRAMES // 2)
        c, s = np.cos(angle), np.sin(angle)
        pose[t, :3, :3] = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ pose[t, :3, :3]
    return pose


def below() -> NDArray[np.uint8]:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[SIZE // 2 :] = 255
    return mask


def project(pose: NDArray[np.float64], point: tuple[float, float, float]) -> NDArray[np.float64]:
    at = pose[..., :3, :3] @ np.array(point) + pose[..., :3, 3]
    return at[..., :2] / at[..., 2:] * FOCAL + CENTRE


@pytest.mark.parametrize(
    ("scale", "roll", "shift"),
    [(0.0, 0.0, (8.0, -5.0)), (0.0, 0.1, (0.0, 0.0)), (0.08, 0.0, (0.0, 0.0)),
     (-0.06, -0.08, (-6.0, 4.0))],
)  # fmt: skip
def test_torso_moves_as_its_picture(
    cloth: NDArray[np.uint8], scale: float, roll: float, shift: tuple[float, float]
) -> None:
    middle = FRAMES // 2
    ways = [(t - middle) / middle for t in range(FRAMES)]
    motions = [similarity(1 + scale * w, roll * w, (shift[0] * w, shift[1] * w)) for w in ways]
    frames = [picture(cloth, m) for m in motions]
    poses = torso_poses(frames.__getitem__, lambda t: below(), head_poses(), FOCAL, CENTRE)
    np.testing.assert_allclose(poses[middle], head_poses()[middle], atol=2e-3)
    for t in range(2, FRAMES - 2):  # the ends are smoothed
        rotation = poses[t, :3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
        for point in ((0.0, -0.2, -0.08), (0.1, -0.22, -0.08), (-0.1, -0.18, -0.08)):
            start = project(poses[middle], point)
            expected = motions[t][:, :2] @ start + motions[t][:, 2]
            np.testing.assert_allclose(project(poses[t], point), expected, atol=0.6)


def test_a_plain_torso_stays_still_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    grey = np.full((SIZE, SIZE), 90, np.uint8)
    with caplog.at_level(logging.WARNING):
        poses = torso_poses(lambda t: grey, lambda t: below(), head_poses(), FOCAL, CENTRE)
    np.testing.assert_allclose(poses, np.tile(poses[:1], (FRAMES, 1, 1)))
    np.testing.assert_allclose(poses[0], head_poses()[FRAMES // 2], atol=1e-6)
    assert "no texture to follow" in caplog.text


def test_a_lost_frame_takes_the_pose_of_the_one_before(
    cloth: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    frames = [picture(cloth, similarity(1, 0, (2.0 * (t - FRAMES // 2), 0))) for t in range(FRAMES)]
    frames[-1] = np.zeros_like(frames[0])
    frames[-2] = np.zeros_like(frames[0])
    with caplog.at_level(logging.WARNING):
        poses = torso_poses(frames.__getitem__, lambda t: below(), head_poses(), FOCAL, CENTRE)
    assert f"followed in {FRAMES - 2} of {FRAMES} frames" in caplog.text
    at = project(poses, (0.0, -0.2, -0.08))[:, 0]
    assert abs(at[-1] - at[-3]) < 0.7
    assert at[5] - at[3] == pytest.approx(4.0, abs=0.4)


def test_features_come_from_the_torso_alone(cloth: NDArray[np.uint8]) -> None:
    """The head moves the other way: it must not count."""
    frames = []
    for t in range(FRAMES):
        image = picture(cloth, similarity(1, 0, (1.0 * (t - FRAMES // 2), 0)))
        head = picture(cloth, similarity(1, 0, (-3.0 * (t - FRAMES // 2), 0)))
        image[: SIZE // 2] = head[: SIZE // 2]
        frames.append(image)
    poses = torso_poses(frames.__getitem__, lambda t: below(), head_poses(), FOCAL, CENTRE)
    at = project(poses, (0.0, -0.2, -0.08))[:, 0]
    assert at[8] - at[2] == pytest.approx(6.0, abs=0.5)
