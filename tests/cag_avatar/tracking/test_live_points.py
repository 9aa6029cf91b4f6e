from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cag_avatar.errors import InputError
from cag_avatar.head_models import HeadModel, LinearHeadModel
from cag_avatar.head_models.storage import save_head_model
from cag_avatar.tracking import live_points
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding
from cag_avatar.tracking.live_points import LivePoints, load_live_points
from cag_avatar.tracking.surface_basis import ShapeSpace


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAG_AVATAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def unmade(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be made from the head model."""
    monkeypatch.setattr(live_points, "_make", lambda name: pytest.fail("made again"))


def same(one: LivePoints, other: LivePoints) -> bool:
    return all(np.array_equal(a, vars(other)[name]) for name, a in vars(one).items())


def test_are_those_of_the_fit(embedding: LandmarkEmbedding, shape_space: ShapeSpace) -> None:
    points = shape_space.points(embedding.faces, embedding.barycentric)
    live = load_live_points("anny")
    for name in ("mean", "expression", "eye", "eye_arm"):
        expected = getattr(points, name).numpy()
        np.testing.assert_allclose(getattr(live, name), expected, atol=1e-7, err_msg=name)
    np.testing.assert_array_equal(live.spread, embedding.spread.numpy())
    assert set(live.eye) == {-1, 0, 1}


def test_are_made_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = load_live_points("anny")
    (kept,) = cache.iterdir()
    monkeypatch.setattr(live_points, "_make", lambda name: pytest.fail("made again"))
    assert same(load_live_points("anny"), made)
    assert [kept] == list(cache.iterdir())


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_file_is_made_again(cache: Path, damage: str) -> None:
    made = load_live_points("anny")
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes({"cut": whole[:-100], "empty": b"", "other": b"x" * len(whole)}[damage])
    assert same(load_live_points("anny"), made)
    assert kept.read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("eye", lambda a: a + 7),  # C takes it for an index
        ("mean", lambda a: a * np.nan),
        ("mean", lambda a: a[:, 0]),
        ("spread", lambda a: a[:-1]),
    ],
)
def test_values_that_cannot_be_are_made_again(
    cache: Path, name: str, change: Callable[..., Any]
) -> None:
    made = load_live_points("anny")
    (kept,) = cache.iterdir()
    replace(made, **{name: np.ascontiguousarray(change(getattr(made, name)))}).save(kept)
    assert same(load_live_points("anny"), made)


def test_a_folder_that_cannot_be_written_is_told(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file, not a folder")
    with caplog.at_level("INFO"):
        assert load_live_points("anny").mean.shape == (478, 3)
    assert "every start takes longer" in caplog.text


def test_another_model_has_its_own_points(
    head: HeadModel, embedding: LandmarkEmbedding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(head, LinearHeadModel)
    monkeypatch.setenv("CAG_AVATAR_HEAD_MODELS", str(tmp_path))
    save_head_model(tmp_path / "wide.safetensors", replace(head, name="wide"))
    replace(embedding, head_model="wide").save(tmp_path / "wide_landmarks.json")
    first = load_live_points("wide")
    wider = replace(head, name="wide", vertices=1.1 * head.vertices)
    save_head_model(tmp_path / "wide.safetensors", wider)
    np.testing.assert_allclose(load_live_points("wide").mean, 1.1 * first.mean, atol=1e-6)


def test_models_that_cannot_be_tracked_live_are_refused(
    head: HeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other:
        name, expression_names = "other", ("smile",)

    monkeypatch.setattr(
        "cag_avatar.head_models.load_head_model", lambda name: Other(), raising=False
    )
    with pytest.raises(InputError, match="'other': its code is not the 52 ARKit coefficients"):
        load_live_points("anny")
    Other.expression_names = head.expression_names
    with pytest.raises(InputError, match="'other': is not linear in its code"):
        load_live_points("anny")
