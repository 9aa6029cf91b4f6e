from __future__ import annotations

import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cag_avatar_training.importers import ImportConfig, import_dataset, read_capture
from cag_avatar_training.importers.frame_file import read_frame_file
from scipy.spatial.transform import Rotation

from cag_avatar.errors import InputError
from tests.training.importers.scenes import (
    CX,
    CY,
    FX,
    FY,
    HEIGHT,
    WIDTH,
    Scene,
    grey,
    imported_vertices,
    make_scene,
    overlay_iou,
    picture,
)

FRAMES = 5


def rows(vectors: np.ndarray) -> np.ndarray:
    """Rotation vectors [..., 3] as the first two rows of their matrices, [1, 6 ...]."""
    matrices = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix()
    return np.concatenate([m[:2].ravel() for m in matrices])[None].astype(np.float32)


def tracker_frame(scene: Scene, t: int) -> dict:
    """What metrical-tracker's save_checkpoint writes."""
    pose = scene.poses[t]
    matrix = np.array([[[FX, 0, CX], [0, FY, CY], [0, 0, 1]]], np.float32)
    return {
        "flame": {
            "exp": pose.expression[None].astype(np.float32),
            "shape": scene.shape[None].astype(np.float32),
            "tex": np.zeros((1, 140), np.float32),
            "sh": np.zeros((1, 9, 3), np.float32),
            "eyes": rows(pose.eyes),
            "eyelids": np.array([[0.25, 0.1 * t]], np.float32),
            "jaw": rows(pose.jaw),
        },
        "camera": {
            "R": np.zeros((1, 6), np.float32),
            "t": np.zeros((1, 3), np.float32),
            "fl": np.ones((1, 1), np.float32),
            "pp": np.zeros((1, 2), np.float32),
        },
        "opencv": {
            "R": scene.world_to_camera[t : t + 1, :3, :3].astype(np.float32),
            "t": scene.world_to_camera[t : t + 1, :3, 3].astype(np.float32),
            "K": matrix,
        },
        "img_size": np.array([HEIGHT, WIDTH]),  # rows first
        "frame_id": f"{t:05d}",
        "global_step": 5 * t,
    }


def write_checkpoints(scene: Scene, folder: Path, first: int = 0) -> None:
    folder.mkdir(parents=True)
    for t in range(len(scene)):
        torch.save(tracker_frame(scene, t), folder / f"{t + first:05d}.frame")


def mouth_column(cover: np.ndarray) -> int:
    """First column of the mask of the mouth, inside the head."""
    return round(float((cover * np.arange(WIDTH)).sum() / cover.sum())) - 4


def write_flashavatar(scene: Scene, folder: Path) -> list[np.ndarray]:
    """imgs, alpha, parsing from 1, checkpoint from 0; a picture 0 that nobody tracked."""
    covers = [scene.coverage(t) for t in range(len(scene))]
    for name in ("imgs", "alpha", "parsing"):
        (folder / name).mkdir(parents=True)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 98]
    for number, cover in enumerate([covers[-1], *covers]):
        image = picture(cover, (30, 60, 200))
        cv2.imwrite(str(folder / "imgs" / f"{number:05d}.jpg"), image[..., ::-1], quality)
        shoulders = np.maximum(cover, np.arange(HEIGHT)[:, None] > 90)
        cv2.imwrite(str(folder / "alpha" / f"{number:05d}.jpg"), grey(shoulders), quality)
        head = grey((cover > 0.02).astype(float))
        cv2.imwrite(str(folder / "parsing" / f"{number:05d}_neckhead.png"), head)
        mouth = np.zeros((HEIGHT, WIDTH), np.uint8)
        first = mouth_column(cover)
        mouth[40:44, first : first + 9] = 255
        cv2.imwrite(str(folder / "parsing" / f"{number:05d}_mouth.png"), mouth)
    write_checkpoints(scene, folder / "checkpoint")
    return covers


@pytest.fixture(scope="module")
def scene(twin) -> Scene:
    return make_scene(twin, FRAMES, camera_moves=True)


@pytest.fixture(scope="module")
def capture(scene, tmp_path_factory) -> tuple[Path, list[np.ndarray]]:
    folder = tmp_path_factory.mktemp("flashavatar") / "Obama"
    return folder, write_flashavatar(scene, folder)


@pytest.fixture
def damaged(capture, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(capture[0], tmp_path / "copy"))


def test_the_imported_mesh_overlays_the_pictures(capture, scene, flame_name, tmp_path):
    config = ImportConfig(head_model=flame_name, test_frames=2, progress=False)
    dataset = import_dataset("flashavatar", capture[0], tmp_path / "out", config)
    assert len(dataset) == FRAMES
    assert (dataset.info.camera.width, dataset.info.camera.height) == (WIDTH, HEIGHT)
    assert min(overlay_iou(dataset, flame_name)) >= 0.97
    for t, ours in enumerate(imported_vertices(dataset, flame_name)):
        np.testing.assert_allclose(ours, scene.camera_vertices(t), atol=1e-5)
        matte = dataset.frame(t).alpha.numpy()
        assert np.abs(matte - capture[1][t]).mean() < 0.01
    assert dataset.split("source") == ([0, 1, 2], [3, 4])
    assert dataset.tracking.landmarks is None
    assert dataset.info.imported["missing"] == []
    np.testing.assert_allclose(dataset.tracking.codes[3, -2:], [0.25, 0.3], atol=1e-6)


def test_the_mouth_is_the_parsing_files(capture, flame_name, tmp_path):
    config = ImportConfig(head_model=flame_name, progress=False)
    dataset = import_dataset("flashavatar", capture[0], tmp_path / "out", config)
    for t in range(FRAMES):
        mouth = dataset.frame(t).mouth.numpy() > 0
        columns = np.flatnonzero(mouth.any(0))
        first = mouth_column(capture[1][t])
        assert (columns[0], columns[-1]) == (first, first + 8)


def test_checkpoints_where_flashavatar_looks_for_them(capture, tmp_path):
    data = tmp_path / "dataset" / "Obama"
    shutil.copytree(capture[0], data)
    target = tmp_path / "metrical-tracker" / "output" / "Obama" / "checkpoint"
    target.parent.mkdir(parents=True)
    shutil.move(data / "checkpoint", target)
    assert len(read_capture("flashavatar", data, ImportConfig())) == FRAMES
    shutil.move(target, tmp_path / "elsewhere")
    with pytest.raises(InputError, match="--checkpoints"):
        read_capture("flashavatar", data, ImportConfig())
    given = ImportConfig(checkpoints=tmp_path / "elsewhere")
    assert len(read_capture("flashavatar", data, given)) == FRAMES


def test_the_last_500_are_held_out(capture):
    short = read_capture("flashavatar", capture[0], ImportConfig())
    assert short.held_out == ()
    assert any("too short to hold out the last 500" in note for note in short.notes)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("imgs/00005.jpg", r"imgs/00005.jpg: missing; the tracker's frame k is picture k \+ 1"),
        ("alpha/00002.jpg", "alpha/00002.jpg: missing"),
        ("parsing/00001_neckhead.png", "00001_neckhead.png: missing"),
        ("parsing/00001_mouth.png", "00001_mouth.png: missing"),
        ("checkpoint/00002.frame", "00002.frame: missing, the next is 00003.frame"),
    ],
)
def test_a_missing_file_is_named(damaged, gone, message):
    (damaged / gone).unlink()
    with pytest.raises(InputError, match=message):
        read_capture("flashavatar", damaged, ImportConfig())


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("flame", "jaw"), None, "field 'flame.jaw' is missing"),
        (("flame", "jaw"), np.zeros((1, 3)), r"'flame.jaw' has shape \[1, 3\], expected \[6\]"),
        (("flame", "eyes"), np.full((1, 12), np.nan), "'flame.eyes' holds NaN"),
        (("flame", "shape"), np.ones((1, 300)), "'flame.shape' differs from 00000.frame's"),
        (("opencv", "R"), np.zeros((1, 3, 3)), "'opencv.R' is not a rotation"),
        (("opencv", "K"), np.eye(3)[None], "differ from frame 0's"),
        (("img_size",), np.array([WIDTH, HEIGHT]), "'img_size' differs"),
        (("opencv",), "text", "opencv is not a table"),
    ],
)
def test_a_wrong_field_is_named(damaged, scene, path, value, message):
    content = tracker_frame(scene, 3)
    table = content
    for key in path[:-1]:
        table = table[key]
    if value is None:
        del table[path[-1]]
    else:
        table[path[-1]] = value
    torch.save(content, damaged / "checkpoint" / "00003.frame")
    with pytest.raises(InputError, match=message):
        read_capture("flashavatar", damaged, ImportConfig())


def test_rows_and_columns_are_not_swapped(damaged, flame_name, tmp_path):
    """The pictures say which is which."""
    for file in (damaged / "imgs").iterdir():
        cv2.imwrite(str(file), cv2.imread(str(file)).transpose(1, 0, 2))
    config = ImportConfig(head_model=flame_name, progress=False)
    with pytest.raises(InputError, match=r"00001.jpg: 96x80 pixels, .* 80x96"):
        import_dataset("flashavatar", damaged, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


class _Trap:
    """Pickles as a call of os.mkdir."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("where", ["field", "whole", "legacy", "object array"])
def test_a_hostile_frame_is_refused_and_not_run(damaged, scene, where, tmp_path):
    sprung = tmp_path / "sprung"
    file = damaged / "checkpoint" / "00001.frame"
    content = tracker_frame(scene, 1)
    if where == "field":
        torch.save(content | {"extra": _Trap(sprung)}, file)
    elif where == "whole":
        torch.save(_Trap(sprung), file)
    elif where == "legacy":
        torch.save(content | {"x": _Trap(sprung)}, file, _use_new_zipfile_serialization=False)
    else:
        inner = np.array([_Trap(sprung), None], object)
        torch.save(content | {"extra": inner}, file)
    with pytest.raises(InputError, match=r"00001.frame: refused: .* run code"):
        read_capture("flashavatar", damaged, ImportConfig())
    assert not sprung.exists()
    # The trap is a real one.
    torch.load(file, weights_only=False)
    assert sprung.exists()


def test_a_plain_pickle_and_a_cut_file_are_refused(damaged, tmp_path):
    file = damaged / "checkpoint" / "00000.frame"
    whole = file.read_bytes()
    file.write_bytes(pickle.dumps(_Trap(tmp_path / "sprung")))
    with pytest.raises(InputError, match="00000.frame"):
        read_frame_file(file)
    assert not (tmp_path / "sprung").exists()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"00000.frame: not a .frame file, or cut short"):
        read_frame_file(file)
    file.write_bytes(b"")
    with pytest.raises(InputError, match=r"00000.frame: not a .frame file, or cut short"):
        read_frame_file(file)


def test_a_frame_written_under_numpy_1_is_read(capture, tmp_path):
    """numpy 1 names its functions numpy.core, numpy 2 numpy._core."""
    source = capture[0] / "checkpoint" / "00001.frame"
    written = io.BytesIO(source.read_bytes())
    older = tmp_path / "00001.frame"
    with zipfile.ZipFile(written) as new, zipfile.ZipFile(older, "w") as old:
        for name in new.namelist():
            data = new.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core" in data
                data = data.replace(b"numpy._core", b"numpy.core")
            old.writestr(name, data)
    np.testing.assert_array_equal(
        read_frame_file(older).expression, read_frame_file(source).expression
    )
