"""What the interactive page shows: an avatar seen by a camera that goes round it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.avatar.inference import PreparedAvatar
from cag_avatar.avatar.model import Avatar
from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.geometry import quaternion_to_matrix, rigid_transform, transform_about
from cag_avatar.insight.listening import listen
from cag_avatar.insight.overlay import overlay_colors
from cag_avatar.rendering.rasterizer import Backend, get_rasterizer

__all__ = ["AvatarScene", "Paint", "Viewpoint"]

#: The avatar's own colours, or the family of the token that a Gaussian attends to most, or that
#: moves it most.
Paint = Literal["natural", "attention", "influence"]
#: Pictures are no wider than so many times their height.
_WIDEST = 2.5


@dataclass(frozen=True)
class Viewpoint:
    """A camera in the world: the canonical space of the resting head (y up, metres)."""

    position: tuple[float, float, float]
    """Centre of the camera."""
    wxyz: tuple[float, float, float, float]
    """Rotation from camera (x right, y down, z forward) to world, quaternion."""
    fov: float
    """Vertical field of view, radians."""
    aspect: float = 1.0
    """Width of the picture over its height."""


class AvatarScene:
    """Renders an avatar for any expression, turn of the head and viewpoint; not thread-safe.

    Args:
        avatar: with its capture record.
        backend: rasteriser.
        size: height of the pictures in pixels.

    Raises:
        InputError: the avatar has no record, or ``size`` is out of range.
    """

    def __init__(self, avatar: Avatar, backend: Backend = "auto", size: int = 448) -> None:
        if avatar.record is None:
            raise InputError("avatar: has no capture record, so no camera; set .record")
        if not 32 <= size <= 4096:
            raise InputError(f"size: {size} must lie in 32 .. 4096 pixels")
        self.record = avatar.record
        self.size = size
        self.expression_names = avatar.expression_names
        self.neutral_code: NDArray[np.float32] = avatar.neutral_code.cpu().numpy()
        self._rasterizer = get_rasterizer(backend)
        self._device = torch.device("cuda" if self._rasterizer.name == "cuda" else "cpu")
        listening = listen(avatar)
        self._families: dict[Paint, Tensor] = {"influence": listening.influence_family}
        if listening.attention_family is not None:
            self._families["attention"] = listening.attention_family
        self._families = {name: f.to(self._device) for name, f in self._families.items()}
        self._prepared = PreparedAvatar(copy.deepcopy(avatar).to(self._device))
        head = torch.from_numpy(self.record.neutral_head_pose)
        torso = torch.from_numpy(self.record.neutral_torso_pose)
        self._torso = (torch.linalg.inv(head) @ torso).float().to(self._device)

    @property
    def paints(self) -> tuple[Paint, ...]:
        """What pictures can show; without "attention" where the fusion has no weights."""
        return ("natural", *sorted(self._families))

    @property
    def front(self) -> Viewpoint:
        """As the training camera saw the resting head, but straight from the front."""
        camera = self.record.camera
        distance = float(self.record.neutral_head_pose[2, 3])
        return Viewpoint(
            (0.0, -0.02, 1.1 * distance), (0.0, 1.0, 0.0, 0.0),
            2 * math.atan(camera.height / 2 / camera.fy),
        )  # fmt: skip

    def picture(
        self,
        code: NDArray[np.floating],
        turn: tuple[float, float, float],
        viewpoint: Viewpoint,
        paint: Paint = "natural",
    ) -> NDArray[np.uint8]:
        """Render on white: [size, width, 3] uint8 RGB.

        Args:
            code: expression code, [E].
            turn: of the head on its neck, radians: pitch (down), yaw (to the subject's left) and
                roll (the top to the subject's right), about x, y and z; rolled first, then
                pitched, then yawed.
            viewpoint: where the camera is.
            paint: one of :attr:`paints`.
        """
        aspect = min(max(viewpoint.aspect, 1 / _WIDEST), _WIDEST)
        width = max(1, round(self.size * aspect))
        focal = self.size / 2 / math.tan(viewpoint.fov / 2)
        blur_variance = self.record.camera.blur_at(focal)
        camera = PinholeCamera(
            width, self.size, focal, focal, width / 2, self.size / 2, blur_variance
        )
        own = self._prepared.avatar
        rotation = quaternion_to_matrix(torch.tensor(viewpoint.wxyz, dtype=torch.float32))
        position = torch.tensor(viewpoint.position, dtype=torch.float32)
        view = rigid_transform(rotation.T, -rotation.T @ position).to(self._device)
        pivot = own.neck_pivot
        x, y, z = torch.diag(torch.tensor(turn, dtype=torch.float32, device=self._device))
        head = view
        for part in (y, x, z):
            head = head @ transform_about(part, pivot)
        values = torch.from_numpy(np.asarray(code, np.float32)).to(self._device)
        gaussians = self._prepared.gaussians(values, head, view @ self._torso)
        with torch.inference_mode():
            colors = gaussians.colors
            if paint != "natural":
                colors = overlay_colors(self._families[paint], colors)
            image = self._rasterizer.render(
                gaussians.means,
                gaussians.quaternions,
                gaussians.scales,
                gaussians.opacities,
                colors,
                torch.eye(4, device=self._device),
                camera,
                torch.ones(3, device=self._device),
            ).image
            pixels = image.mul(255.0).add_(0.5).clamp_(0, 255).to(torch.uint8)
        return pixels.cpu().numpy()
