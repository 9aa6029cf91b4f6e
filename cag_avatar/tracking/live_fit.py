"""Pose and code of one live frame after the other: the equations of ``fitting.py`` for a single
frame, without torch.

By ``native/landmark_fit.c`` where there is a compiler, else in numpy.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.head_models.arkit import ARKIT_INDEX, MAX_GAZE_PITCH, MAX_GAZE_YAW
from cag_avatar.native.library import NativeUnavailableError
from cag_avatar.rotations import rotation_matrix
from cag_avatar.tracking.code_prior import ArrayPrior
from cag_avatar.tracking.compiled_fit import CompiledFit, Pose
from cag_avatar.tracking.face_landmarker import EYE_OUTER_CORNERS, FACE_CENTRE, FACE_LANDMARKS
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.landmark_weights import landmark_weights
from cag_avatar.tracking.live_points import LivePoints

__all__ = ["LiveFit", "LiveState"]

_LOG = logging.getLogger(__name__)

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class LiveState:
    """Camera, head pose and code of one frame; float64."""

    focal: float
    """Focal length, pixels."""
    centre: tuple[float, float]
    """Principal point, pixels."""
    rotation: Array
    """Head rotation, canonical to camera space, [3, 3]."""
    translation: Array
    """Head translation, metres, [3]."""
    code: Array
    """Expression code, [E]."""

    def head_pose(self) -> NDArray[np.float64]:
        """Canonical to camera space, [4, 4]."""
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.rotation, self.translation
        return pose


class LiveFit:
    """Fits frame after frame of one person.

    Args:
        points: landmarks of the head model.
        config: weights.
        rest: landmarks of the person's rest head, metres, canonical space, [478, 3]; by default
            those of the mean head.
        irises: those of the irises are found in the pictures.
    """

    def __init__(
        self,
        points: LivePoints,
        config: FitConfig,
        rest: NDArray[np.floating] | None = None,
        irises: bool = False,
    ) -> None:
        self._config = config
        self._mean = points.mean.astype(np.float64)
        self._rest: Array = self._mean if rest is None else np.asarray(rest, np.float64)
        self._basis: Array = np.ascontiguousarray(
            points.expression.astype(np.float64).transpose(1, 2, 0)
        )
        self._weights = landmark_weights(points.spread, config, irises).astype(np.float64)
        normal = self._mean - FACE_CENTRE
        self._normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
        self._eyes = [np.nonzero(points.eye == side)[0] for side in (0, 1)]
        self._centres = np.zeros((2, 3))
        for side, index in enumerate(self._eyes):
            if len(index):
                self._centres[side] = self._rest[index].mean(0) + points.eye_arm[side]
        self._look = [
            [ARKIT_INDEX[f"eyeLook{name}{side}"] for name in ("In", "Out", "Up", "Down")]
            for side in ("Left", "Right")
        ]
        self._compiled: CompiledFit | None = None
        try:
            self._compiled = CompiledFit(
                self._rest, self._basis, self._weights, self._normal, points.eye, self._centres,
                self._look, config,
            )  # fmt: skip
        except NativeUnavailableError as error:
            _LOG.info("live fit: numpy (%s)", error)

    def start(
        self,
        landmarks: NDArray[np.floating],
        prior: ArrayPrior,
        centre: tuple[float, float],
        focal: float | None = None,
        iterations: int = 6,
    ) -> tuple[LiveState, float]:
        """Solve a frame of which nothing is known, as fitting's initial_state() and fit_frames().

        Args:
            landmarks: [478, 2] pixels.
            prior: of the code, mean [1, E].
            centre: principal point, pixels.
            focal: focal length in pixels; by default that of FitConfig, or what puts the head at
                FitConfig.distance.
            iterations: Gauss-Newton steps.

        Returns:
            As :meth:`track`.
        """
        found = np.asarray(landmarks, np.float64)
        model, image = self._mean[:FACE_LANDMARKS], found[:FACE_LANDMARKS]
        middle, image_middle = model.mean(0), image.mean(0)
        # Least squares for the 2 x 3 scaled projection, then the nearest rotation.
        affine = (np.linalg.pinv(model - middle) @ (image - image_middle)).T
        u, s, vt = np.linalg.svd(affine, full_matrices=False)
        rows = u @ vt
        rotation = np.stack([*rows, np.cross(*rows)])
        scale = s.mean()  # pixels per metre
        if focal is None:
            focal = self._config.focal_length or self._config.distance * scale
        depth = focal / scale
        at = np.append((image_middle - centre) / scale, depth)
        state = LiveState(
            focal, centre, rotation, at - rotation @ middle, np.zeros(len(prior.deviation))
        )
        return self._solve(state, None, found, prior, iterations)

    def track(
        self,
        previous: LiveState,
        landmarks: NDArray[np.floating],
        prior: ArrayPrior,
        iterations: int,
    ) -> tuple[LiveState, float]:
        """Solve the next frame, as fitting's step with the frame before as its neighbours.

        Args:
            previous: the state from which the fit starts and near which it is held.
            landmarks: [478, 2] pixels.
            prior: of the code, mean [1, E].
            iterations: Gauss-Newton steps.

        Returns:
            The state of the frame, and its reprojection error: root mean square, in distances
            between the outer corners of the eyes.
        """
        found = np.asarray(landmarks, np.float64)
        return self._solve(previous, previous, found, prior, iterations)

    def _solve(
        self,
        state: LiveState,
        before: LiveState | None,
        landmarks: Array,
        prior: ArrayPrior,
        iterations: int,
    ) -> tuple[LiveState, float]:
        unit = _eye_distance(landmarks)
        mean, *widths = (np.asarray(value, np.float64) for value in prior)
        pose: Pose = (state.rotation, state.translation, state.code)
        held = None if before is None else (before.rotation, before.translation, before.code)
        camera = state.focal, np.array(state.centre, np.float64)
        arguments = held, camera, landmarks, unit, mean[0], widths
        if self._compiled is not None:
            pose, error = self._compiled.solve(pose, *arguments, iterations)
        else:
            for _ in range(iterations):
                pose = self._step(pose, *arguments)
            error = self._error(pose, camera, landmarks, unit)
        return LiveState(state.focal, state.centre, *pose), error

    def _error(
        self, pose: Pose, camera: tuple[float, Array], landmarks: Array,
        unit: float,
    ) -> float:  # fmt: skip
        rotation, translation, code = pose
        seen = self._local(code)[0] @ rotation.T + translation
        pixels = seen[:, :2] / seen[:, 2:] * camera[0] + camera[1]
        return float(np.sqrt(np.mean(np.square((pixels - landmarks) / unit))))

    def _local(self, code: Array) -> tuple[Array, Array]:
        """SurfacePoints.local() of one code [E]: positions [N, 3], derivative [N, 3, E]."""
        local = self._rest + self._basis @ code
        derivative = self._basis
        if not any(len(index) for index in self._eyes):
            return local, derivative
        derivative = derivative.copy()
        for side, index in enumerate(self._eyes):
            if not len(index):
                continue
            centre = self._centres[side]
            inward, out, up, down = self._look[side]
            sign = 1.0 if side == 0 else -1.0
            yaw = sign * (code[out] - code[inward]) * MAX_GAZE_YAW
            pitch = (code[down] - code[up]) * MAX_GAZE_PITCH
            turn = rotation_matrix(np.array([pitch, yaw, 0.0]))
            turned = (self._rest[index] - centre) @ turn.T
            local[index] = centre + turned
            x, y, z = turned.T
            zero = np.zeros_like(x)
            by_pitch = np.stack([zero, -z, y], -1) * MAX_GAZE_PITCH
            by_yaw = np.stack([z, zero, -x], -1) * (MAX_GAZE_YAW * sign)
            derivative[index] = 0
            derivative[index, :, out], derivative[index, :, inward] = by_yaw, -by_yaw
            derivative[index, :, down], derivative[index, :, up] = by_pitch, -by_pitch
        return local, derivative

    def _step(
        self,
        now: Pose,
        before: Pose | None,
        camera: tuple[float, Array],
        landmarks: Array,
        unit: float,
        mean: Array,
        widths: list[Array],
    ) -> Pose:
        """One Gauss-Newton step: fitting's landmark_rows, frame_normal and apply_step."""
        config = self._config
        rotation, translation, code = now
        deviation, smooth, low, high = widths
        local, derivative = self._local(code)
        rotated = local @ rotation.T
        x, y, z = (rotated + translation).T
        scale = camera[0] / unit
        inverse = scale / z
        pixels = np.stack([x, y], -1) * inverse[:, None] + camera[1] / unit
        residual = pixels - landmarks / unit
        zero = np.zeros_like(z)
        jacobian = np.stack(
            [
                np.stack([inverse, zero, -x * inverse / z], -1),
                np.stack([zero, inverse, -y * inverse / z], -1),
            ],
            1,
        )  # [N, 2, 3]
        size = 6 + len(code)
        rows = np.empty((len(local), 2, size))
        rows[..., :3] = np.cross(rotated[:, None], jacobian)
        rows[..., 3:6] = 0.1 * jacobian  # translation in decimetres
        np.matmul(jacobian @ rotation, derivative, out=rows[..., 6:])
        towards = -(self._normal @ rotation.T)[:, 2]
        squared = np.square(residual).sum(-1) * self._weights
        squared /= self._weights[:FACE_LANDMARKS].max()
        squared /= config.landmark_deviation**2
        weight = self._weights * np.clip((towards + 0.1) / 0.5, 0.05, 1.0)
        weight *= 1.0 / (1.0 + squared / config.robust_scale**2) ** 2
        flat = rows.reshape(-1, size)
        weighted = flat * np.repeat(weight, 2)[:, None]
        matrix, right = weighted.T @ flat, -(weighted.T @ residual.ravel())
        diagonal = np.full(size, 1e-3)
        diagonal[6:] += deviation**-2
        right[6:] += (mean - code) * deviation**-2
        if before is not None:
            diagonal[6:] += smooth**-2
            right[6:] += (before[2] - code) * smooth**-2
            turn = before[0] @ rotation.T
            vector = [turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]
            diagonal[:3] += config.smooth_rotation**-2
            right[:3] += 0.5 * np.array(vector) * config.smooth_rotation**-2
            stiffness = (config.smooth_translation * 10) ** -2
            diagonal[3:6] += stiffness
            right[3:6] += (before[1] - translation) * 10 * stiffness
        matrix[np.diag_indices(size)] += diagonal
        step = _solve_bounded(matrix, right, low - code, high - code)
        turned = rotation_matrix(np.clip(step[:3], -0.5, 0.5)) @ rotation
        u, _, vt = np.linalg.svd(turned)
        return u @ vt, translation + 0.1 * step[3:6], np.clip(code + step[6:], low, high)


def _solve_bounded(matrix: Array, right: Array, low: Array, high: Array) -> Array:
    """normal_equations.solve_bounded() of one frame; bounds of the code's step, [E]."""
    least = np.concatenate([np.full(6, -np.inf), low])
    most = np.concatenate([np.full(6, np.inf), high])
    step = np.linalg.solve(matrix, right)
    fixed = np.zeros(len(right), bool)
    for _ in range(3):
        fixed |= (step < least) | (step > most)
        if not fixed.any():
            return np.asarray(step)
        held = np.where(fixed, np.clip(step, least, most), 0.0)
        free = ~fixed
        moved = right[free] - matrix[np.ix_(free, fixed)] @ held[fixed]
        step = held
        step[free] = np.linalg.solve(matrix[np.ix_(free, free)], moved)
    return np.clip(step, least, most)


def _eye_distance(landmarks: Array) -> float:
    """normal_equations.eye_distance() of landmarks [478, 2]."""
    a, b = (landmarks[i] for i in EYE_OUTER_CORNERS)
    height = float(np.linalg.norm(landmarks[168] - landmarks[164]))
    return max(float(np.linalg.norm(a - b)), 1.2 * height, 1.0)
