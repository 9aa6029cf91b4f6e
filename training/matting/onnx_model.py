"""Networks that users bring as ONNX files, checked before they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError, MissingDependencyError

__all__ = ["FIRST", "OnnxModel", "Port", "load_onnx"]

#: Stands for the first input or output.
FIRST = ""

_DTYPES: dict[str, type[np.floating[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


@dataclass(frozen=True)
class Port:
    """What an input or output must be: 32 or 16 bit floating point, of this shape."""

    shape: tuple[int | str, ...]
    """A number must be met or left open by the model; a name stands for any number."""
    half: bool = True
    """Whether 16 bit will do."""

    def __str__(self) -> str:
        kind = "float" + (" or float16" if self.half else "")
        return f"{kind} [{', '.join(map(str, self.shape))}]"

    def fits(self, kind: str, shape: Sequence[Any] | None) -> bool:
        """Whether a port of the model, as onnxruntime describes it, is like this."""
        if kind not in _DTYPES or (kind == "tensor(float16)" and not self.half):
            return False
        if not shape:  # not told by the file: it shows when it runs
            return True
        return len(shape) == len(self.shape) and all(
            not isinstance(have, int) or not isinstance(want, int) or have == want
            for have, want in zip(shape, self.shape, strict=True)
        )


class OnnxModel:
    """A checked network; made by :func:`load_onnx`."""

    def __init__(self, path: Path, field: str, session: Any) -> None:
        self.path = path
        self._field = field
        self._session = session
        self.inputs = {port.name: port for port in session.get_inputs()}
        self.outputs = {port.name: port for port in session.get_outputs()}

    def dtype(self, name: str) -> type[np.floating[Any]]:
        """Type of an input."""
        return _DTYPES[self.inputs[name].type]

    def run(self, outputs: Sequence[str], values: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Evaluate some outputs. Raises InputError, naming the file, when the network fails."""
        try:
            return list(self._session.run(list(outputs), dict(values)))
        except Exception as error:  # onnxruntime's exceptions have no common public base
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in values.items())
            raise InputError(
                f"{self._field}: {self.path}: the network failed on {shapes}: {reason}"
            ) from error


def load_onnx(
    path: Path | str,
    field: str,
    inputs: Mapping[str, Port],
    outputs: Mapping[str, Port],
    fix: str,
    threads: int = 1,
) -> OnnxModel:
    """Open an ONNX file and check its inputs and outputs.

    Args:
        path: the file.
        field: of the settings that names it, for messages.
        inputs: what the network must take, all of it and nothing else; the name FIRST stands for
            the first input, whatever its name.
        outputs: what it must give; it may give more. FIRST likewise.
        fix: which file to bring instead, for messages.
        threads: that one evaluation may use.

    Raises:
        InputError: no such file, not ONNX, or an input or output that is missing or different.
        MissingDependencyError: onnxruntime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{field}: {path}: no such file; {fix}")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", field, "training") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's exceptions have no common public base
        raise InputError(f"{field}: {path}: not an ONNX file that runs here; {fix}") from error
    model = OnnxModel(path, field, session)
    for kind, wanted, found in (
        ("input", inputs, model.inputs),
        ("output", outputs, model.outputs),
    ):
        for wanted_name, port in wanted.items():
            name = next(iter(found), FIRST) if wanted_name == FIRST else wanted_name
            if name not in found:
                raise InputError(
                    f"{field}: {path}: {kind} '{name}' ({port}) is missing, it has "
                    f"{', '.join(found) or 'none'}; {fix}"
                )
            have = found[name]
            if not port.fits(have.type, have.shape):
                shape = ", ".join(map(str, have.shape or ()))
                raise InputError(
                    f"{field}: {path}: {kind} '{name}' is {have.type} [{shape}], expected {port}; "
                    f"{fix}"
                )
    extra = [name for name in model.inputs if name not in inputs]
    if FIRST in inputs:
        extra = extra[1:]
    if extra:
        raise InputError(f"{field}: {path}: input '{extra[0]}' is not known; {fix}")
    return model
