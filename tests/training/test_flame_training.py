"""A dataset on FLAME goes through opening, training and refinement."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cag_avatar_training.config import LossConfig, RefinementConfig, TrainConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.trainer import Trainer, train

from cag_avatar.avatar.file import load_avatar
from cag_avatar.errors import InputError
from cag_avatar.head_models.flame_file import load_flame
from cag_avatar.head_models.library import FOLDER_VARIABLE
from cag_avatar.head_models.storage import save_head_model
from tests.cag_avatar.head_models.flame_files import flame_arrays, write_flame_pickle
from tests.conftest import TINY_SIZE, tiny_config


@pytest.fixture
def flame_dataset(tiny_dataset_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny dataset's pictures, tracked with a made-up FLAME (badly: its head is an egg)."""
    from safetensors.numpy import load_file, save_file

    model = load_flame(write_flame_pickle(tmp_path / "f.pkl", flame_arrays()), "egg")
    save_head_model(tmp_path / "egg.safetensors", model)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    folder = tmp_path / "dataset"
    shutil.copytree(tiny_dataset_path, folder)
    text = json.loads((folder / "dataset.json").read_text())
    text |= {"head_model": "egg", "code_names": list(model.expression_names)}
    (folder / "dataset.json").write_text(json.dumps(text))
    tensors = load_file(folder / "tracking.safetensors")
    tensors |= {
        "codes": np.tile(model.neutral_code.numpy(), (len(tensors["codes"]), 1)),
        "identity": np.zeros(300, np.float32),
        "vertex_offsets": np.zeros((len(model.vertices), 3), np.float32),
    }
    save_file(tensors, folder / "tracking.safetensors")
    return folder


def config() -> TrainConfig:
    return TrainConfig(
        avatar=tiny_config(),
        iterations=8,
        sizes=((0.0, TINY_SIZE // 2),),
        loss=LossConfig(perceptual_weight=0),
        refinement=RefinementConfig(at=(0.5,), steps=2, size=TINY_SIZE // 2),
        backend="cpu",
    )


def test_training_and_refinement(flame_dataset: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(flame_dataset)
    assert len(dataset.info.code_names) == 120
    train(dataset, tmp_path / "egg.cag", config(), show_progress=False)
    avatar = load_avatar(tmp_path / "egg.cag")
    assert avatar.head_name == "egg"
    assert avatar.record is not None
    assert len(avatar.record.code_min) == 120


def test_refined_codes_keep_their_bounds(flame_dataset: Path) -> None:
    """Rotations and expressions may fall below 0, eyelids may not."""
    trainer = Trainer(Dataset.open(flame_dataset), config())
    trainer.refine()
    codes = trainer.motion.codes[trainer.frames]
    assert (codes[:, -2:] >= 0).all()
    assert (codes[:, :-2] < -1e-4).any()
    assert (codes - trainer.avatar.neutral_code).abs().max() < 0.2
    assert torch.isfinite(codes).all()


def test_names_that_are_not_the_models_are_refused(flame_dataset: Path) -> None:
    file = flame_dataset / "dataset.json"
    text = json.loads(file.read_text())
    names = text["code_names"]
    file.write_text(json.dumps(text | {"code_names": names[::-1]}))
    with pytest.raises(InputError, match=r"field 'code_names' is not that of head model 'egg'"):
        Trainer(Dataset.open(flame_dataset), config())
    file.write_text(json.dumps(text | {"code_names": [*names[:-1], names[0]]}))
    with pytest.raises(InputError, match="field 'code_names' must hold distinct names"):
        Dataset.open(flame_dataset)
