from __future__ import annotations

from dataclasses import replace

import pytest
from cag_avatar_training.config import LossConfig, RefinementConfig, TrainConfig
from cag_avatar_training.importers import ImportConfig, import_dataset, read_capture
from cag_avatar_training.trainer import train

from cag_avatar.avatar.file import load_avatar
from cag_avatar.errors import InputError
from cag_avatar.head_models import load_head_model
from cag_avatar.head_models.library import FOLDER_VARIABLE
from cag_avatar.head_models.storage import save_head_model
from cag_avatar_cli.main import main
from tests.conftest import tiny_config
from tests.training.importers.scenes import HEIGHT, WIDTH, make_scene, overlay_iou
from tests.training.importers.test_vhap import write_vhap


@pytest.fixture(scope="module")
def source(twin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "in"
    write_vhap(make_scene(twin, 3, camera_moves=False), folder)
    return folder


@pytest.fixture(scope="module")
def capture_with_split(twin, tmp_path_factory):
    """Two frames more, that VHAP's split tests on."""
    folder = tmp_path_factory.mktemp("api") / "split"
    write_vhap(make_scene(twin, 5, camera_moves=False), folder)
    return folder


def test_flames_own_file_is_kept_by_name(source, flame_file, tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "models"))
    config = ImportConfig(head_model=flame_file, progress=False)
    for _ in range(2):  # the second time it is there
        dataset = import_dataset("vhap", source, tmp_path / "out", config)
    assert dataset.info.head_model == "tiny-flame"
    assert load_head_model("tiny-flame").num_expression == 120
    assert min(overlay_iou(dataset, "tiny-flame")) >= 0.97

    other = load_head_model("tiny-flame")
    changed = replace(other, vertices=other.vertices + 0.001)
    save_head_model(tmp_path / "models" / "tiny-flame.safetensors", changed)
    with pytest.raises(InputError, match="another head model is called 'tiny-flame'"):
        import_dataset("vhap", source, tmp_path / "out", config)


def test_what_the_head_model_must_be(source, tmp_path):
    with pytest.raises(InputError, match="vhap holds FLAME's parameters; name the FLAME model"):
        import_dataset("vhap", source, tmp_path / "out")
    with pytest.raises(InputError, match="'anny' is not FLAME"):
        import_dataset("vhap", source, tmp_path / "out", ImportConfig(head_model="anny"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("vhap", {"checkpoints": "x"}, "checkpoints: has no meaning for vhap, only for flashav"),
        ("nerface", {"test_frames": 3}, "test_frames: has no meaning for nerface"),
        ("insta", {"camera": 1}, "camera: has no meaning for insta, only for vhap"),
        ("flame", {}, "format: unknown 'flame', choose from flashavatar, insta"),
    ],
)
def test_options_without_a_meaning_are_refused(source, name, changes, message):
    with pytest.raises(InputError, match=message):
        read_capture(name, source, ImportConfig(**changes))


@pytest.mark.parametrize("changes", [{"fps": 0.0}, {"fps": float("nan")}, {"test_frames": -1}])
def test_bad_settings_are_named(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        ImportConfig(**changes)


def test_the_command_line(source, flame_name, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["import", "vhap", str(source), "-o", str(out), "--head-model", flame_name]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "3 frames, 0 held out by the source, head model tiny-flame" in text
    assert "missing: eyelids (neutral values)" in text
    assert main(["import", "imavatar", str(source), "-o", str(tmp_path / "other")]) == 2
    assert "flame_params.json: missing" in capsys.readouterr().err


def test_an_imported_dataset_is_trained_on(capture_with_split, flame_name, tmp_path):
    """Pictures that are not square, no landmarks, and the split of the source."""
    dataset = import_dataset(
        "vhap", capture_with_split, tmp_path / "out", ImportConfig(head_model=flame_name)
    )
    config = TrainConfig(
        avatar=tiny_config(),
        iterations=4,
        sizes=((0.0, HEIGHT // 2),),
        split="source",
        loss=LossConfig(perceptual_weight=0),
        refinement=RefinementConfig(steps=0),
        backend="cpu",
    )
    train(dataset, tmp_path / "a.cag", config, show_progress=False)
    avatar = load_avatar(tmp_path / "a.cag")
    assert avatar.head_name == flame_name
    assert avatar.record is not None
    assert avatar.record.protocol["split"] == "source"
    assert (avatar.record.camera.width, avatar.record.camera.height) == (WIDTH, HEIGHT)
