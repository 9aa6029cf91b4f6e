"""The regressor of one person: learns from training frames alone, and runs in onnxruntime."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.regressor.config import RegressorConfig
from cag_avatar_training.regressor.learning import regressor_of_training, train_regressor
from cag_avatar_training.regressor.readings import Readings, code_errors, read_faces
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.geometry import rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX, load_head_model
from cag_avatar.tracking.code_regressor import CodeRegressor, regressor_features
from cag_avatar.tracking.landmark_embedding import load_landmark_embedding

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FRAMES = 160
QUICK = RegressorConfig(
    components=40, hidden=64, steps=250, batch=64, made_up=200, shares=(0.0, 0.5), folds=2
)


def seen_codes(random: np.random.Generator) -> NDArray[np.float32]:
    """A face that opens its mouth, smiles and frowns."""
    codes = np.zeros((FRAMES, 52), np.float32)
    for name in ("jawOpen", "mouthSmileLeft", "browDownLeft", "mouthPucker"):
        codes[:, ARKIT_INDEX[name]] = np.clip(random.uniform(-0.5, 1.0, FRAMES), 0, 1)
    for name in ("mouthSmile", "browDown"):
        codes[:, ARKIT_INDEX[f"{name}Right"]] = codes[:, ARKIT_INDEX[f"{name}Left"]]
    return codes


@pytest.fixture(scope="module")
def person() -> tuple[SimpleNamespace, Readings, NDArray[np.float32]]:
    """Codes of a clip, and what a biased landmarker says of it."""
    random = np.random.default_rng(0)
    head = load_head_model("anny")
    codes = seen_codes(random)
    turns = rotation_vector_to_matrix(torch.from_numpy(random.normal(scale=0.15, size=(FRAMES, 3))))
    turns = turns.float() @ torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    still = torch.eye(4)[None]
    points = []
    for code, turn in zip(codes, turns, strict=True):
        posed = head.posed_vertices(head.vertices, torch.from_numpy(code)[None], still, still)
        at = load_landmark_embedding(head).points(posed, head.faces)[0]
        points.append((at @ turn.T).numpy() * 1500 + 250)
    landmarks = np.stack(points) + random.normal(scale=2.0, size=(478, 3))
    landmarks += random.normal(scale=0.2, size=landmarks.shape)
    scores = np.clip(0.5 * codes + 0.2 * (np.arange(52) % 3 == 0), 0, 1)
    tracking = SimpleNamespace(
        identity=np.zeros(head.num_identity, np.float32),
        vertex_offsets=np.zeros((len(head.vertices), 3), np.float32),
        landmarks=landmarks.astype(np.float32),
        scores=scores.astype(np.float32),
    )
    dataset = SimpleNamespace(
        path="d", tracking=tracking, info=SimpleNamespace(head_model="anny", tracking={})
    )
    readings = Readings(np.arange(FRAMES), tracking.landmarks, tracking.scores)
    return dataset, readings, codes


@pytest.fixture(scope="module")
def regressor(person: tuple[Dataset, Readings, NDArray[np.float32]]) -> CodeRegressor:
    dataset, readings, codes = person
    train = range(120)
    return train_regressor(dataset, readings.of(train), codes[:120], QUICK)


def test_it_beats_the_scores_on_frames_it_has_not_seen(
    person: tuple[Dataset, Readings, NDArray[np.float32]], regressor: CodeRegressor
) -> None:
    _, readings, codes = person
    head = load_head_model("anny")
    found = code_errors(regressor, readings.of(range(120, FRAMES)), codes[120:], head)
    assert found["frames"] == 40
    expected = np.abs(readings.scores[120:] - codes[120:]).mean()
    assert found["raw_scores"] == pytest.approx(expected, abs=1e-5)
    assert found["regressor"] < 0.5 * found["raw_scores"]
    assert regressor.coefficients == 52
    got = regressor.codes(readings.landmarks, readings.scores)
    assert got.min() >= 0
    assert got.max() <= 1
    assert set(regressor.protocol["cross_validation_error"]) == {"0.0", "0.5"}


def test_held_out_frames_are_not_read(
    person: tuple[Dataset, Readings, NDArray[np.float32]], regressor: CodeRegressor
) -> None:
    dataset, readings, codes = person
    spoilt = SimpleNamespace(
        path="d",
        info=dataset.info,
        tracking=SimpleNamespace(
            identity=dataset.tracking.identity, vertex_offsets=dataset.tracking.vertex_offsets
        ),
    )
    again = train_regressor(spoilt, readings.of(range(120)), codes[:120], QUICK)
    assert again.graph == regressor.graph  # and it is repeatable
    other = train_regressor(spoilt, readings.of(range(120)), codes[:120], replace(QUICK, seed=1))
    assert other.graph != regressor.graph


def test_the_graph_is_the_network(regressor: CodeRegressor) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(regressor.graph)
    value = {i.name: numpy_helper.to_array(i).astype(np.float64) for i in model.graph.initializer}
    random = np.random.default_rng(1)
    landmarks = regressor.typical[None] * [1500, -1500, -1500] + 250
    landmarks = landmarks + random.normal(scale=1.0, size=(3, 478, 3))
    scores = random.uniform(size=(3, 52))
    x = regressor_features(regressor.mean, landmarks, scores).astype(np.float64)
    x = x @ value["w0"].T + value["b0"]
    for layer in (1, 2):
        x = x @ value[f"w{layer}"].T + value[f"b{layer}"]
        x = x / (1 + np.exp(-x))
    expected = np.clip(x @ value["w3"].T + value["b3"], 0, 1)
    np.testing.assert_allclose(regressor.codes(landmarks, scores), expected, atol=1e-4)


def test_features_do_not_see_the_head_pose(regressor: CodeRegressor) -> None:
    face = regressor.typical.astype(np.float64)
    none = np.zeros((1, 52))
    front = face[None] * [1500, -1500, -1500] + 250
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rolled = front.copy()
    rolled[..., :2] = 0.5 * front[..., :2] @ turn.T + 77
    rolled[..., 2] *= 0.5
    same = regressor_features(regressor.mean, front, none)
    np.testing.assert_allclose(regressor_features(regressor.mean, rolled, none), same, atol=2e-3)


def test_its_own_person_is_told_from_another(
    person: tuple[Dataset, Readings, NDArray[np.float32]], regressor: CodeRegressor
) -> None:
    _, readings, _ = person
    assert regressor.is_own(readings.landmarks[120:])
    wide = readings.landmarks[120:] * np.array([1.08, 1.0, 1.0], np.float32)
    assert regressor.distance(wide) > 2 * regressor.distance(readings.landmarks[120:])
    assert not regressor.is_own(wide)
    assert regressor.distance(readings.landmarks[:3]) == np.inf


def test_a_dataset_without_scores_trains_without_it(
    tiny_dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    codes = tiny_dataset.tracking.codes[:12]
    assert regressor_of_training(tiny_dataset, range(12), codes) is None
    assert "train-regressor" in caplog.text


def test_too_few_frames_are_refused(
    person: tuple[Dataset, Readings, NDArray[np.float32]],
) -> None:
    dataset, readings, codes = person
    with pytest.raises(InputError, match="too few"):
        train_regressor(dataset, readings.of(range(5)), codes[:5], QUICK)
    assert len(read_faces(dataset, range(5)).frames) == 5
