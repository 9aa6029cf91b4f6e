from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from cag_avatar_training.importers import ImportConfig, import_dataset, read_capture

from cag_avatar.errors import InputError
from tests.training.importers.flame_twin import FlamePose
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
from tests.training.importers.test_flashavatar import write_checkpoints

FRAMES = 5
#: The tracker skipped some: numbers of the frames.
FIRST = 7


def write_insta(scene: Scene, folder: Path, checkpoints: bool) -> list[np.ndarray]:
    """As INSTA's transforms.py does: frames in the order in which its processes finish."""
    covers = [scene.coverage(t) for t in range(len(scene))]
    for name in ("images", "flame/exp"):
        (folder / name).mkdir(parents=True)
    frames = []
    for t, cover in enumerate(covers):
        number = f"{t + FIRST:05d}"
        image = picture((cover > 0).astype(float), (0, 0, 0))
        rgba = np.concatenate([image[..., ::-1], grey(cover)[..., None]], -1)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), rgba)
        np.savetxt(folder / "flame" / "exp" / f"{number}.txt", scene.poses[t].expression, "%.8f")
        frames.append(
            {
                "transform_matrix": np.linalg.inv(scene.world_to_camera[t]).tolist(),
                "file_path": f"images/{number}.png",
                "mesh_path": f"meshes/{number}.obj",
                "exp_path": f"flame/exp/{number}.txt",
                "depth_path": f"depth/{number}.png",
                "seg_mask_path": f"seg_mask/{number}.png",
            }
        )
    still = np.zeros(3)
    rest = FlamePose(np.zeros(100), still, still, np.deg2rad([12.0, 0, 0]), np.zeros((2, 3)), still)
    canonical = scene.twin.vertices(scene.shape, rest)
    lines = [f"v {x:.8f} {y:.8f} {z:.8f}" for x, y, z in canonical]
    lines += [f"f {a} {b} {c}" for a, b, c in scene.twin.f + 1]
    (folder / "canonical.obj").write_text("\n".join(lines))
    data = {"w": float(WIDTH), "h": float(HEIGHT), "cx": CX, "cy": CY, "fl_x": FX, "fl_y": FY}
    shuffled = [frames[k] for k in (3, 0, 4, 1, 2)]
    for name, some in (("", shuffled), ("_train", frames[:3]), ("_test", frames[3:])):
        (folder / f"transforms{name}.json").write_text(json.dumps(data | {"frames": some}))
    if checkpoints:
        write_checkpoints(scene, folder / "checkpoint", FIRST)
    return covers


@pytest.fixture(scope="module")
def scene(twin) -> Scene:
    return make_scene(twin, FRAMES, camera_moves=True, seed=5)


@pytest.fixture(scope="module")
def capture(scene, tmp_path_factory) -> tuple[Path, list[np.ndarray]]:
    folder = tmp_path_factory.mktemp("insta") / "bala"
    return folder, write_insta(scene, folder, checkpoints=True)


@pytest.fixture
def damaged(capture, tmp_path) -> Path:
    return Path(shutil.copytree(capture[0], tmp_path / "copy"))


def test_the_imported_mesh_overlays_the_pictures(capture, scene, flame_name, tmp_path):
    config = ImportConfig(head_model=flame_name, fps=20.0, progress=False)
    dataset = import_dataset("insta", capture[0], tmp_path / "out", config)
    assert min(overlay_iou(dataset, flame_name)) >= 0.97
    for t, ours in enumerate(imported_vertices(dataset, flame_name)):
        np.testing.assert_allclose(ours, scene.camera_vertices(t), atol=1e-5)
        np.testing.assert_allclose(dataset.frame(t).alpha.numpy(), capture[1][t], atol=0.01)
    assert dataset.info.held_out == (3, 4)
    assert dataset.info.imported["missing"] == []
    np.testing.assert_allclose(dataset.tracking.timestamps, np.arange(FRAMES) / 20)


def test_without_checkpoints_the_rest_is_neutral_and_named(twin, flame_name, tmp_path, caplog):
    scene = make_scene(twin, 5, camera_moves=True, seed=6)
    still = [replace(p, jaw=np.zeros(3), eyes=np.zeros((2, 3))) for p in scene.poses]
    scene = replace(scene, poses=still)
    write_insta(scene, tmp_path / "in", checkpoints=False)
    config = ImportConfig(head_model=flame_name, progress=False)
    dataset = import_dataset("insta", tmp_path / "in", tmp_path / "out", config)
    assert dataset.info.imported["missing"] == ["jaw", "eyes", "eyelids"]
    assert "insta has no jaw: neutral values" in caplog.text
    np.testing.assert_array_equal(dataset.tracking.codes[:, 100:106], [[1, 0, 0, 0, 1, 0]] * 5)
    # The shape comes from canonical.obj, whose jaw is open: what it says of the surface counts.
    assert np.corrcoef(dataset.tracking.identity, scene.shape)[0, 1] > 0.97
    for t, ours in enumerate(imported_vertices(dataset, flame_name)):
        np.testing.assert_allclose(ours, scene.camera_vertices(t), atol=3e-4)
    assert min(overlay_iou(dataset, flame_name)) >= 0.97

    (tmp_path / "in" / "canonical.obj").unlink()
    assert "shape" in read_capture("insta", tmp_path / "in", config).missing
    (tmp_path / "in" / "canonical.obj").write_text("v 0 0 0\nv 1 0 0\n")
    with pytest.raises(InputError, match=r"canonical.obj has 2 vertices, head model 'tiny-flame'"):
        import_dataset("insta", tmp_path / "in", tmp_path / "out", config)


def test_350_are_held_out_where_no_file_says(capture, damaged):
    (damaged / "transforms_test.json").unlink()
    assert read_capture("insta", damaged, ImportConfig()).held_out == ()
    assert read_capture("insta", damaged, ImportConfig(test_frames=1)).held_out == (4,)


def edit(folder: Path, change) -> None:
    file = folder / "transforms.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("fl_x"), "transforms.json: field 'fl_x' is missing"),
        (lambda v: v.update(frames=[]), "field 'frames' must be a list that is not empty"),
        (lambda v: v["frames"].append(v["frames"][0]), "frame 10 is listed twice"),
        (
            lambda v: v["frames"][1].pop("transform_matrix"),
            r"field 'frames\[1\].transform_matrix' is missing",
        ),
        (
            lambda v: v["frames"][1].update(transform_matrix=np.zeros((4, 4)).tolist()),
            r"frames\[1\].transform_matrix' is not a rotation",
        ),
        (lambda v: v["frames"][0].update(file_path="images/x.png"), "does not end in a frame numb"),
        (lambda v: v.update(w=WIDTH + 1), r"00007.png: 80x96 pixels, the capture's camera has 81x"),
    ],
)
def test_a_wrong_field_is_named(damaged, change, message, flame_name, tmp_path):
    edit(damaged, change)
    with pytest.raises(InputError, match=message):
        import_dataset(
            "insta", damaged, tmp_path / "out", ImportConfig(head_model=flame_name, progress=False)
        )


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("transforms.json", "transforms.json: missing"),
        ("images/00008.png", "images/00008.png: missing"),
        ("flame/exp/00009.txt", "00009.txt: missing"),
        ("checkpoint/00010.frame", "00010.frame: missing"),
    ],
)
def test_a_missing_file_is_named(damaged, gone, message):
    (damaged / gone).unlink()
    with pytest.raises(InputError, match=message):
        read_capture("insta", damaged, ImportConfig())


def test_checkpoints_of_another_count_are_refused(damaged):
    """The same files, shifted by one."""
    folder = damaged / "checkpoint"
    for number in range(FIRST, FIRST + FRAMES):
        (folder / f"{number:05d}.frame").rename(folder / f"{number - 1:05d}.frame")
    shutil.copy(folder / "00006.frame", folder / "00011.frame")
    with pytest.raises(InputError, match=r"00007.frame: field 'flame.exp' is not what flame/exp"):
        read_capture("insta", damaged, ImportConfig())


def test_pictures_without_alpha_are_named(damaged, flame_name, tmp_path):
    file = damaged / "images" / "00009.png"
    cv2.imwrite(str(file), cv2.imread(str(file)))
    config = ImportConfig(head_model=flame_name, progress=False)
    with pytest.raises(InputError, match=r"00009.png: has no alpha channel"):
        import_dataset("insta", damaged, tmp_path / "out", config)
