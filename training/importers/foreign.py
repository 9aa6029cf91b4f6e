"""What a reader of another project's dataset hands over: FLAME parameters, cameras, files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.camera import PinholeCamera

__all__ = ["FlameTrack", "ForeignCapture"]


@dataclass(frozen=True)
class FlameTrack:
    """FLAME's parameters in T frames, in FLAME's own units (metres) and rest space.

    A vertex x of the shaped rest head goes to R (x - J0) + J0 + t, J0 the root joint (rotation and
    translation), after neck, jaw and eyes have turned about their own joints. What a format lacks
    holds the neutral value, and is named in ``ForeignCapture.missing``.
    """

    shape: NDArray[np.float64]
    """Shape coefficients, [S], S <= 300."""
    expression: NDArray[np.float64]
    """Expression coefficients, [T, N], N <= 100."""
    rotation: NDArray[np.float64]
    """Rotation about the root joint, [T, 3, 3]."""
    translation: NDArray[np.float64]
    """Translation, metres, [T, 3]."""
    neck: NDArray[np.float64]
    """Rotation about the neck joint, [T, 3, 3]."""
    jaw: NDArray[np.float64]
    """Rotation about the jaw joint, [T, 3, 3]."""
    eyes: NDArray[np.float64]
    """Rotations of the left and the right eyeball (FLAME's joints 3 and 4), [T, 2, 3, 3]."""
    eyelids: NDArray[np.float64]
    """Closure of the left and the right lid as metrical-tracker defines it, [T, 2]."""
    static_offset: NDArray[np.float64] | None = None
    """Offsets of the rest vertices, metres, [V, 3]."""

    def __len__(self) -> int:
        return len(self.expression)

    @classmethod
    def neutral(cls, frames: int) -> FlameTrack:
        """The mean head at rest, for readers to replace what they know."""
        still = np.tile(np.eye(3), (frames, 1, 1))
        return cls(
            shape=np.zeros(0),
            expression=np.zeros((frames, 0)),
            rotation=still,
            translation=np.zeros((frames, 3)),
            neck=still,
            jaw=still,
            eyes=np.tile(np.eye(3), (frames, 2, 1, 1)),
            eyelids=np.zeros((frames, 2)),
        )

    def with_values(self, **changes: Any) -> FlameTrack:
        """The same with some fields replaced."""
        return replace(self, **changes)


@dataclass(frozen=True)
class ForeignCapture:
    """Another project's dataset, read but not yet converted; T frames in order of time."""

    format: str
    """Name of the format."""
    source: str
    """Name of the capture."""
    camera: PinholeCamera
    """Intrinsics, the same in every frame."""
    world_to_camera: NDArray[np.float64]
    """World, in metres, to camera space (OpenCV axes), [T, 4, 4]."""
    images: tuple[Path, ...]
    """Picture of each frame."""
    frames: NDArray[np.int64]
    """Number of each frame in its source, [T], ascending."""
    flame: FlameTrack | None
    """FLAME's parameters; None when the format's are another model's: track the pictures."""
    mattes: tuple[tuple[Path, ...], ...] = ()
    """Grey pictures whose product is the matte of each frame; empty: the picture's own alpha."""
    mouths: tuple[Path, ...] = ()
    """Masks of lips and mouth interior, where the format has them."""
    semantics: tuple[Path, ...] = ()
    """Label planes in CelebAMask-HQ's numbering, where the format has them."""
    held_out: tuple[int, ...] = ()
    """Indices of the frames that the format's own protocol tests on."""
    canonical: NDArray[np.float64] | None = None
    """Vertices, [V, 3], of the shaped head with its jaw turned by ``canonical_jaw``: where the
    format lacks the shape itself, the shape is solved from them."""
    canonical_jaw: float = 0.0
    """Rotation of the canonical head's jaw about x, radians."""
    missing: tuple[str, ...] = ()
    """Parameters that the format lacks and that hold their neutral value."""
    notes: tuple[str, ...] = ()
    """What else a user of the dataset should know."""

    def __len__(self) -> int:
        return len(self.images)
