"""Fields of another project's files, each checked: errors name the file, the field and the fix."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError

__all__ = ["Record", "frame_number", "one_camera", "require_file"]


def require_file(path: Path, fix: str) -> Path:
    """The path of a file that must be there. Raises InputError with the fix."""
    if not path.is_file():
        raise InputError(f"{path}: missing; {fix}")
    return path


def frame_number(name: str, file: Path) -> int:
    """The number that ends a file's stem: 12 of ``images/00012.png`` and of ``./train/f_0012``."""
    stem = re.sub(r"\.(png|jpe?g)$", "", name, flags=re.IGNORECASE)
    digits = re.search(r"(\d+)$", stem)
    if digits is None:
        raise InputError(
            f"{file}: field 'file_path': '{name}' does not end in a frame number; rename the file"
        )
    return int(digits.group(1))


def one_camera(matrices: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """The intrinsics that all frames share: [T, 4] (fx, fy, cx, cy, pixels) -> [4].

    Raises InputError when they differ by more than a tenth of a pixel: a dataset has one camera.
    """
    spread = np.abs(matrices - matrices[0]).max(1)
    worst = int(spread.argmax())
    if spread[worst] > 0.1:
        raise InputError(
            f"{where}: fx fy cx cy of frame {worst} differ from frame 0's by {spread[worst]:.1f} "
            "pixels; a dataset has one camera: import frames of one camera and zoom"
        )
    return np.asarray(np.median(matrices, axis=0))


class Record:
    """A dictionary of numbers that came from ``file``.

    Args:
        values: the dictionary.
        file: where it came from, for the errors.
        place: what to put before a field's name in the errors, such as ``frames[3].``.
        fix: what the user can do about a bad field.

    Raises:
        InputError: ``values`` is not a dictionary.
    """

    def __init__(self, values: Any, file: Path, place: str = "", fix: str = "") -> None:
        self.file = file
        self.place = place
        self.fix = fix or "export the dataset again"
        if not isinstance(values, Mapping):
            raise InputError(f"{file}: {place.rstrip('.') or 'content'} is not a table; {self.fix}")
        self._values = values

    @classmethod
    def from_json(cls, file: Path, fix: str) -> Record:
        """Read a JSON file. Raises InputError when it is missing or not a JSON object."""
        try:
            return cls(json.loads(file.read_text()), file, fix=fix)
        except OSError as error:
            raise InputError(f"{file}: missing; {fix}") from error
        except ValueError as error:
            raise InputError(f"{file}: not JSON ({error}); {fix}") from error

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def wrong(self, key: str, what: str) -> InputError:
        """The error of a bad field."""
        return InputError(f"{self.file}: field '{self.place}{key}' {what}; {self.fix}")

    def value(self, key: str) -> Any:
        """A field as it is. Raises InputError when it is missing."""
        if key not in self._values:
            raise self.wrong(key, "is missing")
        return self._values[key]

    def record(self, key: str) -> Record:
        """A table in the table."""
        return Record(self.value(key), self.file, f"{self.place}{key}.", self.fix)

    def records(self, key: str) -> list[Record]:
        """A list of tables. Raises InputError when it is missing or empty."""
        values = self.value(key)
        if not isinstance(values, (list, tuple)) or not values:
            raise self.wrong(key, "must be a list that is not empty")
        return [
            Record(item, self.file, f"{self.place}{key}[{i}].", self.fix)
            for i, item in enumerate(values)
        ]

    def text(self, key: str) -> str:
        """A text."""
        value = self.value(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, f"must be a text, not {type(value).__name__}")
        return value

    def number(self, key: str) -> float:
        """A finite number; an array of one element counts as one."""
        array = self._array(key)
        if array.size != 1:
            raise self.wrong(key, f"must be a number, has shape {list(array.shape)}")
        return float(array.reshape(()))

    def array(self, key: str, *shape: int) -> NDArray[np.float64]:
        """A finite array of a shape; -1 takes any length; leading axes of length 1 may be there."""
        array = self._array(key)
        have = array.shape
        while array.ndim > len(shape) and array.shape[0] == 1:
            array = array[0]
        fits = array.ndim == len(shape) and all(
            want in (-1, size) for want, size in zip(shape, array.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if n < 0 else str(n) for n in shape)
            raise self.wrong(key, f"has shape {list(have)}, expected [{wanted}]")
        return array

    def rigid(self, key: str, rows: int) -> NDArray[np.float64]:
        """A rigid transform of 3 or 4 rows -> [4, 4]. Raises InputError when it is not rigid."""
        matrix = np.eye(4)
        matrix[:3] = self.array(key, rows, 4)[:3]
        turn = matrix[:3, :3]
        if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-2) or np.linalg.det(turn) < 0:
            raise self.wrong(key, "is not a rotation and a translation")
        return matrix

    def _array(self, key: str) -> NDArray[np.float64]:
        value = self.value(key)
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError) as error:
            raise self.wrong(key, "must hold numbers") from error
        if not np.isfinite(array).all():
            raise self.wrong(key, "holds NaN or infinity")
        return array
