"""One cell of a comparison: an avatar trained and measured once, then kept.

``DIR/cells/KEY/`` holds ``avatar.cag``, ``cell.json`` (what it is), while it is trained
``training/`` (checkpoints), and ``evaluation_KEY/`` for each way of measuring it: metrics.json and
predictions, as ``evaluate`` writes them. The keys are hashes of all settings, of the dataset's
files, of the device and of the program's version; in the second, of the truth and of the code that
measures.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cag_avatar_training
from cag_avatar_training.config import RefinementConfig, TrainConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.evaluation import evaluate
from cag_avatar_training.lpips_metric import load_lpips
from cag_avatar_training.progress import progress_bars
from cag_avatar_training.synthetic.truth import Truth
from cag_avatar_training.trainer import train

import cag_avatar
from cag_avatar.avatar.file import load_avatar
from cag_avatar.avatar.model import Avatar
from cag_avatar.errors import InputError
from cag_avatar.files import replacing

__all__ = ["CellMaker", "CellResult", "files_digest"]

_log = logging.getLogger(__name__)

#: Code that decides how an avatar comes out: when it changes, kept avatars are used with a warning.
_TRAINING_SOURCE = (
    "avatar/*.py", "fusion/*.py", "gaussians/*.py", "head_models/*.py", "native/*.[ch]",
    "rendering/*.py", "*.py",
)  # fmt: skip
#: Code that decides the figures: when it changes, kept avatars are measured again.
_MEASURING_SOURCE = (
    "evaluation.py", "lpips_metric.py", "metrics.py", "perceptual.py", "refinement.py",
    "regions.py",
)  # fmt: skip


@dataclass(frozen=True)
class CellResult:
    """What is known of a finished cell."""

    folder: Path
    metrics: dict[str, Any]
    """What evaluate() returned."""
    pictures: Path
    """Folder with ``pred/%05d.png``."""

    def avatar(self) -> Avatar:
        """The trained avatar."""
        return load_avatar(self.folder / "avatar.cag")


class CellMaker:
    """Trains and measures avatars on one dataset, or takes what is there already.

    Args:
        folder: DIR/cells.
        dataset: to train and measure on.
        truth: of the synthetic video that it was made from.
    """

    def __init__(self, folder: Path, dataset: Dataset, truth: Truth | None) -> None:
        self._folder = folder
        self._dataset = dataset
        self._truth = truth
        self._data = files_digest(dataset.path)
        self._truth_data = "" if truth is None else files_digest(truth.folder)

    def folder(self, config: TrainConfig) -> Path:
        """Where the avatar of these settings is kept; the backend must be named, not "auto"."""
        return self._folder / _digest(
            {
                "config": dict(config.to_dict()),
                "data": self._data,
                "version": cag_avatar.__version__,
            }
        )

    def is_trained(self, config: TrainConfig) -> bool:
        """Whether the avatar is there."""
        return (self.folder(config) / "avatar.cag").is_file()

    def make(
        self,
        config: TrainConfig,
        refine: bool,
        refinement: RefinementConfig,
        every: int,
        show_progress: bool = True,
    ) -> CellResult:
        """Train (from a checkpoint, if one was left) and measure, each unless it is done.

        Args:
            config: all settings of the training.
            refine: see evaluate(), as the following.
            refinement: of held-out frames.
            every: of the held-out frames.
            show_progress: bars on the terminal.

        Raises:
            InputError: as train() and evaluate().
            KeyboardInterrupt: Ctrl-C; the next call goes on from the checkpoint.
        """
        folder = self.folder(config)
        path = folder / "avatar.cag"
        if path.is_file():
            self._check_source(folder)
        else:
            train(
                self._dataset, path, config, folder / "training", resume=True,
                show_progress=show_progress, live=False,
            )  # fmt: skip
            about = {
                "dataset": str(self._dataset.path),
                "config": dict(config.to_dict()),
                "version": cag_avatar.__version__,
                "source": _source_digest(_TRAINING_SOURCE),
            }
            _write_json(folder / "cell.json", about)
        shutil.rmtree(folder / "training", ignore_errors=True)
        measuring = {
            "refine": refine,
            "every": every,
            "truth": self._truth_data,
            "lpips": load_lpips() is not None,
            "source": _source_digest(_MEASURING_SOURCE),
        }
        if refine:
            measuring["refinement"] = asdict(refinement)
        pictures = folder / f"evaluation_{_digest(measuring)}"
        file = pictures / "metrics.json"
        if file.is_file():
            metrics = _read_json(file)
        else:
            with progress_bars(show_progress) as bars:
                task = bars.add_task("evaluate", total=None)

                def show(what: str, done: int, total: int) -> None:
                    bars.update(task, description=what, completed=done, total=total)

                metrics = evaluate(
                    load_avatar(path), self._dataset, pictures, config.split, refine, refinement,
                    backend=config.backend, every=every, show=show, truth=self._truth,
                )  # fmt: skip
            shutil.rmtree(pictures / "truth")  # the same in all cells, and in the dataset
        return CellResult(folder, metrics, pictures)

    def _check_source(self, folder: Path) -> None:
        try:
            source = _read_json(folder / "cell.json")["source"]
        except (InputError, KeyError):
            source = None  # stopped between the two files
        if source != _source_digest(_TRAINING_SOURCE):
            _log.warning(
                "%s: was trained by another state of the program's code; remove the folder to "
                "train it again",
                folder,
            )


def files_digest(folder: Path) -> str:
    """Hash of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@lru_cache(maxsize=2)
def _source_digest(files: tuple[str, ...]) -> str:
    """Hash of some of the program's source files, given as patterns in its two packages."""
    digest = hashlib.sha256()
    for folder in (*cag_avatar.__path__, *cag_avatar_training.__path__):
        for file in sorted({f for pattern in files for f in Path(folder).glob(pattern)}):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _write_json(path: Path, values: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: missing or damaged ({error}); remove its folder") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: is no JSON object; remove its folder")
    return values
