"""Types of the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from cag_avatar.fusion.factory import FusionName as Fusion

__all__ = ["Backend", "Fusion", "OptionalOutputPath", "OutputPath", "PathArgument"]

#: A path given by position.
PathArgument = Annotated[Path, tyro.conf.Positional]
#: A path given as ``--output`` or ``-o``.
OutputPath = Annotated[Path, tyro.conf.arg(aliases=["-o"])]
#: The same where the command has a place of its own.
OptionalOutputPath = Annotated[Path | None, tyro.conf.arg(aliases=["-o"])]

Backend = Literal["auto", "cpu", "cuda", "torch"]
