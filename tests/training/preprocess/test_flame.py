"""A video becomes a dataset on a head model of the FLAME kind, and an avatar learns from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cag_avatar_training.config import LossConfig, RefinementConfig, TrainConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.preprocess import PreprocessConfig, preprocess
from cag_avatar_training.synthetic import load_truth
from cag_avatar_training.trainer import train
from numpy.typing import NDArray

from cag_avatar.avatar.file import load_avatar
from cag_avatar.head_models import HeadModel, load_head_model
from cag_avatar.head_models.flame import FlameHeadModel
from cag_avatar.head_models.library import FOLDER_VARIABLE
from cag_avatar.rendering.mesh import rasterize
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.landmark_embedding import load_landmark_embedding
from cag_avatar.tracking.photometric import PhotometricConfig
from tests.cag_avatar.head_models.flame_files import face_flame_model
from tests.conftest import tiny_config

SIZE = 192


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flame")
    face_flame_model(folder, "face-flame")
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path, face_video: Path) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(folder))
        config = PreprocessConfig(
            size=SIZE,
            head_model="face-flame",
            fit=FitConfig(shared_frames=16),
            alignment=PhotometricConfig(points=400, blurs=(0.04,), iterations=(2,)),
            progress=False,
        )
        return preprocess(face_video, folder / "dataset", config)


@pytest.fixture
def flame(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FlameHeadModel:
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    model = load_head_model("face-flame")
    assert isinstance(model, FlameHeadModel)
    return model


def test_the_mesh_covers_the_head(dataset: Dataset, flame: FlameHeadModel) -> None:
    tracking = dataset.tracking
    rest = flame.rest_vertices(
        torch.from_numpy(tracking.identity), torch.from_numpy(tracking.vertex_offsets)
    )
    overlaps = []
    for t in range(0, len(dataset), 10):
        at = slice(t, t + 1)
        poses = (torch.from_numpy(x[at]) for x in (tracking.head_pose, tracking.torso_pose))
        posed = flame.posed_vertices(rest, torch.from_numpy(tracking.codes[at]), *poses)[0]
        drawn = rasterize(posed.numpy(), flame.faces.numpy(), dataset.info.camera).face_index >= 0
        brow = int(tracking.landmarks[t, [33, 263], 1].min())
        alpha = dataset.frame(t).alpha.numpy()[:brow] > 0.5
        overlaps.append((drawn[:brow] & alpha).sum() / (drawn[:brow] | alpha).sum())
    assert np.mean(overlaps) > 0.93


def test_the_mouth_opens_with_the_subjects(
    dataset: Dataset, flame: FlameHeadModel, face_video: Path
) -> None:
    """The height of the lips; jaw and expression components share it."""
    truth = load_truth(face_video.with_suffix(".truth"))
    tracking = dataset.tracking
    own = (
        torch.from_numpy(tracking.codes),
        *map(torch.from_numpy, (tracking.identity, tracking.vertex_offsets)),
    )
    frames = torch.from_numpy(tracking.source_frames)
    found = _lip_height(flame, *own)
    expected = _lip_height(
        load_head_model("anny"), truth.codes[frames], truth.identity, truth.offsets
    )
    assert np.corrcoef(found, expected)[0, 1] > 0.8


def _lip_height(
    model: HeadModel, codes: torch.Tensor, identity: torch.Tensor, offsets: torch.Tensor
) -> NDArray[np.float32]:
    """From the upper edge of the upper lip to the lower edge of the lower, metres, [T]."""
    still = torch.eye(4).expand(len(codes), 4, 4)
    posed = model.posed_vertices(model.rest_vertices(identity, offsets), codes, still, still)
    points = load_landmark_embedding(model).points(posed, model.faces)
    return (points[:, 0] - points[:, 17]).norm(dim=-1).numpy()


def test_an_avatar_is_trained_on_it(dataset: Dataset, flame: FlameHeadModel) -> None:
    config = TrainConfig(
        avatar=tiny_config(),
        iterations=6,
        sizes=((0.0, 64),),
        loss=LossConfig(perceptual_weight=0),
        refinement=RefinementConfig(at=(0.5,), steps=2, size=64),
        backend="cpu",
    )
    path = dataset.path.parent / "face.cag"
    train(dataset, path, config, show_progress=False)
    assert load_avatar(path).head_name == "face-flame"
