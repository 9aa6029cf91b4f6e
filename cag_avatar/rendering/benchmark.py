"""How long rendering takes, and a synthetic head-like scene to time it on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cag_avatar.camera import PinholeCamera
from cag_avatar.rendering.rasterizer import Rasterizer

__all__ = ["RenderScene", "RenderTimings", "head_scene", "time_rendering"]


@dataclass(frozen=True)
class RenderScene:
    """The arguments of ``Rasterizer.render``."""

    means: Tensor
    quaternions: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    view_matrix: Tensor
    camera: PinholeCamera
    background: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The tensor arguments by name."""
        return {k: v for k, v in vars(self).items() if isinstance(v, Tensor)}

    def converted(self, dtype: torch.dtype, requires_grad: bool = False) -> RenderScene:
        """A copy with detached tensors of another dtype."""
        tensors = {
            k: v.detach().to(dtype, copy=True).requires_grad_(requires_grad)
            for k, v in self.tensors().items()
        }
        return RenderScene(camera=self.camera, **tensors)


@dataclass(frozen=True)
class RenderTimings:
    """Medians over the repetitions, milliseconds."""

    forward_ms: float
    """Forward pass without gradients."""
    forward_backward_ms: float
    """Forward pass with gradients of all inputs, and the backward pass."""
    repetitions: int


def head_scene(
    num_gaussians: int = 13_000, size: int = 512, seed: int = 0, sigma_px: float = 2.8
) -> RenderScene:
    """A head and shoulders' worth of Gaussians, as a trained avatar spreads them.

    They lie on an ellipsoid (the front 2/3, as a face atlas has more texels there) above a wider
    one, flat along the surface normal, and fill about 55 % of a square image. Both sides are drawn,
    so about half are hidden.

    Args:
        num_gaussians: N.
        size: image width and height, pixels.
        seed: of the random numbers.
        sigma_px: median standard deviation along the surface, pixels at 512 x 512 (the metric size
            does not depend on ``size``); spread log-normally by a factor of 1.5.
    """
    rng = np.random.default_rng(seed)
    focal_512, depth = 1200.0, 0.8
    direction = rng.normal(size=(num_gaussians, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    toward = rng.random(num_gaussians) < 0.35
    direction[toward, 2] = -np.abs(direction[toward, 2])  # camera axes: the face looks along -z
    on_head = np.arange(num_gaussians)[:, None] < 0.75 * num_gaussians
    radii = np.where(on_head, [0.108, 0.14, 0.1], [0.15, 0.07, 0.08])
    centre = np.where(on_head, [0.0, -0.03, 0.0], [0.0, 0.14, 0.02])
    means = direction * radii + centre + [0.0, 0.0, depth]
    normal = direction / radii
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    # The rotation that takes z to the normal, as a quaternion (1 + n_z, -n_y, n_x, 0).
    quaternions = np.stack(
        [1 + normal[:, 2], -normal[:, 1], normal[:, 0], np.full(num_gaussians, 1e-6)], 1
    )
    pixel = depth / focal_512
    scales = sigma_px * pixel * np.exp(np.log(1.5) * rng.normal(size=(num_gaussians, 3)))
    scales[:, 2] *= 0.3
    opacities = rng.uniform(0.3, 0.95, num_gaussians)
    colors = rng.random((num_gaussians, 3))
    focal = focal_512 * size / 512
    return RenderScene(
        means=torch.from_numpy(means).float(),
        quaternions=torch.from_numpy(quaternions).float(),
        scales=torch.from_numpy(scales).float(),
        opacities=torch.from_numpy(opacities).float(),
        colors=torch.from_numpy(colors).float(),
        view_matrix=torch.eye(4),
        camera=PinholeCamera(size, size, focal, focal, size / 2, size / 2),
        background=torch.ones(3),
    )


def time_rendering(
    rasterizer: Rasterizer, scene: RenderScene, repetitions: int = 30, warm_up: int = 3
) -> RenderTimings:
    """Median times of a scene on a backend; the scene's device is the backend's.

    ``warm_up`` calls, which also compile the kernels, are not counted.
    """
    leaves = scene.converted(scene.means.dtype, requires_grad=True)
    gradient = torch.ones(scene.camera.height, scene.camera.width, 3).to(scene.means)

    def forward() -> None:
        with torch.no_grad():
            rasterizer.render(**vars(scene))

    def forward_backward() -> None:
        for tensor in leaves.tensors().values():
            tensor.grad = None
        rasterizer.render(**vars(leaves)).image.backward(gradient)

    return RenderTimings(
        _median_ms(forward, repetitions, warm_up),
        _median_ms(forward_backward, repetitions, warm_up),
        repetitions,
    )


def _median_ms(call: Callable[[], None], repetitions: int, warm_up: int) -> float:
    cuda = torch.cuda.is_available()
    times = []
    for i in range(warm_up + repetitions):
        start = time.perf_counter()
        call()
        if cuda:  # kernels run asynchronously
            torch.cuda.synchronize()
        if i >= warm_up:
            times.append(time.perf_counter() - start)
    return float(np.median(times) * 1000)
