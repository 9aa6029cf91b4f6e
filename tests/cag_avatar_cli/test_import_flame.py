from __future__ import annotations

from pathlib import Path

import pytest

from cag_avatar.head_models import FlameHeadModel, load_head_model
from cag_avatar.head_models.library import FOLDER_VARIABLE
from cag_avatar_cli.main import main
from tests.cag_avatar.head_models.flame_files import flame_arrays, write_flame_pickle


@pytest.fixture
def pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "models"))
    return write_flame_pickle(tmp_path / "FLAME2023.pkl", flame_arrays(rows=8, columns=10))


def test_the_model_is_found_by_its_name(pickle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import-flame", str(pickle)]) == 0
    shown = capsys.readouterr().out
    assert "flame2023.safetensors" in shown
    assert "tie-landmarks --head-model" in shown
    assert "note:" not in shown
    assert isinstance(load_head_model("flame2023"), FlameHeadModel)


def test_another_place_is_pointed_out(
    pickle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "elsewhere" / "mine.safetensors"
    assert main(["import-flame", str(pickle), "-o", str(target)]) == 0
    assert f"CAG_AVATAR_HEAD_MODELS={target.parent}" in capsys.readouterr().out
    assert load_head_model(target).name == "mine"


@pytest.mark.parametrize("name", ["anny.safetensors", "mine.pkl"])
def test_bad_names_exit_2(
    pickle: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import-flame", str(pickle), "-o", str(tmp_path / name)]) == 2
    assert name in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_a_file_of_another_kind_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert main(["import-flame", str(tmp_path / "x.pkl")]) == 2
    assert "refused, the pickle wants to use" in capsys.readouterr().err
