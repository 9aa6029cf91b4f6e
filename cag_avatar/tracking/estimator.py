"""Expression code and head pose of a live video, frame by frame, with the same head model and the
same cost as the fit that avatars are trained with: so the codes mean the same.

Without torch, whose import takes longer than everything else up to the first code.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar.tracking.code_prior import (
    ArrayPrior,
    code_prior,
    corrected_prior,
    with_free_gaze,
)
from cag_avatar.tracking.code_regressor import OWN_DISTANCE, CodeRegressor
from cag_avatar.tracking.conjugate_gaze import with_conjugate_gaze
from cag_avatar.tracking.face_landmarker import DetectedFace, FaceLandmarker
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.irises import with_irises
from cag_avatar.tracking.landmark_correction import face_colors, load_landmark_correction
from cag_avatar.tracking.live_fit import LiveFit, LiveState
from cag_avatar.tracking.live_irises import EyeLooks, LiveIrises, look_at_eyes
from cag_avatar.tracking.live_points import load_live_points
from cag_avatar.tracking.operator_choice import OperatorChoice
from cag_avatar.tracking.operator_shape import OperatorFrames, OperatorShape
from cag_avatar.tracking.operator_solver import OperatorSolver

__all__ = ["EstimatorConfig", "ExpressionEstimator", "FaceEstimate"]

_LOG = logging.getLogger(__name__)

#: Landmark error, in inter-ocular distances, at which the confidence has fallen to 1/e.
_CONFIDENCE_SCALE = 0.06
#: Cosine of the angle between face and camera, 50 degrees, beyond which the nose hides an eye.
_EYES_SEEN = 0.64
_EYE_LANDMARKS = (33, 133, 159, 145, 263, 362, 386, 374)


@dataclass(frozen=True)
class EstimatorConfig:
    """Settings of the live estimator."""

    head_model: str = "anny"
    """Head model whose coefficients are estimated."""
    landmarker: Path | None = None
    """Face landmarker model file; by default it is looked for."""
    calibration_frames: int = 24
    """Frames from which the operator's shape is solved, once, in another process."""
    calibration_stride: int = 4
    """Every so many frames one is kept for the calibration."""
    neutral_window: int = 300
    """Frames over which each score's resting value is followed."""
    iterations: int = 2
    """Gauss-Newton steps a frame."""
    max_faces: int = 1
    """Faces looked for, from which the operator's is chosen; with 1 the one found is taken. More
    cost time: the landmarker then searches every frame for those missing, and no longer steadies
    the landmarks itself."""
    operator_timeout_s: float = 2.0
    """Seconds without the operator after which another face may take their place."""
    fit: FitConfig = field(default_factory=lambda: FitConfig(smooth_code=0.1))
    """Weights."""

    def __post_init__(self) -> None:
        for name in (
            "calibration_frames",
            "calibration_stride",
            "neutral_window",
            "iterations",
            "max_faces",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"estimator: {name} must be at least 1")
        if not self.operator_timeout_s >= 0:
            raise InputError("estimator: operator_timeout_s must not be negative")


@dataclass(frozen=True)
class FaceEstimate:
    """What one image says."""

    code: NDArray[np.float32]
    """Expression code, [52] in [0, 1]; zeros when not valid."""
    head_pose: NDArray[np.float64]
    """Canonical to camera space (OpenCV axes, metres), [4, 4]; identity when not valid."""
    confidence: float
    """From 0 to 1: how well the model explains the landmarks, exp(-(error / 6 % of the distance
    between the eyes)^2)."""
    is_valid: bool
    """A face was found."""
    eyes_valid: bool
    """Both eyes lie inside the picture, and neither is hidden by a head turned away."""
    regressed: NDArray[np.float32] | None = None
    """The code by the regressor of an avatar, if one was given, [E]; only right for the avatar's
    own person."""
    face: DetectedFace | None = None
    """The operator's landmarks and scores as detected; None when not valid."""
    others: tuple[DetectedFace, ...] = ()
    """Faces that are not the operator's."""
    operator: int = 0
    """Counts the operators from 0: grows when another person takes over."""


@dataclass(frozen=True)
class _Seen:
    face: DetectedFace
    colors: NDArray[np.float32]
    eyes: EyeLooks


class ExpressionEstimator:
    """Estimates codes from the images of one camera; not for several threads at once.

    The mean head is used until enough frames of the operator are seen; then their own shape, which
    is solved in another process. From then on landmarks are corrected and irises found in the
    pictures as in the fit of a clip.

    Args:
        config: settings.
        regressor: of an avatar, if its own person may be in the picture.

    Raises:
        InputError: no landmarker model, or a system library is missing (says how to get them).
    """

    def __init__(
        self, config: EstimatorConfig | None = None, regressor: CodeRegressor | None = None
    ) -> None:
        self._config = config or EstimatorConfig()
        self._regressor = regressor
        self._own: bool | None = None
        self._points = load_live_points(self._config.head_model)
        use = self._config.fit.correction != "none"
        self._correction = load_landmark_correction(self._config.head_model) if use else None
        self._landmarker = FaceLandmarker(
            video=True, model=self._config.landmarker, max_faces=self._config.max_faces
        )
        self._choice = OperatorChoice(self._config.operator_timeout_s)
        self._scores: deque[NDArray[np.float32]] = deque(maxlen=self._config.neutral_window)
        self._kept: list[_Seen] = []
        self._seen = 0
        self._size: tuple[int, int] | None = None
        self._state: LiveState | None = None
        self._mean_fit = self._fit = LiveFit(self._points, self._config.fit)
        self._operator: OperatorShape | None = None
        self._irises: LiveIrises | None = None
        self._pending: OperatorSolver | None = None

    @property
    def calibrated(self) -> bool:
        """Whether the operator's own shape is in use."""
        return self._operator is not None

    @property
    def own_person(self) -> bool | None:
        """Whether the regressor's own person seems to be in the picture; None: not known yet."""
        return self._own

    def estimate(self, image: NDArray[np.uint8], timestamp_ns: int) -> FaceEstimate:
        """Estimate from an RGB image [H, W, 3] uint8 and its time in nanoseconds.

        A change of the image size starts the tracking anew.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(
                f"estimator: image is {image.dtype} {image.shape}, not uint8 [H, W, 3]"
            )
        size = (image.shape[1], image.shape[0])
        if size != self._size:
            self.restart()
            self._size = size
        faces = self._landmarker.detect(image, timestamp_ns * 1e-9)
        chosen = self._choose(faces, timestamp_ns * 1e-9)
        if chosen is None:
            self._state = None
            return FaceEstimate(
                np.zeros(len(ARKIT_NAMES), np.float32), np.eye(4), 0.0, False, False,
                others=tuple(faces), operator=self._choice.number,
            )  # fmt: skip
        face = faces.pop(chosen)
        self._scores.append(face.scores)
        colors = face_colors(image, face.landmarks)
        self._calibrate(image, face, colors)
        shifts = None if self._irises is None else self._irises.shifts(image, face.landmarks)
        landmarks, prior = self._observe(face, colors, shifts)
        if self._state is None:
            focal = None if self._operator is None else self._operator.focal
            state, error = self._fit.start(landmarks, prior, _middle(size), focal)
        else:
            state, error = self._fit.track(self._state, landmarks, prior, self._config.iterations)
        self._state = state
        pose = state.head_pose()
        code = state.code
        if self._irises is not None:
            code = with_conjugate_gaze(code[None], ARKIT_NAMES)[0]
        return FaceEstimate(
            code.astype(np.float32),
            pose,
            float(np.exp(-((error / _CONFIDENCE_SCALE) ** 2))),
            True,
            _eyes_seen(face, size, pose),
            self._regressed(face, shifts),
            face,
            tuple(faces),
            self._choice.number,
        )

    def _regressed(
        self, face: DetectedFace, shifts: NDArray[np.float32] | None
    ) -> NDArray[np.float32] | None:
        """Code [E] by the avatar's regressor, if there is one; ``shifts`` of the irises [2, 2]."""
        if self._regressor is None:
            return None
        landmarks = face.landmarks
        if shifts is not None and self._regressor.irises_in_pictures:
            landmarks = with_irises(landmarks, shifts)
        return self._regressor.codes(landmarks[None], face.scores[None])[0]

    def restart(self) -> None:
        """Forget the operator, as when the camera starts again: another may sit before it."""
        self._choice.restart()
        self._forget()

    def _forget(self) -> None:
        """Forget who the operator is and how they look."""
        self._state, self._operator, self._irises, self._own = None, None, None, None
        self._fit = self._mean_fit
        self._kept, self._seen = [], 0
        self._scores.clear()
        if self._pending is not None:  # solved from pictures of before
            self._pending.cancel()
            self._pending = None

    def _choose(self, faces: list[DetectedFace], now: float) -> int | None:
        if self._config.max_faces == 1:
            return 0 if faces else None
        before = self._choice.number
        chosen = self._choice.choose([face.box() for face in faces], now)
        if self._choice.number != before:
            self._forget()
        return chosen

    def close(self) -> None:
        """Release the landmarker; a calibration under way is given up."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        self._landmarker.close()

    def __enter__(self) -> ExpressionEstimator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _observe(
        self,
        face: DetectedFace,
        colors: NDArray[np.float32],
        shifts: NDArray[np.float32] | None,
    ) -> tuple[NDArray[np.float32], ArrayPrior]:
        """Landmarks [478, 2] and prior of a frame, corrected once the operator is known; ``shifts``
        [2, 2] are what the picture adds to the irises."""
        operator, fit = self._operator, self._config.fit
        if self._correction is None or operator is None or operator.typical is None:
            landmarks, prior = face.landmarks[:, :2], self._prior()
        else:
            better = self._correction.correct(
                face.landmarks[None], face.scores[None], colors[None], operator.typical,
                rigid=fit.rigid(pictures=False),
            )  # fmt: skip
            landmarks, prior = better.landmarks[0], corrected_prior(better, fit)
        if shifts is None:
            return landmarks, prior
        return with_irises(landmarks, shifts), with_free_gaze(prior, fit)

    def _prior(self) -> ArrayPrior:
        # code_prior takes the resting values from the frames it is given; the newest is the last.
        enough = len(self._scores) >= self._config.calibration_frames
        recent = list(self._scores) if enough else [self._scores[-1]]
        return code_prior(np.stack(recent), self._config.fit).at([-1])

    def _calibrate(
        self, image: NDArray[np.uint8], face: DetectedFace, colors: NDArray[np.float32]
    ) -> None:
        if self._operator is not None:
            return
        if self._pending is not None:
            if self._pending.done:
                self._take_operator(self._pending)
            return
        if self._seen % self._config.calibration_stride == 0:
            self._kept.append(_Seen(face, colors, look_at_eyes(image, face.landmarks)))
        self._seen += 1
        if len(self._kept) >= self._config.calibration_frames and self._size is not None:
            self._pending = OperatorSolver(self._frames(self._size))
            if self._regressor is not None:
                distance = self._regressor.distance(
                    np.stack([kept.face.landmarks for kept in self._kept])
                )
                self._own = distance <= OWN_DISTANCE
                _LOG.info(
                    "the face is %.2f mm from that of the avatar's own person: %s",
                    1e3 * distance, "the same" if self._own else "another",
                )  # fmt: skip

    def _frames(self, size: tuple[int, int]) -> OperatorFrames:
        return OperatorFrames(
            self._config.head_model,
            size,
            self._config.fit,
            np.stack([kept.face.landmarks for kept in self._kept]),
            np.stack([kept.face.scores for kept in self._kept]),
            np.stack([kept.colors for kept in self._kept]),
            [kept.eyes for kept in self._kept],
        )

    def _take_operator(self, solved: OperatorSolver) -> None:
        self._pending = None
        if solved.error is not None:
            _LOG.warning(
                "operator's shape not solved (%s); going on with the present one, and trying "
                "again with the next %d frames",
                solved.error,
                self._config.calibration_frames * self._config.calibration_stride,
            )
            self._kept, self._seen = [], 0
            return
        self._operator = solved.result()
        irises = self._operator.irises
        self._irises = None if irises is None else LiveIrises(irises)
        if irises is None:
            _LOG.info("hardly an eye was seen open: irises stay where the landmarker has them")
        self._fit = LiveFit(
            self._points, self._config.fit, self._operator.rest, self._irises is not None
        )
        self._state = None  # start anew with the operator's shape
        _LOG.info("operator's shape solved from %d frames", len(self._kept))


def _eyes_seen(face: DetectedFace, size: tuple[int, int], pose: NDArray[np.float64]) -> bool:
    """Whether both eyes lie inside the picture (width, height) and neither is hidden by a head
    turned away from the camera; pose: canonical to camera, [4, 4]."""
    eyes = face.landmarks[list(_EYE_LANDMARKS), :2]
    inside = (eyes >= 0).all() and (eyes < np.array(size)).all()
    towards = -pose[:3, 3] / np.linalg.norm(pose[:3, 3])
    return bool(inside and pose[:3, 2] @ towards > _EYES_SEEN)


def _middle(size: tuple[int, int]) -> tuple[float, float]:
    return size[0] / 2, size[1] / 2
