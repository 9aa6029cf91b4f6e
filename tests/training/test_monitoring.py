"""Preview, TensorBoard scalars, and stopping on a plateau."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from cag_avatar_training.config import (
    EarlyStopConfig,
    LossConfig,
    RefinementConfig,
    TrainConfig,
)
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.monitoring import (
    PlateauWatch,
    Preview,
    TensorBoardScalars,
    take_validation_frames,
)
from cag_avatar_training.trainer import Trainer, train

from cag_avatar.errors import InputError, MissingDependencyError
from tests.conftest import TINY_SIZE, tiny_config

CONFIG = TrainConfig(
    avatar=tiny_config(),
    iterations=20,
    sizes=((0.0, TINY_SIZE // 2), (0.5, TINY_SIZE)),
    loss=LossConfig(perceptual_weight=0),
    refinement=RefinementConfig(at=()),
    backend="cpu",
)
STOPPING = replace(CONFIG, early_stop=EarlyStopConfig(patience=2, every=2, frames=3, gain=10.0))


def parameters(trainer: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.avatar.parameters()]


def test_validation_frames_come_out_of_the_training_frames() -> None:
    frames = list(range(100, 200))
    rest, chosen = take_validation_frames(frames, EarlyStopConfig(patience=1, frames=4))
    assert chosen == [120, 140, 159, 179]
    assert rest == [f for f in frames if f not in chosen]
    assert take_validation_frames(frames, EarlyStopConfig()) == (frames, [])
    with pytest.raises(InputError, match=r"early_stop\.frames: 8 of 10"):
        take_validation_frames(frames[:10], EarlyStopConfig(patience=1, frames=8))


def test_training_stops_on_a_plateau(tiny_dataset: Dataset) -> None:
    """No step gains 10 dB: measured at 10, 12 and 14, it stops two measurements after the first."""
    trainer = Trainer(tiny_dataset, STOPPING)
    trainer.run(show_progress=False)
    assert trainer.iteration == 14
    assert trainer.plateau is not None
    assert [at for at, _ in trainer.plateau.history] == [10, 12, 14]
    assert trainer.protocol()["iterations"] == 14
    assert trainer.protocol()["validation_frames"] == trainer.plateau.frames
    assert not set(trainer.plateau.frames) & {*trainer.frames, *trainer.held_out}


def test_a_gain_keeps_it_going() -> None:
    watch = PlateauWatch([0], EarlyStopConfig(patience=2, gain=0.1), None)
    for step, (value, stalled) in enumerate(
        [(20.0, False), (20.05, False), (20.2, False), (20.1, False), (20.25, True)]
    ):
        watch.history.append((step, value))
        assert watch.stalled() == stalled, value


def test_stopped_training_resumes_to_the_same_end(tiny_dataset: Dataset, tmp_path: Path) -> None:
    whole = Trainer(tiny_dataset, STOPPING)
    whole.run(show_progress=False)
    first = Trainer(tiny_dataset, STOPPING, tmp_path)
    plain = first.step

    def step() -> float:
        if first.iteration == 13:
            raise KeyboardInterrupt
        return plain()

    first.step = step  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.run(show_progress=False)
    second = Trainer(tiny_dataset, STOPPING, tmp_path)
    second.resume()
    second.run(show_progress=False)
    assert second.plateau is not None
    assert whole.plateau is not None
    assert second.plateau.history == whole.plateau.history
    third = Trainer(tiny_dataset, STOPPING, tmp_path)
    third.resume()
    third.run(show_progress=False)  # it had ended
    assert third.iteration == second.iteration == whole.iteration
    (tmp_path / "validation.json").write_text("{")
    with pytest.raises(InputError, match=r"validation\.json: damaged"):
        Trainer(tiny_dataset, STOPPING, tmp_path).resume()


def test_preview_shows_truth_and_avatar_and_changes_nothing(
    tiny_dataset: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "preview.png"
    watched, plain = Trainer(tiny_dataset, CONFIG), Trainer(tiny_dataset, CONFIG)
    watched.run(show_progress=False, observers=[Preview(path, every=3)])
    plain.run(show_progress=False)
    assert all(torch.equal(a, b) for a, b in zip(*map(parameters, (watched, plain)), strict=True))
    picture = cv2.imread(str(path))[..., ::-1]
    assert picture.shape == (TINY_SIZE, 2 * TINY_SIZE, 3)
    codes = tiny_dataset.tracking.codes[plain.frames]
    index = plain.frames[int(np.linalg.norm(codes - codes.mean(0), axis=1).argmax())]
    truth = tiny_dataset.frame(index).target(torch.ones(3)).numpy() * 255
    assert np.abs(picture[:, :TINY_SIZE] - truth).max() <= 0.51
    assert np.abs(picture[:, TINY_SIZE:].astype(float) - truth).mean() < 60
    with pytest.raises(InputError, match="preview-every"):
        Preview(path, 0)


class Writer:
    """Stands in for TensorBoard's."""

    entries: ClassVar[list[tuple[str, float, int]]] = []
    closed: ClassVar[bool] = False

    def __init__(self, folder: str) -> None:
        Writer.entries, Writer.closed = [], False

    def add_scalar(self, name: str, value: float, iteration: int) -> None:
        Writer.entries.append((name, value, iteration))

    def close(self) -> None:
        Writer.closed = True


def test_tensorboard_scalars(
    tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    train(
        tiny_dataset, None, STOPPING, show_progress=False,
        observers=[TensorBoardScalars(tmp_path, every=5)],
    )  # fmt: skip
    names = [(name, at) for name, _, at in Writer.entries]
    assert [at for name, at in names if name == "loss"] == [5, 10]
    assert [at for name, at in names if name == "validation_psnr"] == [10, 12, 14]
    assert all(np.isfinite(value) for _, value, _ in Writer.entries)
    assert Writer.closed


def test_tensorboard_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r"cag_avatar\[tensorboard\]"):
        TensorBoardScalars(tmp_path)
