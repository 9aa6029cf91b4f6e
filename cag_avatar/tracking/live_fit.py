"""One frame of a live stream: the equations of ``fitting.track_frame`` in numpy.

For a single frame the torch version is some two hundred operations on small tensors, each of which
costs more to call than to compute. For SurfacePoints that are linear in ARKit's coefficients, with
the operator's shape fixed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from cag_avatar.head_models.arkit import ARKIT_INDEX
from cag_avatar.head_models.base import MAX_GAZE_PITCH, MAX_GAZE_YAW
from cag_avatar.tracking.code_prior import CodePrior
from cag_avatar.tracking.face_landmarker import EYE_OUTER_CORNERS
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.fit_state import FitState
from cag_avatar.tracking.surface_basis import SurfacePoints

__all__ = ["LiveFit"]

Array = NDArray[Any]


class LiveFit:
    """Fits pose and code of one frame after the other, as :func:`fitting.track_frame`.

    Args:
        points: surface points of the landmarks, of a model that is linear in ARKit's coefficients.
        shape: the operator's, [S].
        weights: inverse variances of the landmarks, [N].
        config: weights.
    """

    def __init__(
        self, points: SurfacePoints, shape: Tensor, weights: Tensor, config: FitConfig
    ) -> None:
        self._config = config
        self._rest: Array = points.rest(shape).double().numpy()
        basis = points.expression.double().numpy().transpose(1, 2, 0)
        self._basis: Array = np.ascontiguousarray(basis)
        self._weights: Array = weights.double().numpy()
        behind = np.array([0.0, -0.02, -0.09])  # as fitting's _facing()
        normal = points.mean.double().numpy() - behind
        self._normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
        eye = points.eye.numpy()
        self._eyes = [np.nonzero(eye == side)[0] for side in (0, 1)]
        self._look = [
            [ARKIT_INDEX[f"eyeLook{name}{side}"] for name in ("In", "Out", "Up", "Down")]
            for side in ("Left", "Right")
        ]

    def track(
        self, previous: FitState, landmarks: NDArray[np.floating], prior: CodePrior, iterations: int
    ) -> tuple[FitState, float]:
        """Solve the next frame.

        Args:
            previous: state of one frame, from which the fit starts and near which it is held.
            landmarks: [478, 2] pixels.
            prior: of the code, mean [1, E].
            iterations: Gauss-Newton steps.

        Returns:
            The state of the frame, and its reprojection error: root mean square, in distances
            between the outer corners of the eyes.
        """
        found = np.asarray(landmarks, np.float64)
        unit = _eye_distance(found)
        rotation, translation, code = (
            value[0].double().numpy()
            for value in (previous.rotation, previous.translation, previous.code)
        )
        mean, *widths = (np.asarray(value.numpy(), np.float64) for value in prior)
        before = (rotation, translation, code)
        camera = (previous.focal, np.array(previous.centre))
        for _ in range(iterations):
            rotation, translation, code = self._step(
                before, (rotation, translation, code), camera, found, unit, mean[0], widths
            )
        local, _ = self._local(code)
        seen = local @ rotation.T + translation
        pixels = seen[:, :2] / seen[:, 2:] * camera[0] + camera[1]
        error = float(np.sqrt(np.mean(np.square((pixels - found) / unit))))
        state = replace(
            previous,
            rotation=torch.from_numpy(rotation.astype(np.float32))[None],
            translation=torch.from_numpy(translation.astype(np.float32))[None],
            code=torch.from_numpy(code.astype(np.float32))[None],
        )
        return state, error

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
            centre = self._rest[index].mean(0) - (0.0, 0.0, 0.012)
            inward, out, up, down = self._look[side]
            sign = 1.0 if side == 0 else -1.0
            yaw = sign * (code[out] - code[inward]) * MAX_GAZE_YAW
            pitch = (code[down] - code[up]) * MAX_GAZE_PITCH
            turn = Rotation.from_rotvec([pitch, yaw, 0.0]).as_matrix()
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
        before: tuple[Array, Array, Array],
        now: tuple[Array, Array, Array],
        camera: tuple[float, Array],
        landmarks: Array,
        unit: float,
        mean: Array,
        widths: list[Array],
    ) -> tuple[Array, Array, Array]:
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
        squared = np.square(residual).sum(-1) * self._weights / self._weights.max()
        squared /= config.landmark_deviation**2
        weight = self._weights * np.clip((towards + 0.1) / 0.5, 0.05, 1.0)
        weight *= 1.0 / (1.0 + squared / config.robust_scale**2) ** 2
        flat = rows.reshape(-1, size)
        weighted = flat * np.repeat(weight, 2)[:, None]
        matrix, right = weighted.T @ flat, -(weighted.T @ residual.ravel())
        diagonal = np.full(size, 1e-3)
        diagonal[6:] += deviation**-2 + smooth**-2
        right[6:] += (mean - code) * deviation**-2 + (before[2] - code) * smooth**-2
        turn = before[0] @ rotation.T
        vector = [turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]
        diagonal[:3] += config.smooth_rotation**-2
        right[:3] += 0.5 * np.array(vector) * config.smooth_rotation**-2
        stiffness = (config.smooth_translation * 10) ** -2
        diagonal[3:6] += stiffness
        right[3:6] += (before[1] - translation) * 10 * stiffness
        matrix[np.diag_indices(size)] += diagonal
        step = _solve_bounded(matrix, right, low - code, high - code)
        turned = Rotation.from_rotvec(np.clip(step[:3], -0.5, 0.5)).as_matrix() @ rotation
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
