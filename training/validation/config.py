"""Thresholds of the checks, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from cag_avatar.errors import InputError

__all__ = ["ValidationConfig"]


@dataclass(frozen=True)
class ValidationConfig:
    """When a check speaks up. Lengths in "eye distances" are fractions of the distance between the
    outer corners of the eyes of the fitted head, as it appears at its place in the picture.

    Raises InputError, naming the field, on a value out of range.
    """

    size: int = 256
    """Height at which pictures are looked at, pixels: enough for a matte's holes and for motion to
    a tenth of a pixel, and it keeps a 3,000-frame clip to a few minutes."""

    detect: bool = True
    """Detect landmarks in the pictures where the dataset has none, if MediaPipe is installed."""

    max_shift: int = 3
    """Shifts tried, frames: an importer's off-by-one is 1, a decoder's delay at most 2 or 3."""
    shift_gain: float = 0.01
    """Share of the pictures' motion that another shift must explain beyond the stored one. Sane
    datasets lose at least 0.02 by any shift; noise of the optical flow alone makes 0.002."""
    shift_agreement: float = 0.75
    """Share of the clip's pieces (half a second each) that must prefer that shift: a shift is the
    same everywhere, a single odd movement is not."""
    follows: float = 0.3
    """Least share of the pictures' motion that the tracking must explain under any shift. Sane
    datasets explain 0.7 and more, frames in the wrong order nothing."""
    min_motion: float = 0.004
    """Motion between frames (root mean square, eye distances) below which the two checks above say
    "not checked": a head that stands still agrees with every shift."""

    sides_gain: float = 0.3
    """How much better the landmarks must agree with the coefficients after left and right are
    exchanged, as a share of what the exchange moves: -1 without errors, 1 when they were exchanged.
    Sane datasets: below -0.5."""

    jaw_seen: float = 0.1
    """Range of the lips' gap in the landmarks (eye distances) above which the mouth did open."""
    jaw_slope: float = 0.3
    """Least share of that opening that the head model must make; a tracker's regularisation costs a
    tenth or two, a jaw that was left out all but the lips' own part."""
    jaw_flat: float = 0.03
    """jawOpen below this everywhere counts as never used."""

    offset_warning: float = 0.03
    """Mean distance of mesh and landmarks in one direction, eye distances. Sane datasets: 0.01."""
    offset_error: float = 0.05
    """The same, as an error: at this offset lips are painted on the chin's skin."""
    scale_warning: float = 0.06
    """Relative difference of size between mesh and landmarks. Sane datasets: up to 0.05, as the
    tracking corrects the detector, whose faces are too small; the landmarks kept are its own."""
    scale_error: float = 0.08
    """The same, as an error."""
    outline_error: float = 0.06
    """Share of the drawn head outside the matte that cannot happen to a sane dataset (0.01; hair
    only adds to the matte); used where there are no landmarks."""
    aspect: float = 0.02
    """Relative difference of fx and fy: pixels of real cameras are square to 1 %."""
    centre: float = 0.75
    """Distance of the principal point from the picture's middle, picture sizes. A crop of the head
    from a wide picture may lie off its middle; beyond this the picture would be a corner."""

    hole: float = 0.004
    """Share of the drawn head (without a rim) that the matte may leave out in a frame. Sane mattes
    leave out nothing; half a percent is an eye."""
    hole_frames: float = 0.05
    """Share of frames with holes that makes it an error: single frames are outvoted in training."""
    island: float = 0.004
    """Share of the person's area that may lie apart from the person: a chair, not a strand."""
    flicker: float = 1.0
    """Width of matte that comes and goes within one frame, pixels at 256 along the whole outline.
    Sane mattes: 0.1 to 0.4."""

    frozen_seconds: float = 0.28
    """Codes that stay the same for longer than this: a tracker never repeats itself to the last
    digit, and a held frame is shorter."""
    frozen_step: float = 1e-5
    """Change of a coefficient below which it stays the same (float32 noise is 1e-7)."""
    still_picture: float = 0.25
    """Change between pictures, 8-bit levels within the person, at or below which one repeats the
    other. Sensor noise and compression make more than this of every new picture."""
    repeats: float = 0.05
    """Share of repeated pictures that is worth a warning: a video stretched from 24 to 25 frames/s
    has 0.04."""

    range_reached: float = 0.3
    """Coefficient (99th percentile over frames) below which an expression counts as not shown."""
    blink_reached: float = 0.4
    """The same for a blink, by its largest value: trackers make closed lids 0.45 to 1, lids that
    follow the gaze 0.3."""
    yaw_range: float = 12.0
    """Least width of the head's yaw (2nd to 98th percentile), degrees: below it the cheeks and
    ears are never seen, and an avatar breaks when it turns."""
    pitch_range: float = 6.0
    """The same for pitch."""

    reprojection_warning: float = 0.04
    """Landmark error of a frame (root mean square of the distance, eye distances). Sane datasets:
    0.015 to 0.03."""
    reprojection_error: float = 0.08
    """The same, as an error when half the frames exceed it."""
    spike_degrees: float = 3.0
    """How far a frame's head rotation may lie from the cubic through its neighbours'. A head shaken
    by 20 degrees three times a second does 0.6 at 25 frames/s."""
    spike_metres: float = 0.015
    """The same for its place, metres: the head's whole travel in a second of lively talk."""
    out_of_range: float = 0.02
    """How far an ARKit coefficient may lie outside 0 to 1."""
    out_of_range_other: float = 12.0
    """Largest size of another head model's coefficient: their units are standard deviations or
    radians, and 12 of them is no face."""
    rate: float = 0.02
    """Relative difference between the rate in dataset.json and that of the time stamps."""

    blurred: float = 0.35
    """Sharpness of a frame's face, relative to the clip's median, below which it is blurred."""
    blurred_frames: float = 0.1
    """Share of blurred frames that is worth a warning."""
    soft: float = 0.012
    """Contrast of details (deviation from a blur of 1.5 pixels at 256, over the mean brightness)
    below which a whole clip is out of focus. Sane clips: 0.03 and more."""
    overexposed: float = 0.08
    """Share of the face at full white that is worth a warning: a highlight covers 0.02."""
    dark: float = 0.1
    """Mean brightness of the face below which the clip is too dark, of full scale."""
    cut: float = 0.02
    """Share of the head (ears, scalp and face, by area of the mesh) outside the picture."""
    cut_frames: float = 0.1
    """Share of frames in which the head may be cut."""
    covered: float = 0.5
    """Reliability below which the mouth or an eye counts as covered."""
    covered_frames: float = 0.05
    """Share of covered frames that is worth a warning."""

    max_video_frames: int = 1500
    """Frames of the overlay video; longer clips show every second, third, ... frame: keeps the page
    below some 15 MB."""
    video_size: int = 320
    """Height of the overlay video, pixels."""

    def __post_init__(self) -> None:
        whole = {"size": (64, 2048), "max_shift": (1, 10), "max_video_frames": (2, 100_000),
                 "video_size": (64, 2048)}  # fmt: skip
        for name, (low, high) in whole.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name}: {value} must lie in {low} .. {high}")
        if self.video_size % 2:
            raise InputError(f"video_size: {self.video_size} must be even")
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name not in whole and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{entry.name}: {value} must be finite and not negative")
        for name in ("offset", "scale", "reprojection"):
            low, high = getattr(self, f"{name}_warning"), getattr(self, f"{name}_error")
            if low > high:
                raise InputError(f"{name}_warning: {low} exceeds {name}_error, {high}")
