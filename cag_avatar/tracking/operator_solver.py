"""Solves an operator's shape in a process of its own, so that live frames go on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from cag_avatar.tracking.operator_shape import OperatorFrames, OperatorShape

__all__ = ["OperatorSolver"]

#: A process that has torch to import may take so long, seconds.
_PATIENCE = 120.0


class OperatorSolver:
    """One attempt, under way from its making on.

    Args:
        frames: of the operator.
    """

    def __init__(self, frames: OperatorFrames) -> None:
        self._frames = frames
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = False
        self._lock = threading.Lock()
        self._result: OperatorShape | None = None
        self._error: str | None = None
        self._thread = threading.Thread(target=self._run, name="calibration", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether there is a result, or never will be."""
        return not self._thread.is_alive()

    @property
    def error(self) -> str | None:
        """Why there is no result, once done."""
        return self._error

    def result(self) -> OperatorShape:
        """The shape; waits for it. Raises RuntimeError with the reason where there is none."""
        self._thread.join()
        if self._result is None:
            raise RuntimeError(self._error)
        return self._result

    def cancel(self) -> None:
        """End it; whoever waits for the result is told so."""
        with self._lock:
            self._cancelled = True
            if self._process is not None:
                self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._result = self._solve()
        except Exception as error:  # a thread's own would be lost
            self._error = f"{type(error).__name__}: {error}"

    def _solve(self) -> OperatorShape:
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with self._lock:
            if self._cancelled:
                raise RuntimeError("cancelled")
            process = self._process = subprocess.Popen(
                _command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **one_thread},
            )
        with process:  # waits for its end
            try:
                given, said = process.communicate(self._frames.to_bytes(), timeout=_PATIENCE)
            finally:
                process.kill()
        if process.returncode:
            lines = said.decode(errors="replace").strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"exit code {process.returncode}")
        return OperatorShape.from_bytes(given)


def _command() -> list[str]:
    """At a low priority: the live frames need the cores."""
    return ["nice", "-n", "10", sys.executable, "-m", "cag_avatar.tracking.operator_shape"]
