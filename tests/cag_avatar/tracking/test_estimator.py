from __future__ import annotations

import time
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models import ARKIT_INDEX
from cag_avatar.tracking.code_regressor import CodeRegressor
from cag_avatar.tracking.estimator import (
    EstimatorConfig,
    ExpressionEstimator,
    FaceEstimate,
    _eyes_seen,
)
from cag_avatar.tracking.face_landmarker import DetectedFace
from cag_avatar.tracking.operator_shape import OperatorFrames
from cag_avatar.tracking.operator_solver import OperatorSolver

FRAMES = 26
SIZE = (320, 260)
QUICK = EstimatorConfig(calibration_frames=6, calibration_stride=2)


@dataclass(frozen=True)
class Show:
    codes: torch.Tensor
    poses: torch.Tensor
    images: list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def show(photographer) -> Show:  # type: ignore[no-untyped-def]
    """The mean head at rest, then it opens the mouth, smiles, blinks and turns."""
    codes = torch.zeros(FRAMES, 52)
    part = torch.sin(torch.linspace(0, torch.pi, 10))
    codes[4:14, ARKIT_INDEX["jawOpen"]] = 0.8 * part
    for side in ("Left", "Right"):
        codes[14:24, ARKIT_INDEX[f"mouthSmile{side}"]] = 0.9 * part
    yaw = 0.35 * torch.sin(torch.linspace(0, 2 * torch.pi, FRAMES))
    poses = torch.stack([photographer.pose((0.0, float(a), 0.0)) for a in yaw])
    images = [photographer.photograph(c, p, *SIZE) for c, p in zip(codes, poses, strict=True)]
    return Show(codes, poses, images)


@pytest.fixture(scope="module")
def estimates(show: Show) -> list[FaceEstimate]:
    config = EstimatorConfig(calibration_frames=1000)  # the mean head is the operator's
    with ExpressionEstimator(config) as estimator:
        return [estimator.estimate(image, 40_000_000 * t) for t, image in enumerate(show.images)]


def test_every_frame_is_found_with_confidence(estimates: list[FaceEstimate]) -> None:
    assert all(e.is_valid and e.eyes_valid for e in estimates)
    assert min(e.confidence for e in estimates) > 0.7
    for e in estimates:
        assert e.code.dtype == np.float32
        assert e.code.shape == (52,)
        assert e.code.min() >= 0
        assert e.code.max() <= 1
        rotation = e.head_pose[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-4)
        assert np.linalg.det(rotation) > 0


@pytest.mark.parametrize("name", ["jawOpen", "mouthSmileLeft", "mouthSmileRight"])
def test_codes_follow_the_truth(show: Show, estimates: list[FaceEstimate], name: str) -> None:
    index = ARKIT_INDEX[name]
    truth = show.codes[:, index].numpy()
    found = np.array([e.code[index] for e in estimates])
    assert np.corrcoef(truth, found)[0, 1] > 0.9
    assert found[truth.argmax()] > found[:4].mean() + 0.3


def test_pose_follows_the_truth(show: Show, estimates: list[FaceEstimate]) -> None:
    truth = show.poses.double().numpy()
    found = np.stack([e.head_pose for e in estimates])
    relative = found[:, :3, :3] @ truth[:, :3, :3].transpose(0, 2, 1)
    cosine = 0.5 * (np.trace(relative, axis1=1, axis2=2) - 1)
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 8
    direction = found[:, :2, 3] / found[:, 2:3, 3] * (1.4 / 1.8)  # the focal length is guessed
    np.testing.assert_allclose(direction, truth[:, :2, 3] / truth[:, 2:3, 3], atol=0.03)


def test_the_operators_shape_comes_from_the_background(show: Show) -> None:
    with ExpressionEstimator(QUICK) as estimator:
        assert not estimator.calibrated
        for t in range(400):
            estimate = estimator.estimate(show.images[t % FRAMES], 40_000_000 * t)
            if estimator.calibrated:
                break
            time.sleep(0.03)
        assert estimator.calibrated
        assert estimate.is_valid
        again = estimator.estimate(show.images[0], 40_000_000 * 500)
        assert again.confidence > 0.7


def test_once_calibrated_the_gaze_follows_the_irises_in_the_pictures(  # type: ignore[no-untyped-def]
    photographer, show: Show
) -> None:
    """Also those that the avatar's regressor is told, if it learned from such."""
    config = EstimatorConfig(calibration_frames=10, calibration_stride=1)
    told: list[NDArray[np.floating]] = []

    class Listening(_Stub):
        def codes(self, landmarks, scores):  # type: ignore[no-untyped-def]
            told.append(landmarks[0])
            return super().codes(landmarks, scores)

        def distance(self, landmarks):  # type: ignore[no-untyped-def]
            return 0.0

    blank = np.zeros((468, 3), np.float32), np.zeros((478, 3), np.float32)
    stub = Listening(b"", *blank, {"irises_in_pictures": True})

    def looking(amount: float) -> NDArray[np.uint8]:
        code = torch.zeros(52)
        code[ARKIT_INDEX["eyeLookOutLeft"]] = code[ARKIT_INDEX["eyeLookInRight"]] = max(amount, 0)
        code[ARKIT_INDEX["eyeLookInLeft"]] = code[ARKIT_INDEX["eyeLookOutRight"]] = max(-amount, 0)
        return np.asarray(photographer.photograph(code, show.poses[0], 512, 416))

    images = [looking(0.5 * np.sin(t)) for t in range(10)]
    with ExpressionEstimator(config, stub) as estimator:
        for t in range(400):
            estimator.estimate(images[t % 10], 40_000_000 * t)
            if estimator.calibrated:
                break
            time.sleep(0.03)
        assert estimator._irises is not None
        found = {}
        for amount in (-0.5, 0.5):
            image = looking(amount)
            for _ in range(8):
                t += 1
                estimate = estimator.estimate(image, 40_000_000 * t)
            assert estimate.face is not None
            irises = told[-1][[468, 473], :2] - estimate.face.landmarks[[468, 473], :2]
            assert (irises != 0).any(1).all()
            found[amount] = estimate.code
    for amount, code in found.items():
        for out, inward in (("Left", "Right"), ("Right", "Left")):
            sign = amount if out == "Left" else -amount
            assert code[ARKIT_INDEX[f"eyeLookOut{out}"]] == pytest.approx(max(sign, 0), abs=0.2)
            assert code[ARKIT_INDEX[f"eyeLookIn{inward}"]] == pytest.approx(max(sign, 0), abs=0.2)
        assert code[ARKIT_INDEX["eyeLookUpLeft"]] == code[ARKIT_INDEX["eyeLookUpRight"]]


def test_a_calibration_that_fails_is_tried_again(
    show: Show, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[int] = []

    class FailsOnce(OperatorSolver):
        def __init__(self, frames: OperatorFrames) -> None:
            attempts.append(len(frames.landmarks))
            super().__init__(replace(frames, head_model="nobody") if len(attempts) == 1 else frames)

    monkeypatch.setattr("cag_avatar.tracking.estimator.OperatorSolver", FailsOnce)
    with ExpressionEstimator(QUICK) as estimator:
        for t in range(400):
            assert estimator.estimate(show.images[t % FRAMES], 40_000_000 * t).is_valid
            if estimator.calibrated:
                break
            time.sleep(0.03)
        assert estimator.calibrated
    assert attempts == [6, 6]
    assert "operator's shape not solved (RuntimeError: " in caplog.text
    assert "'nobody' is unknown" in caplog.text


def test_no_face_is_not_valid_and_the_next_face_is(show: Show) -> None:
    blank = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    with ExpressionEstimator() as estimator:
        first = estimator.estimate(blank, 0)
        estimator.estimate(show.images[0], 40_000_000)
        lost = estimator.estimate(blank, 80_000_000)
        back = estimator.estimate(show.images[0], 120_000_000)
    for nothing in (first, lost):
        assert not nothing.is_valid
        assert not nothing.eyes_valid
        assert nothing.confidence == 0
        assert (nothing.code == 0).all()
        np.testing.assert_array_equal(nothing.head_pose, np.eye(4))
    assert back.is_valid


def test_a_change_of_size_starts_anew(photographer, show: Show) -> None:  # type: ignore[no-untyped-def]
    """Calibration too, even one that is being solved: its focal length was of the other size."""
    small = photographer.photograph(show.codes[0], show.poses[0], 240, 200)
    with ExpressionEstimator(QUICK) as estimator:
        for t in range(11):
            estimator.estimate(show.images[t], 40_000_000 * t)
        assert estimator._pending is not None
        changed = estimator.estimate(small, 40_000_000 * 11)
        fresh = estimator.estimate(small, 40_000_000 * 12)
        assert estimator._pending is None
        assert not estimator.calibrated
    assert changed.is_valid
    np.testing.assert_allclose(changed.head_pose, fresh.head_pose, atol=0.03)
    # The distance is assumed; the focal length follows from the head's size in the picture.
    assert abs(changed.head_pose[2, 3] / EstimatorConfig().fit.distance - 1) < 0.1


def test_a_bad_image_says_what_it_is() -> None:
    grey, rgba = np.zeros((60, 80), np.uint8), np.zeros((60, 80, 4), np.uint8)
    with ExpressionEstimator() as estimator:
        for image in (grey, rgba, np.zeros((60, 80, 3))):
            with pytest.raises(InputError, match=r"estimator: image is (uint8|float64) \(60, 80"):
                estimator.estimate(image, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["calibration_frames", "iterations", "neutral_window"])
def test_settings_must_be_positive(name: str) -> None:
    with pytest.raises(InputError, match=f"estimator: {name} must be at least 1"):
        EstimatorConfig(**{name: 0})


def test_an_unknown_head_model_is_refused() -> None:
    with pytest.raises(InputError, match="head model 'flame' is unknown"):
        ExpressionEstimator(EstimatorConfig(head_model="flame"))


class _Stub(CodeRegressor):
    """Says how far it was asked about, and answers with the first score."""

    def codes(self, landmarks, scores):  # type: ignore[no-untyped-def]
        return np.full((len(landmarks), 52), scores[0].max(), np.float32)

    def distance(self, landmarks):  # type: ignore[no-untyped-def]
        assert landmarks.shape == (QUICK.calibration_frames, 478, 3)
        return 0.0005


def test_a_regressors_code_comes_beside_the_fits(show: Show) -> None:
    stub = _Stub(b"", np.zeros((468, 3), np.float32), np.zeros((478, 3), np.float32))
    with ExpressionEstimator(QUICK, stub) as estimator:
        first = estimator.estimate(show.images[0], 0)
        assert estimator.own_person is None
        for t in range(1, 14):
            last = estimator.estimate(show.images[t], 40_000_000 * t)
        assert estimator.own_person is True
    for estimate in (first, last):
        assert estimate.regressed is not None
        assert estimate.regressed.max() > 0
        assert not np.array_equal(estimate.regressed, estimate.code)


def test_the_operator_keeps_the_place_among_two(photographer, show: Show) -> None:  # type: ignore[no-untyped-def]
    """Two faces side by side: the larger is the operator, until they have been gone for long."""
    face = show.images[0]
    small = cv2.resize(face, (240, 195), interpolation=cv2.INTER_AREA)

    def picture(*, operator: bool, grown: bool = False) -> NDArray[np.uint8]:
        canvas = np.full((260, 640, 3), face[0, 0], np.uint8)
        if operator:
            canvas[:, :320] = face
        other = face if grown else small
        canvas[: other.shape[0], 320 : 320 + other.shape[1]] = other
        return canvas

    config = EstimatorConfig(max_faces=2, operator_timeout_s=0.5, calibration_frames=1000)
    with ExpressionEstimator(config) as estimator:
        both = [estimator.estimate(picture(operator=True), 40_000_000 * t) for t in range(4)]
        assert all(e.is_valid and e.operator == 0 and len(e.others) == 1 for e in both[1:])
        assert both[-1].face is not None
        assert both[-1].face.box()[2] < 320 < both[-1].others[0].box()[0]
        for t in range(4, 8):
            alone = estimator.estimate(picture(operator=False, grown=True), 40_000_000 * t)
        assert not alone.is_valid, "a bystander took the place at once"
        assert alone.face is None
        for t in range(30, 33):
            later = estimator.estimate(picture(operator=False, grown=True), 40_000_000 * t)
        assert later.is_valid
        assert later.operator == 1


def test_restart_forgets_the_operator(show: Show) -> None:
    with ExpressionEstimator(QUICK) as estimator:
        for t, image in enumerate(show.images[:14]):
            estimator.estimate(image, 40_000_000 * t)
        assert estimator._pending is not None
        estimator._pending.result()
        estimator.estimate(show.images[14], 40_000_000 * 14)
        assert estimator.calibrated
        estimator.restart()
        assert not estimator.calibrated
        assert estimator.estimate(show.images[0], 0).is_valid


@pytest.mark.parametrize(
    ("yaw", "sideways", "x", "seen"),
    [
        (0, 0.0, 100, True), (40, 0.0, 100, True), (60, 0.0, 100, False), (-60, 0.0, 100, False),
        (30, 0.5, 100, False), (60, -0.5, 100, True),  # far to the side
        (0, 0.0, 315, False),  # an eye outside the picture
    ],
)  # fmt: skip
def test_eyes_that_are_hidden_or_outside_are_not_valid(
    yaw: float, sideways: float, x: float, seen: bool
) -> None:
    turn = np.radians(yaw)
    pose = np.eye(4)
    pose[:3, :3] = np.diag([1.0, -1.0, -1.0]) @ [
        [np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)],
    ]  # fmt: skip
    pose[:3, 3] = sideways, 0.0, 0.8
    landmarks = np.full((478, 3), 100.0, np.float32)
    landmarks[263, 0] = x + 10
    face = DetectedFace(landmarks, np.zeros(52, np.float32))
    assert _eyes_seen(face, (320, 240), pose) == seen
