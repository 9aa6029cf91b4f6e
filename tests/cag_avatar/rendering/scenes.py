"""Scenes on which the rasterisers are compared."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from cag_avatar.camera import PinholeCamera
from cag_avatar.geometry import rigid_transform, rotation_vector_to_matrix
from cag_avatar.rendering.benchmark import RenderScene
from cag_avatar.rendering.projection import project_gaussians
from cag_avatar.rendering.rasterizer import ALPHA_THRESHOLD, MAX_ALPHA, MIN_TRANSMITTANCE

CAMERA = PinholeCamera(width=61, height=45, fx=70.0, fy=64.0, cx=29.3, cy=23.9)


def random_scene(seed: int, n: int = 120, camera: PinholeCamera = CAMERA) -> RenderScene:
    """Gaussians of 1 to 6 pixels around the view axis, seen by a turned camera."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    rotation = rotation_vector_to_matrix(uniform(3, low=-0.4, high=0.4))
    view = rigid_transform(rotation, uniform(3, low=-0.05, high=0.05))
    in_camera = uniform(n, 3, low=-0.5, high=0.5) + torch.tensor([0.0, 0.0, 1.2])
    return RenderScene(
        means=(in_camera - view[:3, 3]) @ rotation,
        quaternions=torch.randn(n, 4, generator=generator),
        scales=torch.exp(uniform(n, 3, low=math.log(0.005), high=math.log(0.1))),
        opacities=uniform(n, low=0.05, high=0.98),
        colors=uniform(n, 3, low=-0.2, high=1.2),
        view_matrix=view,
        camera=camera,
        background=uniform(3),
    )


def _changed(seed: int, change: Callable[[dict], None], n: int = 120) -> RenderScene:
    values = dict(vars(random_scene(seed, n)))
    change(values)
    return RenderScene(**values)


def _in_camera_space(values: dict) -> None:
    values["means"] = (
        values["means"] @ values["view_matrix"][:3, :3].T + values["view_matrix"][:3, 3]
    )
    values["view_matrix"] = torch.eye(4)


def _behind(values: dict) -> None:
    _in_camera_space(values)
    values["means"][::2, 2] *= -1


def _off_screen(values: dict) -> None:
    _in_camera_space(values)
    values["means"][::2, 0] += 3.0  # beyond the margin within which the Jacobian is exact
    values["means"][1::3, 1] -= 2.0
    values["scales"] *= 5


def _huge(values: dict) -> None:
    values["scales"][::4] *= 300


def _enormous(values: dict) -> None:
    values["scales"][0] = 1e12
    values["means"][1] = torch.tensor([1e30, -1e30, 1.0])


def _needles(values: dict) -> None:
    values["scales"][:, 0] *= 20
    values["scales"][:, 1:] = 1e-9


def _points(values: dict) -> None:
    values["scales"][::2] = 0.0


def _faint(values: dict) -> None:
    values["opacities"][::2] = 1e-4
    values["opacities"][1] = 0.0


def _opaque(values: dict) -> None:
    values["opacities"][:] = 1.0
    values["scales"] *= 2


def _equal_depths(values: dict) -> None:
    _in_camera_space(values)
    values["means"][:, 2] = 1.2


def _near_plane(values: dict) -> None:
    _in_camera_space(values)
    values["means"][:40] *= 0.02
    values["means"][:40, 2] = torch.linspace(-0.01, 0.05, 40)
    values["scales"][:40] *= 0.05


def _unnormalised(values: dict) -> None:
    values["quaternions"] *= torch.logspace(-3, 3, len(values["quaternions"]))[:, None]


def _not_finite(values: dict) -> None:
    for row, name in enumerate(("means", "quaternions", "scales", "opacities", "colors")):
        values[name].view(len(values[name]), -1)[10 * row, -1] = float("nan")
        values[name].view(len(values[name]), -1)[10 * row + 1, 0] = float("inf")


def _square_tiles(values: dict) -> None:
    values["camera"] = PinholeCamera(64, 64, 70.0, 70.0, 32.0, 32.0)


def _one_pixel(values: dict) -> None:
    values["camera"] = PinholeCamera(1, 1, 1.0, 1.0, 0.5, 0.5)


#: Name: builder of the scene.
SCENES: dict[str, Callable[[], RenderScene]] = {
    "random_0": lambda: random_scene(0),
    "random_1": lambda: random_scene(1, n=300),
    "random_2": lambda: random_scene(2, camera=PinholeCamera(33, 70, 60.0, 80.0, 10.0, 50.0)),
    "none": lambda: random_scene(3, n=0),
    "one": lambda: random_scene(4, n=1),
    "behind": lambda: _changed(5, _behind),
    "off_screen": lambda: _changed(6, _off_screen),
    "huge": lambda: _changed(7, _huge),
    "enormous": lambda: _changed(8, _enormous),
    "needles": lambda: _changed(9, _needles),
    "points": lambda: _changed(10, _points),
    "faint": lambda: _changed(11, _faint),
    "opaque": lambda: _changed(12, _opaque),
    "equal_depths": lambda: _changed(13, _equal_depths),
    "near_plane": lambda: _changed(14, _near_plane),
    "unnormalised": lambda: _changed(15, _unnormalised),
    "not_finite": lambda: _changed(16, _not_finite),
    "whole_tiles": lambda: _changed(17, _square_tiles),
    "one_pixel": lambda: _changed(18, _one_pixel),
}


@torch.no_grad()
def certain_pixels(scene: RenderScene) -> torch.Tensor:
    """Pixels [H, W] where rounding cannot change a decision: bool.

    The image jumps where an alpha crosses 1/255 or T reaches 1e-4, and the gradient where an alpha
    reaches 0.999. Within single precision of such a jump either side is right, so those few pixels
    say nothing about a backend. Computed densely in float64, without the tested code's blending.
    """
    exact = scene.converted(torch.float64)
    finite = torch.ones(len(exact.means), dtype=torch.bool)
    for tensor in (exact.means, exact.quaternions, exact.scales, exact.opacities, exact.colors):
        finite &= torch.isfinite(tensor if tensor.ndim == 1 else tensor.sum(-1))
    projected = project_gaussians(
        exact.means[finite], exact.quaternions[finite], exact.scales[finite], exact.view_matrix,
        exact.camera,
    )  # fmt: skip
    keep = (projected.depths > 0.01) & (projected.depths < 100)
    order = torch.argsort(projected.depths[keep], stable=True)
    conics, centres = projected.conics[keep][order], projected.means2d[keep][order]
    ys, xs = torch.meshgrid(
        torch.arange(exact.camera.height) + 0.5,
        torch.arange(exact.camera.width) + 0.5,
        indexing="ij",
    )
    dx, dy = xs[..., None] - centres[:, 0], ys[..., None] - centres[:, 1]
    power = 0.5 * (conics[:, 0] * dx**2 + conics[:, 2] * dy**2) + conics[:, 1] * dx * dy
    raw = exact.opacities[finite][keep][order] * torch.exp(-power)
    alpha = torch.where(raw >= ALPHA_THRESHOLD, raw.clamp(max=MAX_ALPHA), 0.0)
    transmittance = torch.cumprod(1 - alpha, -1)
    doubt = (raw / ALPHA_THRESHOLD - 1).abs() < 1e-5
    doubt |= (raw / MAX_ALPHA - 1).abs() < 1e-5
    doubt |= (transmittance / MIN_TRANSMITTANCE - 1).abs() < 1e-3
    return ~doubt.any(-1)
