"""Pinhole camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cag_avatar.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["BLUR_VARIANCE", "PinholeCamera"]

#: Added to the variances of projected Gaussians at the size that they were trained for, px^2: none
#: is thinner there than half a pixel. gsplat's default.
BLUR_VARIANCE = 0.3


@dataclass(frozen=True)
class PinholeCamera:
    """Intrinsics of an undistorted pinhole camera.

    Axes are OpenCV's: x right, y down, z forward. A point (x, y, z) projects to
    (fx x / z + cx, fy y / z + cy) in pixels; pixel (column j, row i) has its centre at
    (j + .5, i + .5).
    """

    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""
    fx: float
    """Focal length along x in pixels."""
    fy: float
    """Focal length along y in pixels."""
    cx: float
    """Principal point, x, in pixels."""
    cy: float
    """Principal point, y, in pixels."""
    blur_variance: float = BLUR_VARIANCE
    """Added to the variances of projected Gaussians, px^2."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise InputError(f"camera: size {self.width}x{self.height} must be positive")
        values = (self.fx, self.fy, self.cx, self.cy)
        if not np.isfinite(values).all() or self.fx <= 0 or self.fy <= 0:
            raise InputError(
                f"camera: fx, fy, cx, cy = {values} must be finite, fx and fy positive"
            )
        if not 0 < self.blur_variance < np.inf:
            raise InputError(f"camera: blur_variance {self.blur_variance} must be positive")

    def matrix(self, dtype: torch.dtype | None = None) -> Tensor:
        """Intrinsic matrix K, [3, 3]; float32 unless another ``dtype`` is given."""
        import torch  # not at the top: live pictures are drawn without it

        rows = [[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]]
        return torch.tensor(rows, dtype=dtype or torch.float32)

    def project(self, points: Tensor) -> Tensor:
        """Project camera-space points [..., 3] (metres) to pixels [..., 2]; z must be positive."""
        focal = points.new_tensor([self.fx, self.fy])
        centre = points.new_tensor([self.cx, self.cy])
        return points[..., :2] / points[..., 2:3] * focal + centre

    def resized(self, width: int, height: int) -> PinholeCamera:
        """The same view at another resolution.

        The blur stays as large on the head: with one of as many pixels, Gaussians swell in a small
        picture (lips close over the mouth) and shrink in a large one (Yu et al., Mip-Splatting,
        2024), and what is fitted to the one is wrong in the other.
        """
        sx, sy = width / self.width, height / self.height
        return PinholeCamera(
            width, height, self.fx * sx, self.fy * sy, self.cx * sx, self.cy * sy,
            self.blur_variance * sx * sy,
        )  # fmt: skip

    def blur_at(self, focal: float) -> float:
        """Blur variance (px^2) as large on the head as this camera's, at another ``fy`` (px)."""
        return self.blur_variance * (focal / self.fy) ** 2

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON; the blur is not among them."""
        return {k: getattr(self, k) for k in ("width", "height", "fx", "fy", "cx", "cy")}

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "camera") -> PinholeCamera:
        """Inverse of :meth:`to_dict`. Raises InputError naming ``where`` on a missing field."""
        try:
            return cls(
                int(values["width"]),
                int(values["height"]),
                float(values["fx"]),
                float(values["fy"]),
                float(values["cx"]),
                float(values["cy"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{where}: camera needs width height fx fy cx cy ({error})") from error
