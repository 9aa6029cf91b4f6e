"""Reads the data in a pickle without running anything that it names.

A pickle is a program that may call whatever it imports. This reader knows a few names, all of them
data: numpy arrays are rebuilt, scipy's sparse matrices and chumpy's expressions become inert
records that are evaluated here, and every other name is refused before it is looked up.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cag_avatar.errors import InputError

__all__ = ["as_array", "load_arrays"]


class _Refused(Exception):
    """The pickle names something that is not data."""


class _Record:
    """Stands in for an object: keeps its state and does nothing."""

    origin = ""
    state: Any = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        object.__setattr__(self, "state", state)


class _Call:
    """A callable that a pickle may use but not change."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused(f"change of {name}")

    def __setstate__(self, state: Any) -> None:
        raise _Refused("state of a function")


def _new_array(_subtype: object, _shape: object, _code: object) -> NDArray[Any]:
    return np.empty(0, np.int8)  # numpy's array state, which follows, says all


def _dtype(code: Any, *_: object) -> np.dtype[Any]:
    if not isinstance(code, (str, bytes)):
        raise _Refused(f"dtype {type(code).__name__}")
    text = code.decode("latin1") if isinstance(code, bytes) else code
    if len(text) > 16:
        raise _Refused(f"dtype {text[:16]}")
    return np.dtype(text)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(raw, bytes):
        raise _Refused("scalar that is not a number")
    return np.frombuffer(raw, dtype, count=1)[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused("_codecs.encode other than latin1")
    return text.encode("latin1")


def _rebuild(cls: Any, _base: object = None, _state: object = None) -> _Record:
    if not (isinstance(cls, type) and issubclass(cls, _Record)):
        raise _Refused("object that is not a record")
    return cls()


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any, *_: object) -> NDArray[Any]:
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise _Refused("buffer that is not of numbers")
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_ARRAY = {(module, "_reconstruct"): _new_array for module in _MULTIARRAY}
_SCALAR = {(module, "scalar"): _scalar for module in _MULTIARRAY}
_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    **_ARRAY,
    **_SCALAR,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("copy_reg", "_reconstructor"): _rebuild,
    ("copyreg", "_reconstructor"): _rebuild,
    ("collections", "OrderedDict"): lambda *items: collections.OrderedDict(*items),
}
_SPARSE = {
    (f"scipy.sparse{module}", f"{kind}_matrix")
    for kind in ("csc", "csr", "coo")
    for module in ("", f".{kind}", f"._{kind}")
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        key = (module, name)
        if key in _FUNCTIONS:
            return _Call(_FUNCTIONS[key])
        if key in (("numpy", "ndarray"), ("__builtin__", "object"), ("builtins", "object")):
            return _Record
        if key in _SPARSE or (module.split(".")[0] == "chumpy" and name.isidentifier()):
            # A class of its own for every name: whatever a pickle does to it stays in it.
            return type(name, (_Record,), {"origin": f"{module}.{name}"})
        raise _Refused(f"{module}.{name}")


def _read(stream: IO[bytes], path: Path) -> Any:
    try:
        return _Reader(stream, encoding="latin1").load()
    except _Refused as error:
        raise InputError(
            f"{path}: refused, the pickle wants to use '{error}', which is not data; nothing of it "
            "was run. Get the file from its makers again"
        ) from None
    except Exception as error:  # a damaged pickle fails in any way, none of them ours
        raise InputError(f"{path}: not a readable pickle ({error})") from error


def as_array(value: Any, path: Path, key: str) -> NDArray[Any]:
    """A numeric array from what a pickle held: array, number, sparse matrix, chumpy expression.

    Raises:
        InputError: it is none of these; the message names ``path`` and ``key``.
    """
    try:
        array = _evaluate(value)
    except _Refused as error:
        raise InputError(f"{path}: '{key}' is {error}, not an array of numbers") from None
    except Exception as error:
        raise InputError(f"{path}: '{key}' is damaged ({error})") from error
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise InputError(f"{path}: '{key}' is an array of {array.dtype}, not of numbers")
    return array


def _evaluate(value: Any) -> NDArray[Any]:
    if not isinstance(value, _Record):
        if isinstance(value, (np.ndarray, np.generic, int, float, list, tuple)):
            return np.asarray(value)
        raise _Refused(type(value).__name__)
    state, name = value.state, value.origin.rpartition(".")[2]
    if not isinstance(state, dict):
        raise _Refused(f"a {value.origin} without data")
    if name.endswith("_matrix"):
        return _dense(name, state)
    if name == "Ch" and "x" in state:
        return _evaluate(state["x"])
    if name == "Select" and {"a", "idxs"} <= set(state):
        picked = _evaluate(state["a"]).ravel()[_evaluate(state["idxs"]).astype(np.int64).ravel()]
        shape = state.get("preferred_shape")
        return picked if shape is None else picked.reshape(tuple(map(int, shape)))
    raise _Refused(f"a {value.origin}, which this reader does not evaluate,")


def _dense(name: str, state: dict[str, Any]) -> NDArray[Any]:
    shape = tuple(int(side) for side in state.get("_shape", state.get("shape", ())))
    if len(shape) != 2 or shape[0] * shape[1] > 50_000_000:
        raise _Refused(f"a sparse matrix of shape {shape}")
    data = np.asarray(state["data"])
    if name == "coo_matrix":
        row, column = state["coords"] if "coords" in state else (state["row"], state["col"])
        return sparse.coo_matrix((data, (row, column)), shape).toarray()
    matrix = sparse.csc_matrix if name == "csc_matrix" else sparse.csr_matrix
    result = matrix((data, state["indices"], state["indptr"]), shape)
    result.check_format(full_check=True)
    return result.toarray()


def load_arrays(path: Path) -> dict[str, Any]:
    """The dictionary in a ``.pkl`` or ``.npz`` file; pass its values to :func:`as_array`.

    Raises:
        InputError: the file is not there, is neither, does not hold a dictionary, or its pickle
            names something that is not data (which is not run).
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a file") from error
    if zipfile.is_zipfile(io.BytesIO(content)):
        return _read_npz(content, path)
    result = _read(io.BytesIO(content), path)
    if not isinstance(result, dict):
        raise InputError(f"{path}: holds a {type(result).__name__}, not a dictionary of arrays")
    return {str(key): value for key, value in result.items()}


def _read_npz(content: bytes, path: Path) -> dict[str, Any]:
    result: dict[str, Any] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                data = archive.read(member)
                result[member.removesuffix(".npy")] = _read_npy(data, path)
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable .npz file ({error})") from error
    return result


def _read_npy(data: bytes, path: Path) -> Any:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else (
        np.lib.format.read_array_header_2_0
    )  # fmt: skip
    _shape, _fortran, dtype = header(stream)
    if not dtype.hasobject:
        return np.load(io.BytesIO(data), allow_pickle=False)
    # An array of objects is a pickle: numpy.savez makes one of a sparse matrix.
    held = _read(stream, path)
    return held.item() if isinstance(held, np.ndarray) and held.size == 1 else held
