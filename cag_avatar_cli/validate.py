"""``cag-avatar validate``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import tyro
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.progress import bar
from cag_avatar_training.validation import (
    EmbeddedVideo,
    ValidationConfig,
    ValidationResult,
    overlay_video,
    validate,
    write_page,
)
from cag_avatar_training.validation.findings import counted, frames_in_words

from cag_avatar.files import replacing
from cag_avatar.head_models import load_head_model
from cag_avatar_cli.options import PathArgument


def command(
    dataset: PathArgument,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    config: ValidationConfig = ValidationConfig(),  # noqa: B008
) -> int:
    """Say in plain words what is wrong with a dataset; exit code 0 without errors, 1 with.

    Args:
        dataset: folder made by preprocess or import.
        output: HTML page to write: findings, overlay video, curves, coverage.
        json_file: also write the findings as JSON.
        config: thresholds.
    """
    opened = Dataset.open(dataset)
    with bar("validate") as progress:
        if output is None:
            result = validate(opened, config, progress=progress)
        else:
            model = load_head_model(opened.info.head_model)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "overlay.mp4"
                with overlay_video(file, len(opened), opened.info, model, config) as video:
                    result = validate(opened, config, model, video, progress)
                shown = EmbeddedVideo(file, video.step, video.rate)
                write_page(output, f"Dataset {opened.path.name}", result, shown)
    _print(result)
    if json_file is not None:
        with replacing(json_file) as temporary:
            temporary.write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    if output is not None:
        print(f"page: {output}")
    return 1 if result.errors else 0


def _print(result: ValidationResult) -> None:
    for finding in result.findings:
        print(f"{finding.severity}: {finding.what} [{frames_in_words(finding.frames)}]")
        print(f"    {finding.advice}")
    for entry in result.not_checked:
        print(f"not checked: {entry.check}: {entry.why}")
    print(f"{counted(result.errors, 'error')}, {counted(result.warnings, 'warning')}")
