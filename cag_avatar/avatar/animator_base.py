"""What drives an avatar, whatever draws it: retargeting, the checks, the camera. Knows no torch."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from cag_avatar.avatar.driver import CodeLayout, DriverProfile
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

__all__ = ["AnimatorBase", "check_array", "check_picture"]

_LOG = logging.getLogger(__name__)


class AnimatorBase(ABC):
    """Drives one avatar; subclasses draw it.

    Args:
        record: of the avatar's capture.
        layout: of its codes.
        camera: of the pictures.
    """

    def __init__(self, record: CaptureRecord, layout: CodeLayout, camera: PinholeCamera) -> None:
        self._record = record
        self._layout = layout
        self._camera = camera
        if record.distribution is None:
            _LOG.info(
                "the avatar's file does not tell how its training codes lie: they are limited "
                "coefficient by coefficient only"
            )

    @property
    def camera(self) -> PinholeCamera:
        """Camera of the pictures."""
        return self._camera

    @property
    def expression_names(self) -> tuple[str, ...]:
        """Name of each coefficient of a code."""
        return self._layout.names

    @property
    def record(self) -> CaptureRecord:
        """What the avatar remembers of its capture."""
        return self._record

    @property
    def layout(self) -> CodeLayout:
        """The coefficients of its code."""
        return self._layout

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
        check_array("code", code, (len(self.expression_names),))
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
        check_array("operator_pose", pose, (4, 4))
        check_array("operator_neutral", neutral, (4, 4))
        return retarget_head_pose(
            np.asarray(pose, dtype=np.float64),
            np.asarray(neutral, dtype=np.float64),
            self._record,
            settings,
        )

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

    @abstractmethod
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

    @abstractmethod
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

    def _checked(
        self,
        code: NDArray[np.floating],
        head_pose: NDArray[np.floating] | None,
        torso_pose: NDArray[np.floating] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Code [E], head and torso pose [4, 4], checked; the poses are the neutral ones if None."""
        head = self._record.neutral_head_pose if head_pose is None else head_pose
        torso = self._record.neutral_torso_pose if torso_pose is None else torso_pose
        return (
            check_array("code", code, (len(self.expression_names),)),
            check_array("head_pose", head, (4, 4)),
            check_array("torso_pose", torso, (4, 4)),
        )


def check_array(
    name: str, values: NDArray[np.floating], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """An argument as float32. Raises InputError naming it: wrong shape, NaN or infinity."""
    array = np.asarray(values, dtype=np.float32)
    if array.shape != shape:
        raise InputError(f"{name}: shape {list(array.shape)}, expected {list(shape)}")
    if not np.isfinite(array).all():
        raise InputError(f"{name}: holds NaN or infinity")
    return array


def check_picture(size: tuple[int, int] | None, background: tuple[int, int, int]) -> None:
    """Raise InputError if width and height or the background colour are out of range."""
    if size is not None and not all(8 <= side <= 8192 for side in size):
        raise InputError(f"size: {size[0]}x{size[1]} must lie in 8 .. 8192 pixels")
    if not all(0 <= channel <= 255 for channel in background):
        raise InputError(f"background: {background} must lie in 0 .. 255")
