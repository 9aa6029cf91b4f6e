from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cag_avatar_training.dataset import Dataset, DatasetInfo, DatasetWriter, Tracking
from cag_avatar_training.synthetic.truth import Truth, load_truth, truth_folder
from cag_avatar_training.tracking_benchmark import COEFFICIENTS, score_tracking
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.geometry import rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX, REGIONS

FRAMES = list(range(0, 60, 12))


@pytest.fixture(scope="module")
def truth(face_video: Path) -> Truth:
    return load_truth(truth_folder(face_video))


Change = Callable[[dict[str, NDArray[np.float32]]], None]


def dataset_of(truth: Truth, folder: Path, change: Change | None = None, shift: int = 0) -> Dataset:
    """A dataset that knows the truth, shown in a crop of the picture, then made wrong."""
    values = {
        "identity": truth.identity.numpy().copy(),
        "vertex_offsets": truth.offsets.numpy().copy(),
        "codes": truth.codes.numpy()[FRAMES].copy(),
        "head_pose": truth.head_pose.numpy()[FRAMES].copy(),
        "torso_pose": truth.torso_pose.numpy()[FRAMES].copy(),
    }
    if change is not None:
        change(values)
    x, y, size = 40, 20, 180
    camera = truth.camera
    camera = replace(camera, width=size, height=size, cx=camera.cx - x, cy=camera.cy - y)
    mouth = [REGIONS.index(n) for n in REGIONS if n in ("lips", "tongue", "mouth_cavity")]
    mouth += [REGIONS.index("teeth_upper"), REGIONS.index("teeth_lower")]
    with DatasetWriter.create(folder) as writer:
        for t in FRAMES:
            cut = np.s_[y : y + size, x + shift : x + size + shift]
            inside = np.isin(truth.regions(t)[cut], mouth).astype(np.uint8) * np.uint8(4)
            writer.add_frame(np.zeros((size, size, 3), np.uint8), truth.alpha(t)[cut], inside)
        tracking = Tracking(
            **values,
            landmarks=np.zeros((len(FRAMES), 478, 3), np.float32),
            timestamps=np.array(FRAMES) / truth.fps,
        )
        crop = {"x": x, "y": y, "size": size}
        writer.finish(DatasetInfo(camera, truth.fps, "face.mp4", crop=crop), tracking)
    return Dataset.open(folder)


def test_the_truth_scores_full_marks(truth: Truth, tmp_path: Path) -> None:
    score = score_tracking(dataset_of(truth, tmp_path / "d"), truth)
    assert score.rotation_deg < 0.05
    assert score.translation_pct < 1e-4
    assert score.landmark_rmse_pct < 1e-3
    assert score.matte_iou == score.mouth_iou == 1
    assert score.frames == len(FRAMES)
    assert score.lost_frames == len(truth.codes) - len(FRAMES)
    assert set(score.coefficients) == set(COEFFICIENTS)
    assert all(a.mae == 0 and a.corr in (None, pytest.approx(1)) for a in
               score.coefficients.values())  # fmt: skip


def test_each_fault_shows_where_it_belongs(truth: Truth, tmp_path: Path) -> None:
    def turn(values: dict[str, NDArray[np.float32]]) -> None:
        matrix = rotation_vector_to_matrix(torch.tensor([0.0, 0.0, np.radians(2.0)])).numpy()
        values["head_pose"][:, :3, :3] = matrix @ values["head_pose"][:, :3, :3]

    def move(values: dict[str, NDArray[np.float32]]) -> None:
        values["head_pose"][:, 2, 3] *= 1.03

    def open_jaw(values: dict[str, NDArray[np.float32]]) -> None:
        values["codes"][:, ARKIT_INDEX["jawOpen"]] += 0.1

    turned = score_tracking(dataset_of(truth, tmp_path / "turned", turn), truth)
    assert turned.rotation_deg == pytest.approx(2.0, abs=0.01)
    assert turned.translation_pct < 1e-4
    assert turned.landmark_rmse_pct > 0.5

    moved = score_tracking(dataset_of(truth, tmp_path / "moved", move), truth)
    assert moved.rotation_deg < 0.05
    assert moved.translation_pct == pytest.approx(3.0, abs=0.05)

    opened = score_tracking(dataset_of(truth, tmp_path / "opened", open_jaw), truth)
    assert opened.coefficients["jawOpen"].mae == pytest.approx(0.1, abs=1e-5)
    assert opened.coefficients["eyeBlinkLeft"].mae == 0
    assert opened.landmark_rmse_pct > 0.3

    shifted = score_tracking(dataset_of(truth, tmp_path / "shifted", shift=3), truth)
    assert 0.9 < shifted.matte_iou < 0.995
    assert 0.3 < shifted.mouth_iou < 0.95


def test_a_dataset_of_another_video_is_refused(truth: Truth, tmp_path: Path) -> None:
    dataset = dataset_of(truth, tmp_path / "d")
    dataset.tracking.timestamps[-1] += 10
    with pytest.raises(InputError, match="was not made from the video"):
        score_tracking(dataset, truth)
