"""The regressor in an avatar file, read without torch: it runs where no avatar is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cag_avatar.avatar.file_header import opened, protocol_of
from cag_avatar.tracking.code_regressor import CodeRegressor

__all__ = ["REGRESSOR", "load_regressor", "regressor_of"]

#: Prefix of its tensors, and its field of the header.
REGRESSOR = "regressor"


def load_regressor(path: Path | str) -> CodeRegressor | None:
    """The regressor of an avatar file without the avatar; None if it has none.

    Raises:
        InputError: no such file, not an avatar, or the regressor is damaged.
    """
    path = Path(path)
    start = REGRESSOR + "."
    with opened(path, "np") as (handle, body):
        names = [n for n in handle.keys() if n.startswith(start)]  # noqa: SIM118
        arrays = {name.removeprefix(start): handle.get_tensor(name) for name in names}
    return regressor_of(path, body, arrays)


def regressor_of(
    path: Path, body: dict[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> CodeRegressor | None:
    """The regressor of the arrays of a file with this header; None where there are none.

    Raises:
        InputError: they are not those of a regressor.
    """
    if not arrays:
        return None
    return CodeRegressor.of_tensors(arrays, protocol_of(body, REGRESSOR), str(path))
