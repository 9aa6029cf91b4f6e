"""Watching a training: a preview picture, TensorBoard scalars, and stopping on a plateau."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
import torch
from cag_avatar_training.config import EarlyStopConfig
from cag_avatar_training.metrics import psnr
from torch import Tensor

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.files import replacing

if TYPE_CHECKING:
    from cag_avatar_training.trainer import Trainer

__all__ = [
    "PlateauWatch",
    "Preview",
    "TensorBoardScalars",
    "TrainingObserver",
    "render_frame",
    "take_validation_frames",
]

_log = logging.getLogger(__name__)


class TrainingObserver(Protocol):
    """Told of the progress of a training; must not change it."""

    def after_step(self, trainer: Trainer, loss: float) -> None:
        """Called after every iteration; ``trainer.iteration`` counts those done."""

    def close(self) -> None:
        """Called when the training ends, for whatever reason."""


def render_frame(trainer: Trainer, index: int, size: int) -> tuple[Tensor, Tensor]:
    """A frame as the avatar is now, and the truth: two [H, W, 3], the height ``size`` pixels."""
    frame = trainer.dataset.frame(index, size, trainer.device)
    with torch.no_grad():
        g = trainer.gaussians(index, trainer.raw_offsets(index))
        image = trainer.rasterizer.render(
            g.means, g.quaternions, g.scales, g.opacities, g.colors, trainer.view, frame.camera,
            trainer.background,
        ).image  # fmt: skip
    return image, frame.target(trainer.background)


class Preview:
    """Writes a picture, truth left and avatar right, every so many iterations.

    It shows the training frame whose expression code is farthest from their mean.

    Args:
        path: PNG file.
        every: iterations between two pictures.
    """

    def __init__(self, path: Path, every: int = 100) -> None:
        if every < 1:
            raise InputError(f"preview-every: {every} must be at least 1")
        self._path = path
        self._every = every

    def after_step(self, trainer: Trainer, loss: float) -> None:
        """Write the picture if it is due."""
        if trainer.iteration % self._every and trainer.iteration != trainer.config.iterations:
            return
        codes = trainer.tracked.codes[trainer.frames]
        index = trainer.frames[int((codes - codes.mean(0)).norm(dim=1).argmax())]
        size = trainer.config.size_at(trainer.iteration - 1)
        image, target = render_frame(trainer, index, size)
        pair = torch.cat([target, image.clamp(0, 1)], 1).cpu().numpy()
        with replacing(self._path) as temporary:
            picture = cv2.cvtColor((pair * 255 + 0.5).astype(np.uint8), cv2.COLOR_RGB2BGR)
            if not cv2.imwrite(str(temporary), picture):
                raise InputError(f"{self._path}: cannot be written; is the disk full?")

    def close(self) -> None:
        """Nothing is open."""


class TensorBoardScalars:
    """Writes loss, network rate, speed and, where frames are kept for it, validation PSNR.

    Args:
        folder: for the event files.
        every: iterations between two entries.

    Raises:
        MissingDependencyError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, every: int = 10) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError(
                "tensorboard", "writing TensorBoard scalars", "tensorboard"
            ) from error
        self._writer = SummaryWriter(str(folder))
        self._every = every
        self._since = time.perf_counter()
        self._measured = 0

    def after_step(self, trainer: Trainer, loss: float) -> None:
        """Write what is due."""
        iteration = trainer.iteration
        if iteration % self._every == 0:
            now = time.perf_counter()
            self._write("loss", loss, iteration)
            self._write("network_rate", trainer.optimizer.param_groups[0]["lr"], iteration)
            self._write("iterations_per_second", self._every / (now - self._since), iteration)
            self._since = now
        if trainer.plateau is not None:
            history = trainer.plateau.history
            for at, value in history[self._measured :]:
                self._write("validation_psnr", value, at)
            self._measured = len(history)

    def _write(self, name: str, value: float, iteration: int) -> None:
        self._writer.add_scalar(name, value, iteration)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Flush the files."""
        self._writer.close()  # type: ignore[no-untyped-call]


def take_validation_frames(
    frames: Sequence[int], config: EarlyStopConfig
) -> tuple[list[int], list[int]]:
    """Part training frames into those trained on and those that decide when to stop.

    The second are spread evenly. Held-out frames have no part in it: figures measured on them stay
    figures of frames that the training has not seen.

    Raises:
        InputError: too few frames are left to train on.
    """
    if config.patience == 0:
        return list(frames), []
    places = np.unique(np.linspace(0, len(frames) - 1, config.frames + 2).round().astype(int)[1:-1])
    chosen = {frames[place] for place in places}
    rest = [frame for frame in frames if frame not in chosen]
    if len(rest) < len(frames) / 2:
        raise InputError(
            f"early_stop.frames: {config.frames} of {len(frames)} training frames is over half"
        )
    return rest, sorted(chosen)


class PlateauWatch:
    """Says when the validation frames do not gain any more.

    Args:
        frames: to measure on; not trained on.
        config: when to measure and when to give up.
        file: keeps the measurements, so that a resumed training stops where the whole one would
            have; None keeps none.
    """

    def __init__(self, frames: Sequence[int], config: EarlyStopConfig, file: Path | None) -> None:
        self.frames = list(frames)
        self._config = config
        self._file = file
        self.history: list[tuple[int, float]] = []

    def resume(self, iteration: int) -> None:
        """Take up what was measured up to an iteration. Raises InputError on a damaged file."""
        if self._file is None or not self._file.is_file():
            return
        try:
            entries: list[Any] = json.loads(self._file.read_text())
            kept = [(int(at), float(value)) for at, value in entries]
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{self._file}: damaged ({error}); start afresh with --no-resume"
            ) from error
        self.history = [entry for entry in kept if entry[0] <= iteration]

    def after_step(self, trainer: Trainer) -> bool:
        """Measure if it is due; whether to stop."""
        config, settings = self._config, trainer.config
        last_stage = settings.sizes[-1][0] * settings.iterations
        if trainer.iteration % config.every or trainer.iteration < last_stage:
            return False
        size = settings.size_at(trainer.iteration - 1)
        found = float(np.mean([psnr(*render_frame(trainer, i, size)) for i in self.frames]))
        self.history.append((trainer.iteration, found))
        if self._file is not None:
            with replacing(self._file) as temporary:
                temporary.write_text(json.dumps(self.history) + "\n")
        if self.stalled():
            _log.info(
                "stopping at iteration %d: no gain on the validation frames in %d measurements",
                trainer.iteration,
                config.patience,
            )
            return True
        return False

    def stalled(self) -> bool:
        """Whether the last ``patience`` measurements stayed below the best before + ``gain``."""
        patience = self._config.patience
        values = [value for _, value in self.history]
        if len(values) <= patience:
            return False
        return max(values[-patience:]) < max(values[:-patience]) + self._config.gain
