"""A turntable: the camera swings round the head while an expression plays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cag_avatar.avatar.animator import Animator
from cag_avatar.avatar.retargeting import retarget_code
from cag_avatar.errors import InputError
from cag_avatar.geometry import rotation_vector_to_matrix
from cag_avatar.head_models.arkit import ARKIT_INDEX, ARKIT_NAMES

__all__ = ["Turntable", "turntable_frames"]

#: What the face does when nobody says: one after the other, each from neutral and back.
_PROGRAMME: tuple[dict[str, float], ...] = (
    {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "cheekSquintLeft": 0.4, "cheekSquintRight": 0.4,
     "mouthDimpleLeft": 0.2, "mouthDimpleRight": 0.2},
    {"jawOpen": 0.6},
    {"browInnerUp": 0.8, "browOuterUpLeft": 0.8, "browOuterUpRight": 0.8},
    {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
    {"mouthPucker": 0.8},
)  # fmt: skip
#: Point that the camera swings round: the middle of the head, behind the eyes, metres.
_CENTRE = (0.0, 0.0, -0.08)


@dataclass(frozen=True)
class Turntable:
    """How a turntable moves."""

    seconds: float = 8.0
    """Length: one swing to each side and back."""
    fps: float = 30.0
    """Frames a second."""
    yaw: float = 60.0
    """Farthest to each side, degrees."""
    pitch: float = 10.0
    """Farthest up and down, degrees; two swings while the yaw makes one."""
    distance: float = 1.15
    """Of the camera, over that of the training's rest pose: a head seen from the side is longer."""

    def __post_init__(self) -> None:
        """Raise InputError on a value that makes no sense."""
        for name, low, high in (
            ("seconds", 0.1, 600), ("fps", 1, 240), ("yaw", 0, 180), ("pitch", 0, 80),
            ("distance", 0.5, 10),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name}: {getattr(self, name)} must lie in {low} .. {high}")

    @property
    def frames(self) -> int:
        """Number of frames, at least 1."""
        return max(1, round(self.seconds * self.fps))


def turntable_frames(
    animator: Animator,
    code: NDArray[np.floating] | None = None,
    settings: Turntable | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Pictures uint8 [H, W, 3], RGB.

    Head and torso turn together, so it is the camera that moves; light that is learned stays with
    the head.

    Args:
        animator: the avatar.
        code: expression [E] that comes and goes; None plays a smile, an open jaw, raised brows, a
            blink and a pucker, as far as the avatar's training range allows.
        settings: length and angles.
    """
    settings = settings or Turntable()
    record, neutral = animator.record, animator.neutral_code
    if code is None:
        plays = [
            retarget_code(animator.code_of_arkit(_arkit(step)), record, neutral=neutral)
            for step in _PROGRAMME
        ]
    else:
        plays = [np.asarray(code, np.float32)]
    head = torch.from_numpy(record.neutral_head_pose)
    torso = torch.from_numpy(record.neutral_torso_pose)
    centre = head[:3, :3] @ torch.tensor(_CENTRE, dtype=torch.float64) + head[:3, 3]
    # Before the middle of the picture's width.
    shown_at = centre * centre.new_tensor([0.0, 1.0, settings.distance])
    for index in range(settings.frames):
        time = index / settings.frames
        swing = 2 * math.pi * time
        place = time * len(plays)
        step = int(place)
        amount = 0.5 - 0.5 * math.cos(2 * math.pi * (place - step))
        shown = neutral + amount * (plays[step] - neutral)
        tilt = math.radians(settings.pitch) * math.sin(2 * swing)
        turn = math.radians(settings.yaw) * math.sin(swing)
        rotation = (
            rotation_vector_to_matrix(torch.tensor([tilt, 0.0, 0.0], dtype=torch.float64))
            @ rotation_vector_to_matrix(torch.tensor([0.0, turn, 0.0], dtype=torch.float64))
        )  # fmt: skip
        motion = torch.eye(4, dtype=torch.float64)
        motion[:3, :3], motion[:3, 3] = rotation, shown_at - rotation @ centre
        yield animator.render(shown, (motion @ head).numpy(), (motion @ torso).numpy())


def _arkit(values: dict[str, float]) -> NDArray[np.float32]:
    arkit = np.zeros(len(ARKIT_NAMES), np.float32)
    for name, value in values.items():
        arkit[ARKIT_INDEX[name]] = value
    return arkit
