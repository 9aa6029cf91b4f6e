"""Errors that a user can cause and mend."""

from __future__ import annotations

__all__ = ["InputError", "MissingDependencyError"]


class InputError(ValueError):
    """Bad input: the message is one line that names the file or field, and the fix.

    The command line prints it and exits with code 2.
    """


class MissingDependencyError(InputError):
    """An optional library is absent: the message names the extra that installs it."""

    def __init__(self, library: str, purpose: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs '{library}', which is not installed: "
            f"run pip install 'cag_avatar[{extra}]'"
        )
