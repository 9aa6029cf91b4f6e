"""Settings of the matte."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from cag_avatar.errors import InputError

__all__ = ["MatteConfig"]


@dataclass(frozen=True)
class MatteConfig:
    """How a clip is matted.

    Lengths named ``*_heads`` are fractions of the head's size (the square root of the area of the
    drawn head, without neck and shoulders), so that they hold for small and large faces.
    """

    working_size: int = 256
    """Longer side, in pixels, at which frames are cut and matted; alpha is then upsampled."""
    sure_foreground_heads: float = 0.10
    """A pixel deeper than this inside the drawn head is the person's."""
    sure_torso_heads: float = 0.16
    """The same inside neck and shoulders, where the clothes' outline is not the body's."""
    sure_background_heads: float = 0.70
    """A pixel farther than this from the drawn person is background; hair must fit within."""
    sure_background_torso_heads: float = 1.5
    """The same beside and below the shoulders, where the mesh ends before the clothes do."""
    survey_frames: int = 40
    """Frames from which the colour models and the background plate are made."""
    colour_model_frames: int = 12
    """How many of these the colour models (Gaussian mixtures of GrabCut) are fitted to."""
    band_inside_heads: float = 0.025
    """Depth to which alpha is solved for inside the cut."""
    band_outside_heads: float = 0.04
    """Distance to which alpha is solved for outside the cut."""
    temporal_weight: float = 1.0
    """Weight of the frame before and after, where the picture did not change; 0: none."""
    method: Literal["grabcut", "rvm"] | None = None
    """How alpha is made: ``grabcut`` needs nothing, ``rvm`` the file below. By default rvm where
    that is given."""
    rvm: Path | None = None
    """ONNX file of Robust Video Matting."""
    shoulders: Literal["keep", "cut"] = "keep"
    """``cut`` ends the matte softly where the fitted head's neck ends; hair that falls below that
    ends there too."""
    parsing: Literal["landmarks", "bisenet"] | None = None
    """Where labels of eyes, lips and mouth come from: ``landmarks`` (and the fitted head) need
    nothing, ``bisenet`` the file below. By default bisenet where that is given."""
    bisenet: Path | None = None
    """ONNX file of a BiSeNet that parses faces (CelebAMask-HQ, 19 classes)."""
    mouth_margin: float = 0.06
    """How far the lips' label may follow the fitted head's lips beyond the landmarks of the lips,
    in mouth widths; 0: the red of the lips."""
    border: int = 2
    """Outermost rows and columns not looked at: many videos carry a line of another colour."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (int, float)) and value < 0:
                raise InputError(f"matte: {item.name} must not be negative")
        if self.mouth_margin > 1:
            raise InputError(f"matte: mouth_margin {self.mouth_margin} must be at most 1")
        for name, choices, file in (
            ("method", ("grabcut", "rvm"), "rvm"),
            ("parsing", ("landmarks", "bisenet"), "bisenet"),
            ("shoulders", ("keep", "cut"), None),
        ):
            value = getattr(self, name)
            if value not in choices and not (value is None and file):
                raise InputError(
                    f"matte: {name} '{value}' is unknown, choose from {', '.join(choices)}"
                )
            if file and value == file and getattr(self, file) is None:
                raise InputError(
                    f"matte: {name} '{value}' needs a model; name its ONNX file in matte.{file}"
                )
        if self.working_size < 64:
            raise InputError(f"matte: working_size {self.working_size} must be at least 64")
        if not 1 <= self.colour_model_frames <= self.survey_frames:
            raise InputError(
                f"matte: colour_model_frames {self.colour_model_frames} must lie between 1 and "
                f"survey_frames ({self.survey_frames})"
            )

    @property
    def uses_rvm(self) -> bool:
        """Whether alpha comes from the network."""
        return self.method == "rvm" or (self.method is None and self.rvm is not None)

    @property
    def uses_bisenet(self) -> bool:
        """Whether labels come from the network."""
        return self.parsing == "bisenet" or (self.parsing is None and self.bisenet is not None)
