"""The Gauss-Newton steps of a live frame in compiled code, ``native/landmark_fit.c``.

In numpy a step is dozens of calls on small arrays: two steps take some 4.5 ms, here 1.5.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_double, c_int32, c_void_p
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.head_models.arkit import MAX_GAZE_PITCH, MAX_GAZE_YAW
from cag_avatar.native.library import check_layout, load_library
from cag_avatar.tracking.face_landmarker import FACE_LANDMARKS
from cag_avatar.tracking.fit_config import FitConfig

__all__ = ["CompiledFit", "Pose"]

Array = NDArray[Any]
#: Head rotation [3, 3], translation [3] in metres, and code [E].
Pose = tuple[Array, Array, Array]


class _LandmarkFit(ctypes.Structure):
    """``LandmarkFit`` of landmark_fit.c."""

    _fields_ = (
        *((name, c_int32) for name in (
            "landmarks", "coefficients", "iterations", "held", "skin",
        )),
        *((name, c_void_p) for name in ("rest", "basis", "weight", "normal", "eye")),
        ("look", c_int32 * 8),
        ("eye_centre", c_double * 6),
        *((name, c_double) for name in (
            "gaze_yaw", "gaze_pitch", "noise", "robust", "smooth_rotation", "smooth_translation",
            "focal",
        )),
        ("centre", c_double * 2),
        ("unit", c_double),
        *((name, c_void_p) for name in ("seen", "mean", "deviation", "smooth", "low", "high")),
        ("before_rotation", c_double * 9),
        ("before_translation", c_double * 3),
        ("before_code", c_void_p),
        ("rotation", c_double * 9),
        ("translation", c_double * 3),
        ("code", c_void_p),
        ("error", c_double),
        ("work", c_void_p),
    )  # fmt: skip


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    library = load_library("landmark_fit")
    check_layout(library, _LandmarkFit)
    library.cag_landmark_fit.argtypes = [ctypes.POINTER(_LandmarkFit)]
    library.cag_landmark_fit.restype = None
    library.cag_landmark_fit_work.argtypes = [c_int32]
    library.cag_landmark_fit_work.restype = ctypes.c_int64
    return library


class CompiledFit:
    """The steps for one person's landmarks; not for several threads at once.

    Args:
        rest: landmarks of the rest head, metres, [N, 3].
        basis: how coefficients move them, [N, 3, E].
        weights: inverse variances, [N].
        normal: unit normals of the face, [N, 3].
        eye: 0 or 1 on the left or right eyeball, else -1, [N].
        centres: of the eyeballs, [2, 3].
        look: for each eye the coefficients that look in, out, up and down.
        config: weights.

    Raises:
        NativeUnavailableError: the C code cannot be built here.
    """

    def __init__(
        self,
        rest: Array,
        basis: Array,
        weights: Array,
        normal: Array,
        eye: NDArray[np.integer],
        centres: Array,
        look: Sequence[Sequence[int]],
        config: FitConfig,
    ) -> None:
        self._library = _library()
        count, _, self._size = basis.shape
        work = np.empty(self._library.cag_landmark_fit_work(self._size))
        constants = {
            name: np.ascontiguousarray(value, np.float64)
            for name, value in zip(
                ("rest", "basis", "weight", "normal", "work"),
                (rest, basis, weights, normal, work),
                strict=True,
            )
        }
        constants["eye"] = np.ascontiguousarray(eye, np.int32)
        self._constants = constants  # C has their addresses
        self._call = _LandmarkFit(
            landmarks=count, coefficients=self._size, skin=FACE_LANDMARKS, gaze_yaw=MAX_GAZE_YAW,
            gaze_pitch=MAX_GAZE_PITCH, noise=config.landmark_deviation,
            robust=config.robust_scale, smooth_rotation=config.smooth_rotation,
            smooth_translation=10 * config.smooth_translation,
            look=(c_int32 * 8)(*(index for side in look for index in side)),
            eye_centre=(c_double * 6)(*np.ravel(centres)),
            **{name: value.ctypes.data for name, value in constants.items()},
        )  # fmt: skip

    def solve(
        self,
        start: Pose,
        before: Pose | None,
        camera: tuple[float, Array],
        landmarks: Array,
        unit: float,
        mean: Array,
        widths: Sequence[Array],
        iterations: int,
    ) -> tuple[Pose, float]:
        """Steps from ``start``, held near ``before``; and the error that is left.

        Args:
            start: where the fit starts.
            before: what the result is held near to; None: to nothing.
            camera: focal length and principal point, pixels.
            landmarks: [N, 2] pixels, float64.
            unit: pixels of residual 1.
            mean: of the prior, [E].
            widths: deviation, smooth, low and high of the prior, [E] each.
            iterations: steps.

        Returns:
            The pose, and its root mean square residual.
        """
        call = self._call
        code = np.array(start[2], np.float64)
        held = start if before is None else before
        arrays = {
            "seen": landmarks, "mean": mean, "before_code": held[2], "code": code,
            **dict(zip(("deviation", "smooth", "low", "high"), widths, strict=True)),
        }  # fmt: skip
        arrays = {name: np.ascontiguousarray(array, np.float64) for name, array in arrays.items()}
        for name, array in arrays.items():
            setattr(call, name, array.ctypes.data)
        call.iterations, call.held = iterations, before is not None
        call.focal, call.unit = camera[0], unit
        call.centre[:] = camera[1]
        call.before_rotation[:], call.before_translation[:] = np.ravel(held[0]), held[1]
        call.rotation[:], call.translation[:] = np.ravel(start[0]), start[1]
        self._library.cag_landmark_fit(ctypes.byref(call))
        rotation = np.array(call.rotation).reshape(3, 3)
        return (rotation, np.array(call.translation), arrays["code"]), float(call.error)
