"""Neutral and range of one operator: measured, applied to their codes, kept as a file."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.avatar.driver import CodeLayout, DriverProfile, measure_driver
from cag_avatar.errors import InputError
from cag_avatar.files import replacing
from cag_avatar.head_models.arkit import ARKIT_NAMES

__all__ = [
    "CalibrationRun",
    "OperatorCalibration",
    "calibration_path",
    "default_calibration_folder",
    "load_calibration",
    "save_calibration",
]

_FORMAT, _VERSION = "cag_avatar operator calibration", 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,63}")
#: A coefficient counts as shown to its full when it moved by so much from neutral.
_SHOWN = 0.5
#: Neutral is at most 0.4 and a range at least 0.5, so no coefficient grows by more than this.
_LARGEST_GAIN = 2.0
#: Fewer faces than this say nothing about a range.
_LEAST_FACES = 20
#: Estimates below this confidence are not measured.
_LEAST_CONFIDENCE = 0.3

_COUNT = len(ARKIT_NAMES)
_LAYOUT = CodeLayout(ARKIT_NAMES, np.zeros(_COUNT), np.zeros(_COUNT), np.ones(_COUNT))


@dataclass(frozen=True)
class OperatorCalibration:
    """How one operator's face rests and how far it goes, in codes of one source.

    Raises:
        InputError: not 52 numbers, neutral outside [0, 0.4], or reach outside [neutral, 1].
    """

    neutral: NDArray[np.float64]
    """Code of the face at rest, [52]; gaze is 0."""
    reach: NDArray[np.float64]
    """Largest coefficients shown, [52]."""
    source: str = "fit"
    """Where the codes came from: ``fit`` or ``regressor``; they rest differently."""
    _scale: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, values in (("neutral", self.neutral), ("reach", self.reach)):
            if np.shape(values) != (_COUNT,) or not np.isfinite(values).all():
                raise InputError(f"calibration: {name} must be {_COUNT} finite numbers")
        if not ((self.neutral >= 0) & (self.neutral <= 0.4 + 1e-9)).all():
            raise InputError("calibration: neutral must lie in 0 .. 0.4")
        if not ((self.reach >= self.neutral - 1e-9) & (self.reach <= 1 + 1e-9)).all():
            raise InputError("calibration: reach must lie between neutral and 1")
        # A coefficient that was not shown to its full keeps 1 as its end. Left and right share it.
        gain = DriverProfile(self.neutral, self.reach).gain(
            _LAYOUT, self.neutral, np.ones(_COUNT), _LARGEST_GAIN, least=_SHOWN
        )
        object.__setattr__(self, "_scale", gain / (1 - self.neutral))

    def apply(self, code: NDArray[np.floating]) -> NDArray[np.float32]:
        """A code [52] with this operator's neutral at 0 and their full movement at 1.

        Gaze coefficients, and the far end of those that the operator did not show, stay.
        """
        return np.clip((code - self.neutral) * self._scale, 0.0, 1.0).astype(np.float32)


class CalibrationRun:
    """Collects the codes of one operator for some seconds. Time is passed in (seconds).

    Args:
        duration_s: seconds from the first face on.

    Raises:
        InputError: the duration is not positive.
    """

    def __init__(self, duration_s: float) -> None:
        if not duration_s > 0:
            raise InputError(f"calibration over {duration_s} s: must be positive")
        self._duration = duration_s
        self._codes: list[NDArray[np.float64]] = []
        self._started = math.nan
        self._key: tuple[str, int] | None = None

    @property
    def faces(self) -> int:
        """Faces collected."""
        return len(self._codes)

    def add(
        self,
        code: NDArray[np.floating],
        now: float,
        *,
        source: str,
        operator: int,
        confidence: float,
        eyes_valid: bool,
    ) -> OperatorCalibration | None:
        """Take a code [52] of a face; returns the calibration once the time is over.

        Uncertain ones are passed over. Another operator, another source of codes, or a clock that
        goes back starts the collection anew.

        Raises:
            InputError: the time is over and too few faces were certain.
        """
        if self._key != (source, operator) or not now >= self._started:
            self._codes, self._key, self._started = [], (source, operator), now
        if eyes_valid and confidence >= _LEAST_CONFIDENCE:
            self._codes.append(np.asarray(code, np.float64))
        if now - self._started < self._duration:
            return None
        if len(self._codes) < _LEAST_FACES:
            raise InputError(
                f"calibration: {len(self._codes)} certain faces in {self._duration:g} s, at least "
                f"{_LEAST_FACES} are needed: look into the camera, in good light, with open view "
                "of both eyes"
            )
        driver = measure_driver(np.clip(np.stack(self._codes), 0.0, 1.0), _LAYOUT)
        assert driver.reach is not None
        return OperatorCalibration(driver.rest, np.maximum(driver.reach, driver.rest), source)


def default_calibration_folder() -> Path:
    """``cag_avatar/operators`` in the user's data folder (XDG Base Directory Specification)."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "cag_avatar" / "operators"


def calibration_path(operator: str, folder: str | Path = "") -> Path:
    """File of an operator's calibration; an empty folder is the default one.

    Raises:
        InputError: a name that is no plain file name.
    """
    if not _NAME.fullmatch(operator):
        raise InputError(
            f"operator_name '{operator}': give up to 64 letters, digits, spaces, '_', '.' or '-', "
            "the first a letter or digit"
        )
    place = Path(folder).expanduser() if folder else default_calibration_folder()
    return place / f"{operator}.json"


def save_calibration(path: Path, operator: str, calibration: OperatorCalibration) -> None:
    """Write a calibration as JSON. Raises InputError when the folder cannot be written."""
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "operator": operator,
        "source": calibration.source,
        "names": list(ARKIT_NAMES),
        "neutral": [round(float(value), 6) for value in calibration.neutral],
        "reach": [round(float(value), 6) for value in calibration.reach],
    }
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"calibration {path} cannot be written: {error.strerror}") from error


def load_calibration(path: Path) -> OperatorCalibration | None:
    """Read a calibration; None when there is no such file.

    Raises:
        InputError: not a calibration, of another version or other coefficients, or bad numbers.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"calibration {path} cannot be read ({error}): calibrate again") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(f"calibration {path} is no operator calibration: remove it")
    if content.get("version") != _VERSION or content.get("names") != list(ARKIT_NAMES):
        raise InputError(
            f"calibration {path} is of version {content.get('version')}, or of other coefficients "
            f"than this one's ({_VERSION}): calibrate again"
        )
    source = content.get("source")
    if source not in ("fit", "regressor"):
        raise InputError(f"calibration {path}: source {source!r} is not 'fit' or 'regressor'")
    try:
        return OperatorCalibration(_numbers(content, "neutral"), _numbers(content, "reach"), source)
    except InputError as error:
        raise InputError(f"calibration {path}: {error}: calibrate again") from error


def _numbers(content: dict[str, Any], key: str) -> NDArray[np.float64]:
    try:
        return np.asarray(content.get(key), np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{key} is not a list of numbers") from error
