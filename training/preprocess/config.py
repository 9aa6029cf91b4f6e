"""Settings of the preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cag_avatar_training.matting import MatteConfig

from cag_avatar.errors import InputError
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.photometric import PhotometricConfig
from cag_avatar.tracking.steadying import SteadyConfig

__all__ = ["PreprocessConfig"]


@dataclass(frozen=True)
class PreprocessConfig:
    """How a video becomes a dataset."""

    size: int = 512
    """Width and height of the dataset's images, pixels."""
    head_model: str = "anny"
    """Head model that is fitted."""
    landmarker: Path | None = None
    """Face landmarker model file; by default it is looked for (see the README)."""
    min_seconds: float = 2.0
    """A face must be seen for at least this long."""
    irises: bool = True
    """Look for the irises in the pictures: the landmarker hardly sees looks up and down."""
    looks: bool = True
    """Read the pictures of the face, besides the landmarks, to correct the landmarker's errors."""
    fit: FitConfig = field(default_factory=FitConfig)
    """Weights of the fit."""
    matte: MatteConfig = field(default_factory=MatteConfig)
    """Settings of the matte."""
    photometric: bool = True
    """Align the frames by the pictures themselves, after landmarks and outline."""
    alignment: PhotometricConfig = field(default_factory=PhotometricConfig)
    """Settings of that pass."""
    steady: SteadyConfig = field(default_factory=SteadyConfig)
    """How far the head poses are steadied at last."""
    progress: bool = True
    """Show progress: bars on a terminal, lines in the log elsewhere."""
    keep_work: bool = False
    """Keep the work folder: another run with other settings repeats only what they change."""

    def __post_init__(self) -> None:
        if self.size % 2 or not 128 <= self.size <= 2048:
            raise InputError(f"size: {self.size} must be even and between 128 and 2048")
        if self.min_seconds < 0:
            raise InputError(f"min_seconds: {self.min_seconds} must not be negative")
