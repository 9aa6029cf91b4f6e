"""The header of the avatar file, which ``file.py`` describes; read without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_NAMES

__all__ = ["FORMAT", "FORMAT_VERSION", "REMAKE", "code_layout", "opened", "protocol_of"]

FORMAT = "cag_avatar"
FORMAT_VERSION = 1
#: How to get a file that is whole, for messages.
REMAKE = "make it again with 'cag-avatar train'"


@contextmanager
def opened(path: Path, framework: Literal["pt", "np"]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The handle of an avatar file's tensors (of torch or numpy), and its header.

    Raises:
        InputError: it is not an avatar file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; {REMAKE}")
    try:
        with safe_open(path, framework) as handle:
            metadata = handle.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(
                    f"{path}: not an avatar file; pass a .cag made by 'cag-avatar train'"
                )
            if metadata.get("version") != str(FORMAT_VERSION):
                raise InputError(
                    f"{path}: format version {metadata.get('version')}, this program reads "
                    f"{FORMAT_VERSION}; {REMAKE}"
                )
            yield handle, _body(path, metadata)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not an avatar file, or truncated ({error}); {REMAKE}") from error


def _body(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    try:
        body = json.loads(metadata["avatar"])
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: field 'avatar' of the header is not JSON; {REMAKE}") from error
    for name in ("config", "head_model", "expression_names", "sizes", "record"):
        if not isinstance(body, dict) or name not in body:
            raise InputError(f"{path}: field '{name}' of the header is missing; {REMAKE}")
    names = body["expression_names"]
    if not isinstance(names, list) or not names or len(set(map(str, names))) != len(names):
        raise InputError(f"{path}: field 'expression_names' must hold distinct names; {REMAKE}")
    layout = code_layout(tuple(names))
    if body.get("code_layout") != layout:
        raise InputError(
            f"{path}: code layout '{body.get('code_layout')}' is unknown, expected {layout}"
        )
    return body


def code_layout(names: tuple[str, ...]) -> str:
    """What the header calls a code of these coefficients."""
    return "ARKIT_52" if names == ARKIT_NAMES else "NAMED"


def protocol_of(body: dict[str, Any], field: str) -> dict[str, Any]:
    """A field of the header that tells how something was made; empty where it is not there."""
    protocol = body.get(field)
    return protocol if isinstance(protocol, dict) else {}
