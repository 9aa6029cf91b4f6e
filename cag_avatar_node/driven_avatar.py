"""One loaded avatar and what it needs to be driven: expressions in, faces and pictures out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cag_avatar.avatar.driver import RunningDriver
from cag_avatar.avatar.live_animator import load_animator
from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar_node.expression_validation import CheckedExpression
from cag_avatar_node.face_blend import Face, motion_of_pose, pose_of_motion
from cag_avatar_node.head_limits import HeadLimits, limit_motion, orbit
from cag_avatar_node.idle_motion import EYES
from cag_avatar_node.neutral_pose import NeutralPose

if TYPE_CHECKING:
    from cag_avatar.rendering.rasterizer import Backend

__all__ = ["DrivenAvatar", "DrivingSettings", "View"]


@dataclass(frozen=True)
class DrivingSettings:
    """How the operator's expression moves the avatar."""

    head_motion: Literal["relative", "absolute", "none"] = "relative"
    """From the operator's rest pose, as the operator's pose, or not at all."""
    expression: Literal["relative", "absolute"] = "relative"
    """From the operator's face at rest, or codes as they are."""
    gaze: Literal["follow", "none"] = "follow"
    """Whether the eyes follow."""
    limits: HeadLimits = field(default_factory=HeadLimits)
    """How far the head may turn."""


@dataclass(frozen=True)
class View:
    """How the avatar is looked at."""

    orbit_yaw_deg: float = 0.0
    """The camera's way round the head to its right, degrees."""
    orbit_pitch_deg: float = 0.0
    """The camera's way over the head, degrees."""
    alpha: bool = False
    """Pictures with straight alpha instead of a background."""


class DrivenAvatar:
    """An animator with the operator's profile; for one thread at a time.

    Loading renders once, so that the first live picture is not the slow one.

    Args:
        path: avatar file.
        backend: rasteriser.
        size: width and height of the pictures, pixels.
        background: red, green, blue, 0 to 255.
        neutral: the operator's rest pose, shared by all avatars that they drive.
        alpha: also warm up pictures with alpha.

    Raises:
        InputError: a bad file or parameter, or an avatar that is not driven by ARKit's 52
            coefficients.
    """

    def __init__(
        self,
        path: Path,
        backend: Backend,
        size: int,
        background: tuple[int, int, int],
        neutral: NeutralPose,
        *,
        alpha: bool = False,
    ) -> None:
        self.path = path
        self.animator = load_animator(path, backend, (size, size), background)
        names = tuple(self.animator.expression_names)
        if names != ARKIT_NAMES:
            raise InputError(
                f"avatar {path} is driven by {len(names)} coefficients that are not ARKit's 52: "
                "train it again with an ARKit head model"
            )
        self.rest = Face(self.animator.rest_code, np.eye(4))
        blink = self.rest.code.copy()
        blink[EYES] = 1.0
        #: Closed as far as training saw: many clips hold no whole blink, and the rest would be
        #: smears.
        self.shut = self.animator.transfer(blink, None)[EYES]
        self._driver = RunningDriver(self.animator.layout, self.rest.code)
        self._neutral = neutral
        self.picture(self.rest, View(alpha=alpha))

    @property
    def name(self) -> str:
        """The file's name without folder and suffix."""
        return self.path.stem

    def restart_operator(self) -> None:
        """Find the operator's rest pose and face at rest anew."""
        self._neutral.restart()
        self._driver.restart()

    def take_over(self, other: DrivenAvatar) -> None:
        """Know the operator as well as the avatar that they drove before."""
        self._driver.take_over(other._driver)

    def express(self, change: NDArray[np.float32]) -> Face:
        """The resting face with an expression [52] added, kept near what training saw."""
        if not change.any():
            return self.rest
        code = np.clip(self.rest.code + change, 0.0, 1.0)
        return Face(self.animator.transfer(code, None), self.rest.motion)

    def face(self, expression: CheckedExpression, settings: DrivingSettings, now: float) -> Face:
        """What the avatar does for an expression of the operator; ``now`` in seconds."""
        profile = self._driver.update(expression.code)
        code = self.animator.transfer(
            expression.code,
            None if settings.expression == "absolute" else profile,
            gaze=settings.gaze,
        )
        return Face(code, limit_motion(self._motion(expression, settings, now), settings.limits))

    def picture(self, face: Face, view: View) -> NDArray[np.uint8]:
        """Render a face: uint8 [H, W, 3] RGB, or [H, W, 4] RGBA for a view with alpha."""
        record = self.animator.record
        head = pose_of_motion(face.motion, record.neutral_head_pose)
        torso = record.neutral_torso_pose
        if view.orbit_yaw_deg or view.orbit_pitch_deg:
            around = orbit(
                view.orbit_yaw_deg, view.orbit_pitch_deg, record.neutral_head_pose[:3, 3]
            )
            head, torso = around @ head, around @ torso
        if view.alpha:
            return self.animator.render_rgba(face.code, head, torso)
        return self.animator.render(face.code, head, torso)

    def _motion(
        self, expression: CheckedExpression, settings: DrivingSettings, now: float
    ) -> NDArray[np.float64]:
        if settings.head_motion == "none":
            return self.rest.motion
        if expression.head_motion is not None:
            return expression.head_motion
        pose = expression.head_pose
        if pose is None:
            return self.rest.motion
        if settings.head_motion == "relative":
            pose = self.animator.follow(pose, self._neutral.update(pose, now))
        return motion_of_pose(pose, self.animator.record.neutral_head_pose)
