from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cag_avatar.errors import InputError
from cag_avatar.head_models import FlameHeadModel, head_model_path, load_head_model
from cag_avatar.head_models.flame_file import load_flame
from cag_avatar.head_models.library import FOLDER_VARIABLE
from cag_avatar.head_models.storage import (
    head_model_fingerprint,
    load_head_model_file,
    save_head_model,
)
from tests.cag_avatar.head_models.flame_files import flame_arrays, write_flame_pickle


@pytest.fixture(scope="module")
def flame(tmp_path_factory: pytest.TempPathFactory) -> FlameHeadModel:
    path = tmp_path_factory.mktemp("flame") / "f.pkl"
    return load_flame(write_flame_pickle(path, flame_arrays(rows=8, columns=10)), "mine")


def test_a_flame_file_comes_back_whole(flame: FlameHeadModel, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_head_model(path, flame)
    back = load_head_model_file(path)
    assert isinstance(back, FlameHeadModel)
    assert back.expression_names == flame.expression_names
    assert back.file == path
    for name in flame.tensor_shapes:
        assert torch.equal(getattr(back, name), getattr(flame, name)), name
    assert head_model_fingerprint(back) == head_model_fingerprint(flame)


def test_names_are_looked_for_in_two_folders(
    flame: FlameHeadModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, cache = tmp_path / "named", tmp_path / "cache"
    monkeypatch.setenv(FOLDER_VARIABLE, str(named))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    for name in ("mine", "../mine"):
        with pytest.raises(InputError, match=f"head model '{name}' is unknown.*import-flame") as e:
            load_head_model(name)
        assert str(named) in str(e.value)
        assert str(cache / "cag_avatar" / "head_models") in str(e.value)
    path = cache / "cag_avatar" / "head_models" / "mine.safetensors"
    save_head_model(path, flame)
    assert load_head_model("mine").file == path.resolve()
    save_head_model(named / "mine.safetensors", flame)
    assert load_head_model("mine").file == (named / "mine.safetensors").resolve()
    assert load_head_model("mine") is load_head_model(named / "mine.safetensors")
    assert load_head_model("anny").file == head_model_path("anny").resolve()


def test_a_replaced_file_is_read_again(flame: FlameHeadModel, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_head_model(path, flame)
    first = load_head_model(path)
    assert load_head_model(str(path)) is first
    save_head_model(path, flame, half=True)
    assert load_head_model(path) is not first


def test_a_renamed_file_is_refused_by_name(
    flame: FlameHeadModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    save_head_model(tmp_path / "other.safetensors", flame)
    with pytest.raises(InputError, match="holds head model 'mine', not 'other'"):
        load_head_model("other")
    with pytest.raises(InputError, match=r"none\.safetensors: no such head model file"):
        load_head_model(tmp_path / "none.safetensors")


def test_damage_is_named(flame: FlameHeadModel, tmp_path: Path) -> None:
    from dataclasses import replace

    path = tmp_path / "mine.safetensors"
    for change, message in (
        ({"eyelid_basis": torch.zeros(3, 4, 3)}, "tensor 'eyelid_basis' has shape"),
        ({"pose_basis": torch.full_like(flame.pose_basis, torch.nan)}, "'pose_basis' holds NaN"),
        ({"eye_left": torch.tensor([10**6])}, "tensor 'eye_left' must hold int32 indices below"),
    ):
        save_head_model(path, replace(flame, **change))
        with pytest.raises(InputError, match=rf"mine\.safetensors: .*{message}"):
            load_head_model_file(path)
