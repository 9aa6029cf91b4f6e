"""Drives an avatar: code and pose in, picture out."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cag_avatar.avatar.animator_base import AnimatorBase, check_array, check_picture
from cag_avatar.avatar.driver import CodeLayout
from cag_avatar.avatar.file import load_avatar
from cag_avatar.avatar.inference import PreparedAvatar
from cag_avatar.avatar.live_renderer import LiveRenderer, make_live_renderer
from cag_avatar.avatar.model import Avatar
from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar.rendering.rasterizer import Backend, Rasterizer, RenderOutput, get_rasterizer

__all__ = ["Animator"]


class Animator(AnimatorBase):
    """Renders one avatar; not thread-safe.

    By the fastest renderer that this machine has (``live_renderer.py``): a CUDA graph, or one C
    function on the CPU. Without a C compiler, and on other back ends, network and rasteriser run
    one after the other. Which, is logged.

    Args:
        avatar: with its capture record.
        backend: rasteriser to use.
        size: width and height of the pictures in pixels; None takes that of training.
        background: RGB, 0 to 255.

    Raises:
        InputError: the avatar has no record, size or background are out of range, or "cuda" is
            asked for and cannot be used.
    """

    def __init__(
        self,
        avatar: Avatar,
        backend: Backend = "auto",
        size: tuple[int, int] | None = None,
        background: tuple[int, int, int] = (255, 255, 255),
    ) -> None:
        if avatar.record is None:
            raise InputError("avatar: has no capture record, so no camera; set .record")
        check_picture(size, background)
        camera = avatar.record.camera
        camera = camera if size is None else camera.resized(*size)
        super().__init__(avatar.record, CodeLayout.of(avatar.head), camera)
        self._compiled = make_live_renderer(avatar, camera, background, backend)
        self._rasterizer: Rasterizer | None = None
        self._prepared: PreparedAvatar | None = None
        self._device = torch.device("cpu")
        if self._compiled is None:
            self._rasterizer = get_rasterizer(backend)
            if self._rasterizer.name == "cuda":
                self._device = torch.device("cuda")
            self._prepared = PreparedAvatar(copy.deepcopy(avatar).to(self._device))
            self._avatar = self._prepared.avatar
        else:
            self._avatar = self._compiled.avatar
        self._head = self._avatar.head
        self._background = torch.tensor(background, device=self._device) / 255.0
        self._view = torch.eye(4, device=self._device)

    @classmethod
    def load(
        cls,
        path: Path | str,
        backend: Backend = "auto",
        size: tuple[int, int] | None = None,
        background: tuple[int, int, int] = (255, 255, 255),
    ) -> Animator:
        """Load a .cag file. Raises InputError naming the file if it is bad; arguments as above."""
        return cls(load_avatar(path), backend, size, background)

    @property
    def compiled(self) -> LiveRenderer | None:
        """The compiled renderer or the CUDA graph, if one of them draws."""
        return self._compiled

    @property
    def neutral_code(self) -> NDArray[np.float32]:
        """The code of the face at rest, [E]."""
        return self._avatar.neutral_code.cpu().numpy()

    def code_of_arkit(self, arkit: NDArray[np.floating]) -> NDArray[np.float32]:
        """ARKIT_NAMES coefficients [52] as a code [E] of this avatar, as far as its head model has
        them (see HeadModel.arkit_to_code).

        Raises:
            InputError: wrong shape, NaN or infinity.
        """
        values = self._tensor("arkit", arkit, (len(ARKIT_NAMES),))
        return self._head.arkit_to_code(values[None])[0].cpu().numpy()

    @property
    def rest_vertices(self) -> NDArray[np.float32]:
        """The person's rest head, canonical space, metres, [V, 3]."""
        return self._avatar.rest.cpu().numpy()

    def render(
        self,
        code: NDArray[np.floating],
        head_pose: NDArray[np.floating] | None = None,
        torso_pose: NDArray[np.floating] | None = None,
    ) -> NDArray[np.uint8]:
        """Render one frame with a code and poses taken as they are.

        Args:
            code: expression code, [E].
            head_pose: canonical to camera space (OpenCV axes, metres), [4, 4]; None is the neutral
                pose of the training video.
            torso_pose: the same for the torso.

        Returns:
            RGB uint8 [H, W, 3].

        Raises:
            InputError: wrong shape, NaN or infinity.
        """
        if self._compiled is not None:
            return self._compiled.render(*self._checked(code, head_pose, torso_pose))
        driving = self._driving(code, head_pose, torso_pose)
        with torch.inference_mode():
            pixels = self._draw(driving, self._background).image.mul(255.0)
            return self._levels(pixels)

    def render_rgba(
        self,
        code: NDArray[np.floating],
        head_pose: NDArray[np.floating] | None = None,
        torso_pose: NDArray[np.floating] | None = None,
    ) -> NDArray[np.uint8]:
        """Render one frame without a background; arguments and errors as for :meth:`render`.

        Returns:
            RGBA uint8 [H, W, 4] with straight (not premultiplied) alpha.
        """
        if self._compiled is not None:
            checked = self._checked(code, head_pose, torso_pose)
            return self._compiled.render(*checked, channels=4)
        driving = self._driving(code, head_pose, torso_pose)
        with torch.inference_mode():
            output = self._draw(driving, torch.zeros_like(self._background))
            alpha = output.alpha[..., None]
            # Over black the colours are premultiplied; what is not covered has none.
            color = output.image / alpha.clamp_min(1e-6)
            return self._levels(torch.cat([color, alpha], -1).mul_(255.0))

    def _driving(
        self,
        code: NDArray[np.floating],
        head_pose: NDArray[np.floating] | None,
        torso_pose: NDArray[np.floating] | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        code, head, torso = self._checked(code, head_pose, torso_pose)
        to = self._device
        return (
            torch.from_numpy(code).to(to),
            torch.from_numpy(head).to(to),
            torch.from_numpy(torso).to(to),
        )

    def _draw(
        self,
        driving: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        background: torch.Tensor,
    ) -> RenderOutput:
        """The picture by the network and the rasteriser, one after the other."""
        assert self._prepared is not None
        assert self._rasterizer is not None
        gaussians = self._prepared.gaussians(*driving)
        return self._rasterizer.render(
            gaussians.means,
            gaussians.quaternions,
            gaussians.scales,
            gaussians.opacities,
            gaussians.colors,
            self._view,
            self._camera,
            background,
        )

    @staticmethod
    def _levels(pixels: torch.Tensor) -> NDArray[np.uint8]:
        """Values 0 to 255 as bytes on the CPU."""
        return pixels.add_(0.5).clamp_(0, 255).to(torch.uint8).cpu().numpy()

    def _tensor(
        self, name: str, values: NDArray[np.floating], shape: tuple[int, ...]
    ) -> torch.Tensor:
        return torch.from_numpy(check_array(name, values, shape)).to(self._device)
