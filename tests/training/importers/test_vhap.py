from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from cag_avatar_training.importers import ImportConfig, import_dataset, read_capture

from cag_avatar.errors import InputError
from cag_avatar.head_models import load_head_model
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


def flame_param(scene: Scene, t: int) -> dict[str, np.ndarray]:
    pose = scene.poses[t]
    values = {
        "translation": pose.translation[None],
        "rotation": pose.rotation[None],
        "neck_pose": pose.neck[None],
        "jaw_pose": pose.jaw[None],
        "eyes_pose": pose.eyes.reshape(1, 6),
        "shape": scene.shape,
        "expr": pose.expression[None],
    }
    if scene.offset is not None:
        teeth = np.full((120, 3), 0.5)  # VHAP appends them
        values["static_offset"] = np.concatenate([scene.offset, teeth])[None]
    return {key: value.astype(np.float32) for key, value in values.items()}


def write_vhap(scene: Scene, folder: Path, cameras: tuple[int, ...] = (0,)) -> list[np.ndarray]:
    """As VHAP's export_as_nerf_dataset.py does: white behind, camera to world in OpenGL axes."""
    covers = [scene.coverage(t) for t in range(len(scene))]
    for name in ("images", "fg_masks", "flame_param"):
        (folder / name).mkdir(parents=True)
    frames = []
    for t, cover in enumerate(covers):
        np.savez(folder / "flame_param" / f"{t:05d}.npz", **flame_param(scene, t))
        to_world = np.linalg.inv(scene.world_to_camera[t])
        to_world[:, 1:3] *= -1  # y up, z backward
        for camera in cameras:
            name = f"{t:05d}_{camera:02d}.png"
            # Every camera but the last sees nothing of use.
            seen = cover if camera == cameras[-1] else cover * 0
            cv2.imwrite(str(folder / "images" / name), picture(seen, (255, 255, 255))[..., ::-1])
            cv2.imwrite(str(folder / "fg_masks" / name), grey(seen))
            frames.append(
                {
                    "timestep_index": t,
                    "timestep_index_original": t,
                    "timestep_id": f"frame_{t:05d}",
                    "camera_index": camera,
                    "camera_id": str(camera),
                    "cx": CX,
                    "cy": CY,
                    "fl_x": FX,
                    "fl_y": FY,
                    "h": HEIGHT,
                    "w": WIDTH,
                    "camera_angle_x": 2 * np.arctan(WIDTH / (2 * FX)),
                    "camera_angle_y": 2 * np.arctan(HEIGHT / (2 * FY)),
                    "transform_matrix": to_world.tolist(),
                    "file_path": f"images/{name}",
                    "fg_mask_path": f"fg_masks/{name}",
                    "flame_param_path": f"flame_param/{t:05d}.npz",
                }
            )
    train = [f for f in frames if f["timestep_index"] < 3]
    test = [f for f in frames if f["timestep_index"] >= 3]
    for name, some in (("", frames), ("_train", train), ("_val", []), ("_test", test)):
        (folder / f"transforms{name}.json").write_text(json.dumps({"frames": some}))
    return covers


@pytest.fixture(scope="module")
def scene(twin) -> Scene:
    scene = make_scene(twin, FRAMES, camera_moves=False, neck=True, seed=8)
    waves = np.sin(40 * twin.v_template[:, [1, 2, 0]])
    return replace(scene, offset=0.006 * waves)


@pytest.fixture(scope="module")
def capture(scene, tmp_path_factory) -> tuple[Path, list[np.ndarray]]:
    folder = tmp_path_factory.mktemp("vhap") / "306"
    return folder, write_vhap(scene, folder)


@pytest.fixture
def damaged(capture, tmp_path) -> Path:
    return Path(shutil.copytree(capture[0], tmp_path / "copy"))


def test_the_imported_mesh_overlays_the_pictures(capture, scene, flame_name, tmp_path):
    config = ImportConfig(head_model=flame_name, progress=False)
    dataset = import_dataset("vhap", capture[0], tmp_path / "out", config)
    assert (dataset.info.camera.width, dataset.info.camera.height) == (WIDTH, HEIGHT)
    assert min(overlay_iou(dataset, flame_name)) >= 0.97
    for t, ours in enumerate(imported_vertices(dataset, flame_name)):
        np.testing.assert_allclose(ours, scene.camera_vertices(t), atol=1e-5)
        np.testing.assert_allclose(dataset.frame(t).alpha.numpy(), capture[1][t], atol=0.01)
    assert dataset.info.held_out == (3, 4)
    assert dataset.info.imported["missing"] == ["eyelids"]
    assert "static_offset of 120 teeth vertices left out" in dataset.info.imported["notes"]
    np.testing.assert_allclose(dataset.tracking.vertex_offsets, scene.offset, atol=1e-6)
    # The neck bends: head and torso are not one.
    assert np.abs(dataset.tracking.head_pose - dataset.tracking.torso_pose).max() > 0.05


def test_the_mouth_is_the_meshs_lips(capture, scene, flame_name, tmp_path):
    config = ImportConfig(head_model=flame_name, progress=False)
    dataset = import_dataset("vhap", capture[0], tmp_path / "out", config)
    head = load_head_model(flame_name)
    lips = head.region_vertices("lips").numpy()
    assert len(lips)
    for t in range(FRAMES):
        x, y, z = scene.camera_vertices(t)[lips].T
        left, right = np.floor((FX * x / z + CX).min()), np.ceil((FX * x / z + CX).max())
        top, bottom = np.floor((FY * y / z + CY).min()), np.ceil((FY * y / z + CY).max())
        rows, columns = np.nonzero(dataset.frame(t).mouth.numpy())
        assert len(rows)
        assert left <= columns.min() <= columns.max() <= right
        assert top <= rows.min() <= rows.max() <= bottom


def test_a_union_of_sequences_names_other_folders(capture, tmp_path, flame_name):
    """GaussianAvatars' unions have no transforms.json, and paths that leave the folder."""
    shutil.copytree(capture[0], tmp_path / "EMO-1")
    union = tmp_path / "UNION"
    union.mkdir()
    for split in ("train", "val", "test"):
        values = json.loads((capture[0] / f"transforms_{split}.json").read_text())
        for frame in values["frames"]:
            for key in ("file_path", "fg_mask_path", "flame_param_path"):
                frame[key] = f"../EMO-1/{frame[key]}"
        (union / f"transforms_{split}.json").write_text(json.dumps(values))
    found = read_capture("vhap", union, ImportConfig())
    assert len(found) == FRAMES
    assert found.held_out == (3, 4)


def test_one_camera_of_several_is_chosen(twin, tmp_path, flame_name):
    scene = make_scene(twin, 3, camera_moves=False)
    write_vhap(scene, tmp_path / "in", cameras=(2, 8))
    config = ImportConfig(head_model=flame_name, progress=False)
    with pytest.raises(InputError, match="holds cameras 2, 8; choose one with --camera"):
        import_dataset("vhap", tmp_path / "in", tmp_path / "out", config)
    with pytest.raises(InputError, match="--camera: 3 is not in"):
        import_dataset("vhap", tmp_path / "in", tmp_path / "out", replace(config, camera=3))
    dataset = import_dataset("vhap", tmp_path / "in", tmp_path / "out", replace(config, camera=8))
    assert min(overlay_iou(dataset, flame_name)) >= 0.97


def edit(folder: Path, change, index: int = 2) -> None:
    file = folder / "transforms.json"
    values = json.loads(file.read_text())
    change(values["frames"][index])
    file.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("fg_mask_path"), r"field 'frames\[2\].fg_mask_path' is missing"),
        (lambda f: f.pop("flame_param_path"), r"'frames\[2\].flame_param_path' is missing"),
        (lambda f: f.update(fl_x=2 * FX), "of frame 2 differ from frame 0's by 165.0 pixels"),
        (lambda f: f.update(timestep_index=1), "timestep_index 1 is there twice"),
        (lambda f: f.update(w=WIDTH + 1), "fields 'w' and 'h' vary"),
        (lambda f: f.update(transform_matrix=[[1]]), r"has shape \[1, 1\], expected \[4, 4\]"),
        (lambda f: f.update(file_path="images/none.png"), "images/none.png: missing"),
    ],
)
def test_a_wrong_frame_is_named(damaged, change, message):
    edit(damaged, change)
    with pytest.raises(InputError, match=message):
        read_capture("vhap", damaged, ImportConfig())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("jaw_pose", None, "00002.npz: field 'jaw_pose' is missing"),
        ("jaw_pose", np.zeros((1, 6)), r"'jaw_pose' has shape \[1, 6\], expected \[3\]"),
        ("shape", np.ones(300), "00002.npz: field 'shape' differs from 00000.npz's"),
        ("expr", np.full((1, 100), np.inf), "00002.npz: field 'expr' holds NaN or infinity"),
    ],
)
def test_a_wrong_parameter_is_named(damaged, scene, key, value, message):
    values = flame_param(scene, 2)
    del values[key]
    if value is not None:
        values[key] = value
    np.savez(damaged / "flame_param" / "00002.npz", **values)
    with pytest.raises(InputError, match=message):
        read_capture("vhap", damaged, ImportConfig())


@pytest.mark.parametrize("gone", ["transforms.json", "flame_param/00001.npz"])
def test_a_missing_file_is_named(damaged, gone):
    (damaged / gone).unlink()
    for split in ("train", "val", "test"):
        if gone == "transforms.json":
            (damaged / f"transforms_{split}.json").unlink()
    with pytest.raises(InputError, match=f"{gone}: missing"):
        read_capture("vhap", damaged, ImportConfig())


def test_offsets_of_another_mesh_are_refused(damaged, scene, flame_name, tmp_path):
    for t in range(FRAMES):
        values = flame_param(scene, t) | {"static_offset": np.zeros((1, 33, 3), np.float32)}
        np.savez(damaged / "flame_param" / f"{t:05d}.npz", **values)
    config = ImportConfig(head_model=flame_name, progress=False)
    with pytest.raises(InputError, match="static_offset has 33 vertices, head model 'tiny-flame'"):
        import_dataset("vhap", damaged, tmp_path / "out", config)


def test_a_moving_offset_is_left_out_and_said(damaged, scene):
    values = flame_param(scene, 2)
    values["dynamic_offset"] = np.full((1, 7, 3), 0.001)
    np.savez(damaged / "flame_param" / "00002.npz", **values)
    found = read_capture("vhap", damaged, ImportConfig())
    assert "dynamic_offset of 1 frames left out" in found.notes


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_hostile_npz_is_refused_and_not_run(damaged, scene, tmp_path):
    values: dict = flame_param(scene, 1)
    values["expr"] = np.array([_Trap(tmp_path / "sprung"), None], object)
    file = damaged / "flame_param" / "00001.npz"
    np.savez(file, **values)
    with pytest.raises(InputError, match="00001.npz: not an npz of numbers"):
        read_capture("vhap", damaged, ImportConfig())
    assert not (tmp_path / "sprung").exists()
    np.load(file, allow_pickle=True)["expr"]
    assert (tmp_path / "sprung").exists()
