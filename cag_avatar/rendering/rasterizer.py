"""The rasteriser interface: 3D Gaussians and a camera in, an image out.

Every backend renders the same definition, fixed here (3D Gaussian splatting, Kerbl et al. 2023,
with the constants of gsplat 1.5 in its "classic" mode):

* A Gaussian is used if its camera depth z lies in [NEAR_PLANE, FAR_PLANE], all its parameters are
  finite and its opacity is at least ALPHA_THRESHOLD. Others are skipped and get zero gradients.
* Its projection is the affine approximation at its mean (``projection.py``); the camera's
  ``blur_variance`` is added to both variances of the 2D covariance S, without compensating the
  opacity.
* At a pixel centre with offset d from the projected mean, alpha = min(MAX_ALPHA, opacity *
  exp(-d^T S^-1 d / 2)); below ALPHA_THRESHOLD it counts as 0.
* Gaussians are blended front to back by z, ties in index order. The transmittance T starts at 1; a
  Gaussian that would bring it to MIN_TRANSMITTANCE or less ends the pixel and is not added itself.
* image = sum of T alpha colour + T_final background; alpha = 1 - T_final.

gsplat evaluates a Gaussian in every 16 x 16 tile that its 3.33 sigma box touches. Since alpha falls
below 1/255 at sqrt(2 ln 255) = 3.329 sigma, that equals evaluating every Gaussian at every pixel.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError

__all__ = [
    "ALPHA_THRESHOLD",
    "FAR_PLANE",
    "MAX_ALPHA",
    "MIN_TRANSMITTANCE",
    "NEAR_PLANE",
    "RADIUS_SIGMAS",
    "Backend",
    "Rasterizer",
    "RenderOutput",
    "get_rasterizer",
]

#: Nearest depth drawn, metres (gsplat's default).
NEAR_PLANE = 0.01
#: Farthest depth drawn, metres. gsplat's default is 1e10; a head never is that far, and a bound
#: keeps the sort keys of the CPU backend exact to 6e-12 m.
FAR_PLANE = 100.0
#: Contributions below this opacity are dropped.
ALPHA_THRESHOLD = 1.0 / 255.0
#: Largest opacity of one Gaussian at one pixel; keeps 1 / (1 - alpha) finite.
MAX_ALPHA = 0.999
#: A pixel ends before its transmittance would reach this.
MIN_TRANSMITTANCE = 1e-4
#: Half size of the bounding box in standard deviations; sqrt(2 ln 255) = 3.329 is the exact
#: support.
RADIUS_SIGMAS = 3.33

Backend = Literal["auto", "torch", "cpu", "cuda"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RenderOutput:
    """What a rasteriser returns; differentiable if any input requires gradients."""

    image: Tensor
    """RGB over the background, [H, W, 3]; in the range of the input colours."""
    alpha: Tensor
    """Coverage 1 - T_final, [H, W], in [0, 1)."""


class Rasterizer(ABC):
    """Renders Gaussians; stateless and safe to share between threads."""

    name: str
    """The backend's name."""

    def render(
        self,
        means: Tensor,
        quaternions: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        view_matrix: Tensor,
        camera: PinholeCamera,
        background: Tensor,
    ) -> RenderOutput:
        """Render N Gaussians (the definition is at the top of this module).

        Args:
            means: centres in world space, metres, [N, 3].
            quaternions: orientations wxyz, [N, 4]; normalised here, need not be unit.
            scales: standard deviations along the local axes, metres, [N, 3]; their sign is ignored.
            opacities: in (0, 1), [N].
            colors: RGB, [N, 3]; not clamped.
            view_matrix: world to camera (OpenCV axes), [4, 4]; last row ignored.
            camera: intrinsics, image size and blur.
            background: RGB, [3].

        All tensors share one floating dtype and one device. Gaussians with a non-finite parameter
        are skipped. Gradients flow to every tensor argument.

        Raises:
            ValueError: a shape or device is wrong; the message names the argument.
            TypeError: an argument is no tensor or its dtype is not supported by the backend.
        """
        tensors = {
            "means": means,
            "quaternions": quaternions,
            "scales": scales,
            "opacities": opacities,
            "colors": colors,
            "view_matrix": view_matrix,
            "background": background,
        }
        self._check(tensors)
        return self._render(
            means, quaternions, scales, opacities, colors, view_matrix, camera, background
        )

    def _check(self, tensors: dict[str, Tensor]) -> None:
        """Raise on arguments that do not fit together; backends narrow dtype and device."""
        for name, tensor in tensors.items():
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
        means = tensors["means"]
        n = means.shape[0] if means.ndim else 0
        shapes = {
            "means": (n, 3),
            "quaternions": (n, 4),
            "scales": (n, 3),
            "opacities": (n,),
            "colors": (n, 3),
            "view_matrix": (4, 4),
            "background": (3,),
        }
        for name, tensor in tensors.items():
            if tuple(tensor.shape) != shapes[name]:
                raise ValueError(
                    f"{name}: shape {list(tensor.shape)}, expected {list(shapes[name])}"
                    + (f" for {n} Gaussians" if shapes[name][0] == n else "")
                )
            if not tensor.is_floating_point() or tensor.dtype != means.dtype:
                raise TypeError(
                    f"{name}: dtype {tensor.dtype}, expected one floating dtype for all arguments "
                    f"(means has {means.dtype})"
                )
            if tensor.device != means.device:
                raise ValueError(f"{name}: on {tensor.device}, but means is on {means.device}")

    @abstractmethod
    def _render(
        self,
        means: Tensor,
        quaternions: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        view_matrix: Tensor,
        camera: PinholeCamera,
        background: Tensor,
    ) -> RenderOutput:
        """Render checked arguments."""


def get_rasterizer(name: Backend = "auto") -> Rasterizer:
    """The rasteriser called ``name``.

    "torch" is plain, slow and exact in any dtype; "cpu" is the numba one; "cuda" needs gsplat and a
    CUDA device; "auto" takes "cuda" where that works, else "cpu", and logs which and why.

    Raises:
        InputError: unknown name, or "cuda" asked for without a CUDA device.
        MissingDependencyError: the backend's library is not installed.
    """
    if name == "torch":
        from cag_avatar.rendering.torch_backend import TorchRasterizer

        return TorchRasterizer()
    if name == "cpu":
        from cag_avatar.rendering.cpu_backend import CpuRasterizer

        return CpuRasterizer()
    if name == "cuda":
        from cag_avatar.rendering.cuda_backend import CudaRasterizer

        return CudaRasterizer()
    if name == "auto":
        if not torch.cuda.is_available():
            _log.info("rasterizer: cpu (torch sees no CUDA device)")
            return get_rasterizer("cpu")
        try:
            chosen = get_rasterizer("cuda")
        except InputError as error:
            _log.warning("rasterizer: cpu, although there is a CUDA device (%s)", error)
            return get_rasterizer("cpu")
        _log.info("rasterizer: cuda (%s)", torch.cuda.get_device_name())
        return chosen
    raise InputError(
        f"rasterizer: unknown backend '{name}', choose from {', '.join(get_args(Backend))}"
    )
