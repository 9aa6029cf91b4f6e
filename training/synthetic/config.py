"""Settings of a synthetic recording."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from cag_avatar.errors import InputError

__all__ = ["MOTION_STYLES", "SynthesisConfig"]

#: "talk": speech with gestures; "expressions": one acted expression after another; "still": a
#: resting face that blinks.
MOTION_STYLES: tuple[str, ...] = ("talk", "expressions", "still")


@dataclass(frozen=True)
class SynthesisConfig:
    """What to synthesise. Raises InputError, naming the field, on a value out of range."""

    out: Path = Path("capture.mp4")
    """Video to write; the truth goes to a folder of the same name ending in ``.truth``."""
    seed: int = 0
    """Decides the person, the light and the motion; the same seed gives the same pixels."""
    seconds: float = 20.0
    """Length of the clip."""
    fps: float = 25.0
    """Frames per second."""
    size: int = 512
    """Width and height of the picture in pixels, even, >= 32."""
    motion: str = "talk"
    """One of MOTION_STYLES."""
    head_turns: float = 1.0
    """Scale of the head's rotation and translation; 1 reaches 25 degrees of yaw, 15 of pitch."""
    noise: float = 1.2
    """Standard deviation of the sensor noise in 8-bit levels."""
    supersample: int = 2
    """Samples per pixel along each axis."""
    texture_size: int = 1536
    """Width and height of the skin texture in texels."""
    strands: int = 3000
    """Single hairs drawn over the hair's surface."""

    def __post_init__(self) -> None:
        def require(good: bool, name: str, rule: str) -> None:
            if not good:
                raise InputError(f"{name}: {getattr(self, name)!r} must be {rule}")

        require(Path(self.out).suffix.lower() == ".mp4", "out", "a file name ending in .mp4")
        require(0 <= self.seed < 2**31, "seed", "between 0 and 2147483647")
        require(0 < self.seconds <= 3600, "seconds", "above 0 and at most 3600")
        require(1 <= self.fps <= 240, "fps", "between 1 and 240")
        require(32 <= self.size <= 4096 and self.size % 2 == 0, "size", "even, between 32 and 4096")
        require(self.motion in MOTION_STYLES, "motion", f"one of {', '.join(MOTION_STYLES)}")
        require(0 <= self.head_turns <= 1.5, "head_turns", "between 0 and 1.5")
        require(0 <= self.noise <= 50, "noise", "between 0 and 50")
        require(1 <= self.supersample <= 4, "supersample", "1, 2, 3 or 4")
        require(64 <= self.texture_size <= 4096, "texture_size", "between 64 and 4096")
        require(0 <= self.strands <= 20000, "strands", "between 0 and 20000")

    @property
    def num_frames(self) -> int:
        """Number of frames, at least one."""
        return max(1, math.floor(self.seconds * self.fps + 0.5))
