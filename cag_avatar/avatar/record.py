"""What an avatar remembers of its capture and training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.avatar.code_distribution import CodeDistribution
from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError

if TYPE_CHECKING:
    from cag_avatar.tracking.code_regressor import CodeRegressor

__all__ = ["CaptureRecord"]

_SHAPES = {
    "neutral_head_pose": (4, 4),
    "neutral_torso_pose": (4, 4),
    "code_min": (-1,),
    "code_max": (-1,),
    "pose_min": (6,),
    "pose_max": (6,),
}


@dataclass(frozen=True)
class CaptureRecord:
    """Camera, neutral pose and the ranges seen in training; poses map canonical to camera space."""

    camera: PinholeCamera
    """Camera of the training images."""
    neutral_head_pose: NDArray[np.float64]
    """Head pose of the most typical quiet training frame, [4, 4]."""
    neutral_torso_pose: NDArray[np.float64]
    """Torso pose of the same frame, [4, 4]."""
    code_min: NDArray[np.float64]
    """Smallest coefficients seen in training (1st percentile), [E]."""
    code_max: NDArray[np.float64]
    """Largest coefficients seen in training (99th percentile), [E]."""
    pose_min: NDArray[np.float64]
    """Smallest head motion from neutral: rotation vector (radians, camera axes), then translation
    (metres), [6]."""
    pose_max: NDArray[np.float64]
    """Largest head motion from neutral, as pose_min, [6]."""
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """RGB background of the training images, 0 to 1."""
    protocol: dict[str, Any] = field(default_factory=dict)
    """How the avatar was trained, as plain JSON values."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Figures measured on held-out frames, with their protocol, as plain JSON values."""
    distribution: CodeDistribution | None = None
    """Of the training codes; None in files from before it was kept."""
    regressor: CodeRegressor | None = field(default=None, compare=False)
    """Codes of this person from MediaPipe's landmarks and scores; None if none was trained. Not in
    to_dict(): its arrays are tensors of the avatar file."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        arrays = {name: np.asarray(getattr(self, name)).tolist() for name in _SHAPES}
        values = {
            "camera": self.camera.to_dict(),
            **arrays,
            "background": list(self.background),
            "protocol": self.protocol,
            "metrics": self.metrics,
        }
        if self.distribution is not None:
            values["distribution"] = self.distribution.to_dict()
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> CaptureRecord:
        """Inverse of :meth:`to_dict`. Raises InputError naming ``where`` and the field."""
        arrays: dict[str, NDArray[np.float64]] = {}
        for name, shape in _SHAPES.items():
            try:
                array = np.asarray(values[name], dtype=np.float64)
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{where}: field '{name}' is missing or not numeric") from error
            if array.ndim != len(shape) or (shape[0] > 0 and array.shape != shape):
                raise InputError(f"{where}: field '{name}' has shape {list(array.shape)}")
            if not np.isfinite(array).all():
                raise InputError(f"{where}: field '{name}' holds NaN or infinity")
            arrays[name] = array
        background = values.get("background")
        if not isinstance(background, list) or len(background) != 3:
            raise InputError(f"{where}: field 'background' must hold three numbers")
        if "camera" not in values:
            raise InputError(f"{where}: field 'camera' is missing")
        distribution = None
        if values.get("distribution") is not None:
            distribution = CodeDistribution.from_dict(
                values["distribution"], f"{where}: distribution"
            )
            if len(distribution.mean) != len(arrays["code_min"]):
                raise InputError(
                    f"{where}: field 'distribution' must be of {len(arrays['code_min'])} "
                    "coefficients"
                )
        return cls(
            camera=PinholeCamera.from_dict(values["camera"], where),
            neutral_head_pose=arrays["neutral_head_pose"],
            neutral_torso_pose=arrays["neutral_torso_pose"],
            code_min=arrays["code_min"],
            code_max=arrays["code_max"],
            pose_min=arrays["pose_min"],
            pose_max=arrays["pose_max"],
            background=(float(background[0]), float(background[1]), float(background[2])),
            protocol=dict(values.get("protocol") or {}),
            metrics=dict(values.get("metrics") or {}),
            distribution=distribution,
        )
