"""Drives an avatar: code and pose in, picture out."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cag_avatar.avatar.driver import CodeLayout, DriverProfile
from cag_avatar.avatar.file import load_avatar
from cag_avatar.avatar.inference import PreparedAvatar
from cag_avatar.avatar.live_renderer import LiveRenderer, make_live_renderer
from cag_avatar.avatar.model import Avatar
from cag_avatar.avatar.record import CaptureRecord
from cag_avatar.avatar.retargeting import (
    Gaze,
    Retargeting,
    avatar_rest,
    retarget_head_pose,
    transfer_code,
)
from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar.rendering.rasterizer import Backend, Rasterizer, RenderOutput, get_rasterizer

__all__ = ["Animator"]

_LOG = logging.getLogger(__name__)


class Animator:
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
        if size is not None and not all(8 <= side <= 8192 for side in size):
            raise InputError(f"size: {size[0]}x{size[1]} must lie in 8 .. 8192 pixels")
        if not all(0 <= channel <= 255 for channel in background):
            raise InputError(f"background: {background} must lie in 0 .. 255")
        self._record = avatar.record
        camera = avatar.record.camera
        self._camera = camera if size is None else camera.resized(*size)
        self._compiled = make_live_renderer(avatar, self._camera, background, backend)
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
        self._layout = CodeLayout.of(self._head)
        if self._record.distribution is None:
            _LOG.info(
                "the avatar's file does not tell how its training codes lie: they are limited "
                "coefficient by coefficient only"
            )
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
    def camera(self) -> PinholeCamera:
        """Camera of the pictures."""
        return self._camera

    @property
    def expression_names(self) -> tuple[str, ...]:
        """Name of each coefficient of a code."""
        return self._avatar.expression_names

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
    def record(self) -> CaptureRecord:
        """What the avatar remembers of its capture."""
        return self._record

    @property
    def layout(self) -> CodeLayout:
        """The coefficients of its code."""
        return self._layout

    @property
    def rest_vertices(self) -> NDArray[np.float32]:
        """The person's rest head, canonical space, metres, [V, 3]."""
        return self._avatar.rest.cpu().numpy()

    @property
    def rest_code(self) -> NDArray[np.float32]:
        """The code of the person's own face at rest, [E]: hardly ever the model's neutral one."""
        return avatar_rest(self._record, self._layout).astype(np.float32)

    def transfer(
        self,
        code: NDArray[np.floating],
        driver: DriverProfile | None,
        settings: Retargeting | None = None,
        gaze: Gaze = "follow",
    ) -> NDArray[np.float32]:
        """A driver's code [E] as this avatar's; arguments as for transfer_code().

        Raises:
            InputError: wrong shape, NaN or infinity.
        """
        self._tensor("code", code, (len(self.expression_names),))
        return transfer_code(code, driver, self._record, self._layout, settings, gaze)

    def follow(
        self,
        pose: NDArray[np.floating],
        neutral: NDArray[np.floating],
        settings: Retargeting | None = None,
    ) -> NDArray[np.float64]:
        """Head pose [4, 4] that moves from rest as a driver's does; see retarget_head_pose().

        Raises:
            InputError: wrong shape, NaN or infinity.
        """
        self._tensor("operator_pose", pose, (4, 4))
        self._tensor("operator_neutral", neutral, (4, 4))
        return retarget_head_pose(
            np.asarray(pose, dtype=np.float64),
            np.asarray(neutral, dtype=np.float64),
            self._record,
            settings,
        )

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
        driving = self._driving(code, head_pose, torso_pose)
        if self._compiled is not None:
            return self._compiled.render(*driving)
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
        driving = self._driving(code, head_pose, torso_pose)
        if self._compiled is not None:
            return self._compiled.render(*driving, channels=4)
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
        """Code [E], head and torso pose [4, 4], checked; the poses are the neutral ones if None."""
        head = self._record.neutral_head_pose if head_pose is None else head_pose
        torso = self._record.neutral_torso_pose if torso_pose is None else torso_pose
        return (
            self._tensor("code", code, (len(self.expression_names),)),
            self._tensor("head_pose", head, (4, 4)),
            self._tensor("torso_pose", torso, (4, 4)),
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

    def render_relative(
        self,
        code: NDArray[np.floating],
        operator_pose: NDArray[np.floating] | None,
        operator_neutral: NDArray[np.floating] | None,
        settings: Retargeting | None = None,
        driver: DriverProfile | None = None,
    ) -> NDArray[np.uint8]:
        """Render one frame driven by another person (see ``retargeting.py``); the torso stays.

        Args:
            code: the operator's expression code, [E].
            operator_pose: their head pose now, head to camera, [4, 4]; None leaves the head at
                rest.
            operator_neutral: their head pose at rest, [4, 4]; None leaves the head at rest.
            settings: margins and gain.
            driver: the operator's face at rest; None takes their code as it is.

        Returns:
            RGB uint8 [H, W, 3].

        Raises:
            InputError: wrong shape, NaN or infinity.
        """
        held = self.transfer(code, driver, settings)
        if operator_pose is None or operator_neutral is None:
            return self.render(held)
        return self.render(held, self.follow(operator_pose, operator_neutral, settings))

    def _tensor(
        self, name: str, values: NDArray[np.floating], shape: tuple[int, ...]
    ) -> torch.Tensor:
        array = np.asarray(values, dtype=np.float32)
        if array.shape != shape:
            raise InputError(f"{name}: shape {list(array.shape)}, expected {list(shape)}")
        if not np.isfinite(array).all():
            raise InputError(f"{name}: holds NaN or infinity")
        return torch.from_numpy(array).to(self._device)
