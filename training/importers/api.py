"""Opening the datasets of other projects: one function for all formats."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.importers.convert import write_capture
from cag_avatar_training.importers.flashavatar import read_flashavatar
from cag_avatar_training.importers.foreign import ForeignCapture
from cag_avatar_training.importers.imavatar import read_imavatar
from cag_avatar_training.importers.insta import read_insta
from cag_avatar_training.importers.nerface import read_nerface
from cag_avatar_training.importers.retrack import track_capture
from cag_avatar_training.importers.vhap import read_vhap
from cag_avatar_training.preprocess import PreprocessConfig

from cag_avatar.errors import InputError
from cag_avatar.head_models import HeadModel, load_head_model
from cag_avatar.head_models.flame import FlameHeadModel
from cag_avatar.head_models.flame_file import load_flame
from cag_avatar.head_models.library import head_model_folders
from cag_avatar.head_models.storage import save_head_model

__all__ = ["Format", "ImportConfig", "import_dataset", "read_capture"]

_LOG = logging.getLogger(__name__)

Format = Literal["flashavatar", "insta", "nerface", "imavatar", "vhap"]

#: Which formats take which option.
_TAKES: dict[str, tuple[str, ...]] = {
    "checkpoints": ("flashavatar", "insta"),
    "camera": ("vhap",),
    "test_frames": ("flashavatar", "insta", "imavatar"),
    "size": ("nerface",),
}


@dataclass(frozen=True)
class ImportConfig:
    """How another project's dataset is read."""

    head_model: str | Path | None = None
    """FLAME, by name or file, as the capture was tracked with it; for nerface the head model to
    track with, by default the bundled one."""
    fps: float = 25.0
    """Frames per second of the capture: no format tells."""
    checkpoints: Path | None = None
    """Folder of metrical-tracker's .frame files (flashavatar, insta)."""
    camera: int | None = None
    """Camera to import of several (vhap)."""
    test_frames: int | None = None
    """Frames held out at the end (flashavatar, insta, imavatar); by default the format's own."""
    size: int | None = None
    """Width and height of the dataset's images, pixels (nerface); by default the shorter side."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and 0 < self.fps <= 1000):
            raise InputError(f"fps: {self.fps} must be positive and at most 1000")
        if self.test_frames is not None and self.test_frames < 0:
            raise InputError(f"test_frames: {self.test_frames} must not be negative")


def read_capture(name: Format, source: Path | str, config: ImportConfig) -> ForeignCapture:
    """Read a folder in one of the formats.

    Raises:
        InputError: an unknown format, an option that the format has no use for, or what its reader
            finds wrong.
    """
    source = Path(source)
    if name not in get_args(Format):
        raise InputError(f"format: unknown '{name}', choose from {', '.join(get_args(Format))}")
    for option, formats in _TAKES.items():
        if getattr(config, option) is not None and name not in formats:
            raise InputError(f"{option}: has no meaning for {name}, only for {', '.join(formats)}")
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the folder of the capture")
    if name == "flashavatar":
        return read_flashavatar(source, config.checkpoints, config.test_frames)
    if name == "insta":
        return read_insta(source, config.checkpoints, config.test_frames)
    if name == "nerface":
        return read_nerface(source)
    if name == "imavatar":
        return read_imavatar(source, config.test_frames)
    return read_vhap(source, config.camera)


def import_dataset(
    name: Format, source: Path | str, out: Path | str, config: ImportConfig | None = None
) -> Dataset:
    """Open another project's dataset as one of ours.

    Nothing is left at ``out`` unless the whole succeeds.

    Args:
        name: the format.
        source: folder of the capture.
        out: dataset folder to write; a dataset already there is replaced.
        config: settings.

    Raises:
        InputError: what is wrong with the capture, with the file, the field and the fix.
    """
    settings = config or ImportConfig()
    capture = read_capture(name, source, settings)
    if capture.flame is None:
        shorter = min(capture.camera.width, capture.camera.height)
        size = settings.size or min(max(shorter - shorter % 2, 128), 2048)
        tracker = PreprocessConfig(
            size=size,
            head_model=str(settings.head_model or "anny"),
            min_seconds=0.0,
            progress=settings.progress,
        )
        return track_capture(capture, out, settings.fps, tracker)
    if settings.head_model is None:
        raise InputError(
            f"head_model: {name} holds FLAME's parameters; name the FLAME model with --head-model "
            "(see docs/importing.md on where to get it)"
        )
    model = _flame(settings.head_model, name)
    return write_capture(capture, model, out, settings.fps, settings.progress)


def _flame(which: str | Path, name: Format) -> FlameHeadModel:
    """The FLAME model of a name, a head model file, or FLAME's own .pkl or .npz.

    A model from FLAME's own file is put where head models are found by name: the dataset names it.
    """
    path = Path(which)
    if path.suffix in (".pkl", ".npz"):
        model = load_flame(path)
        target = head_model_folders()[0] / f"{model.name}.safetensors"
        if not target.is_file():
            save_head_model(target, model)
            _LOG.info("%s: head model '%s' kept as %s", path, model.name, target)
            return model
        # The one that is there may have eyelids and regions from files of their own.
        found = _checked(load_head_model(model.name), name)
        if not all(
            torch.equal(getattr(found, key), getattr(model, key))
            for key in ("vertices", "faces", "identity_basis", "expression_basis")
        ):
            raise InputError(
                f"{path}: another head model is called '{model.name}' ({target}); rename the file"
            )
        return found
    return _checked(load_head_model(which), name)


def _checked(model: HeadModel, name: Format) -> FlameHeadModel:
    if not isinstance(model, FlameHeadModel):
        raise InputError(
            f"head_model: '{model.name}' is not FLAME, {name} holds FLAME's parameters; name a "
            "FLAME model"
        )
    return model
