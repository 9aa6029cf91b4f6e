"""The estimator's calibration: loaded, measured on request, applied to every code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar_node.operator_calibration import (
    CalibrationRun,
    OperatorCalibration,
    calibration_path,
    load_calibration,
    save_calibration,
)

__all__ = ["OperatorCalibrator"]


class OperatorCalibrator:
    """Holds one operator's calibration.

    :meth:`request` may be called from another thread than the rest.

    Args:
        operator: name to load and save under; empty: not kept.
        folder: of the files; empty: the default one.
        tell: called with what happened.

    Raises:
        InputError: a name that is no file name, or a bad file.
    """

    def __init__(self, operator: str, folder: str, tell: Callable[[str], object]) -> None:
        self._operator = operator
        self._path: Path | None = calibration_path(operator, folder) if operator else None
        self._tell = tell
        self._run: CalibrationRun | None = None
        self._calibration = None if self._path is None else load_calibration(self._path)
        #: For diagnostics.
        self.state = "none" if self._calibration is None else "loaded"
        if self._calibration is not None:
            tell(f"calibration of {operator} loaded from {self._path}")

    @property
    def running(self) -> bool:
        """Whether one is being measured."""
        return self._run is not None

    def request(self, duration_s: float) -> str:
        """Begin to measure, replacing a measurement in progress; says what will happen."""
        self._run = CalibrationRun(duration_s)
        self.state = "running"
        kept = f"saved as {self._path}" if self._path is not None else "not kept: no operator_name"
        return (
            f"watching for {duration_s:g} s from the first face on: rest the face, then close the "
            f"eyes, raise and knit the brows, smile, pout, open the mouth; {kept}"
        )

    def process(
        self,
        code: NDArray[np.float32],
        now: float,
        *,
        source: str,
        operator: int,
        confidence: float,
        eyes_valid: bool,
        apply: bool,
    ) -> NDArray[np.float32]:
        """Take a code [52] of a face; returns the one to send, [52].

        Args:
            code: as estimated.
            now: its time, seconds.
            source: where it came from; a calibration of another source is not applied.
            operator: number of the operator.
            confidence: of the estimate.
            eyes_valid: of the estimate.
            apply: whether calibrated codes are wanted.
        """
        run = self._run
        if run is not None:
            try:
                found = run.add(
                    code, now, source=source, operator=operator, confidence=confidence,
                    eyes_valid=eyes_valid,
                )  # fmt: skip
            except InputError as error:
                self._finish(run, f"failed: {error}")
            else:
                if found is not None:
                    self._calibration = found
                    self._finish(run, self._keep(found, run.faces))
        calibration = self._calibration
        if not apply or calibration is None or calibration.source != source:
            return code
        return calibration.apply(code)

    def _keep(self, calibration: OperatorCalibration, faces: int) -> str:
        if self._path is None:
            return f"done, from {faces} faces; not kept: no operator_name"
        try:
            save_calibration(self._path, self._operator, calibration)
        except InputError as error:
            return f"done, from {faces} faces, but not saved: {error}"
        return f"done, from {faces} faces: {self._path}"

    def _finish(self, run: CalibrationRun, state: str) -> None:
        if self._run is run:  # not requested again meanwhile
            self._run = None
        self.state = state
        self._tell(f"calibration {state}")
