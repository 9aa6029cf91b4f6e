from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from cag_avatar_training.importers import ImportConfig, import_dataset, read_capture

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
    trimmed,
)

FRAMES = 4


def write_imavatar(scene: Scene, folder: Path) -> list[np.ndarray]:
    """As IMavatar's optimize.py does: camera looks along -z, all four times as large, fx < 0."""
    covers = [scene.coverage(t) for t in range(len(scene))]
    for name in ("image", "mask", "semantic"):
        (folder / name).mkdir(parents=True)
    frames = []
    for t, cover in enumerate(covers):
        name = str(t + 1)  # FFmpeg counts from 1
        cv2.imwrite(str(folder / "image" / f"{name}.png"), picture(cover, (90, 90, 90))[..., ::-1])
        cv2.imwrite(str(folder / "mask" / f"{name}.png"), grey(cover))
        cv2.imwrite(str(folder / "semantic" / f"{name}.png"), semantics(scene, t))
        view = scene.world_to_camera[t].copy()
        view[1:3] *= -1  # y up, z backward
        view[:3, 3] *= 4
        pose = scene.poses[t]
        frames.append(
            {
                "file_path": f"./image/{name}",
                "world_mat": view[:3].tolist(),
                "expression": pose.expression[:50].tolist(),
                "pose": np.concatenate(
                    [pose.rotation, pose.neck, pose.jaw, pose.eyes.ravel()]
                ).tolist(),
                "bbox": [-0.5, -0.5, 0.5, 0.5],
                "flame_keypoints": [[0.0, 0.0]],
            }
        )
    params = {
        "frames": frames,
        "intrinsics": [-FX / WIDTH, FY / HEIGHT, CX / WIDTH, CY / HEIGHT],
        "shape_params": scene.shape[:100].tolist(),
    }
    (folder / "flame_params.json").write_text(json.dumps(params))
    return covers


def eye_pixels(scene: Scene, t: int) -> list[tuple[int, int]]:
    """Row and column of the centres of the subject's left and right eye."""
    found = []
    for eye in (scene.twin.left_eye, scene.twin.right_eye):
        x, y, z = scene.camera_vertices(t)[eye].mean(0)
        found.append((int(FY * y / z + CY), int(FX * x / z + CX)))
    return found


def semantics(scene: Scene, t: int) -> np.ndarray:
    """Labels of CelebAMask-HQ: skin, the eyes, lips round a mouth."""
    plane = np.where(scene.coverage(t) > 0.5, 1, 0).astype(np.uint8)
    for label, (row, column) in zip((5, 4), eye_pixels(scene, t), strict=True):
        plane[row - 1 : row + 2, column - 2 : column + 3] = label
    row = 14 + eye_pixels(scene, t)[0][0]
    column = sum(c for _, c in eye_pixels(scene, t)) // 2
    plane[row - 2, column - 4 : column + 5] = 12
    plane[row - 1 : row + 1, column - 4 : column + 5] = 11
    plane[row + 1, column - 4 : column + 5] = 13
    return plane


@pytest.fixture(scope="module")
def scene(twin) -> Scene:
    moving = make_scene(twin, FRAMES, camera_moves=False, neck=True)
    scene = trimmed(moving, 100, 50)
    # IMavatar turns the head in FLAME; the format has no translation but the camera's.
    views = scene.world_to_camera.copy()
    for view, pose in zip(views, scene.poses, strict=True):
        view[:3, 3] += view[:3, :3] @ pose.translation
        pose.translation[:] = 0
    scene.world_to_camera[:] = views
    return scene


@pytest.fixture(scope="module")
def capture(scene, tmp_path_factory) -> tuple[Path, list[np.ndarray]]:
    folder = tmp_path_factory.mktemp("imavatar") / "MVI_1810"
    return folder, write_imavatar(scene, folder)


@pytest.fixture
def damaged(capture, tmp_path) -> Path:
    return Path(shutil.copytree(capture[0], tmp_path / "copy"))


def test_the_imported_mesh_overlays_the_pictures(capture, scene, flame_name, tmp_path):
    config = ImportConfig(head_model=flame_name, test_frames=1, progress=False)
    dataset = import_dataset("imavatar", capture[0], tmp_path / "out", config)
    assert (dataset.info.camera.width, dataset.info.camera.height) == (WIDTH, HEIGHT)
    assert min(overlay_iou(dataset, flame_name)) >= 0.97
    for t, ours in enumerate(imported_vertices(dataset, flame_name)):
        np.testing.assert_allclose(ours, scene.camera_vertices(t), atol=1e-5)
        np.testing.assert_allclose(dataset.frame(t).alpha.numpy(), capture[1][t], atol=0.01)
    assert dataset.info.held_out == (3,)
    assert dataset.info.imported["missing"] == ["eyelids"]
    assert dataset.tracking.identity.shape == (300,)


def test_mouth_and_eyes_are_the_semantic_files(capture, scene, flame_name, tmp_path):
    config = ImportConfig(head_model=flame_name, progress=False)
    dataset = import_dataset("imavatar", capture[0], tmp_path / "out", config)
    for t in range(FRAMES):
        plane = cv2.imread(str(capture[0] / "semantic" / f"{t + 1}.png"), cv2.IMREAD_GRAYSCALE)
        expected = np.isin(plane, (11, 12, 13)) & (capture[1][t] > 0)
        np.testing.assert_array_equal(dataset.frame(t).mouth.numpy() > 0, expected)
        # The parser's two eyes are the picture's; ours are the subject's.
        for name, (row, column) in zip(
            ("eye_left", "eye_right"), eye_pixels(scene, t), strict=True
        ):
            assert dataset.frame(t).mask(name).numpy()[row, column]
            assert dataset.frame(t).mask(name).sum() <= 15


def test_splattingavatars_copies_are_read(damaged, capture):
    """The folder is "images" though the file says "image", and the matte is the alpha channel."""
    (damaged / "image").rename(damaged / "images")
    shutil.rmtree(damaged / "mask")
    shutil.rmtree(damaged / "semantic")
    found = read_capture("imavatar", damaged, ImportConfig())
    assert found.images[0] == damaged / "images" / "1.png"
    assert found.mattes == ((),) * FRAMES


def test_the_older_intrinsics_are_pixels_of_512(damaged):
    def older(values):
        values["intrinsics"] = [-512 * FX / WIDTH, 512 * FY / HEIGHT, 512 * CX / WIDTH, 300.0]

    edit(damaged, older)
    camera = read_capture("imavatar", damaged, ImportConfig()).camera
    assert camera.fx == pytest.approx(FX)
    assert camera.cx == pytest.approx(CX)
    assert camera.cy == pytest.approx(300 * HEIGHT / 512)


def edit(folder: Path, change) -> None:
    file = folder / "flame_params.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("shape_params"), "field 'shape_params' is missing"),
        (lambda v: v.pop("frames"), "field 'frames' is missing"),
        (
            lambda v: v["frames"][2].update(pose=[0.0] * 14),
            r"field 'frames\[2\].pose' has shape \[14\], expected \[15\]",
        ),
        (
            lambda v: v["frames"][2].update(expression=["a"] * 50),
            r"field 'frames\[2\].expression' must hold numbers",
        ),
        (lambda v: v.update(intrinsics=[1, 1, 0.5]), r"'intrinsics' has shape \[3\], expected"),
        (lambda v: v["frames"].append(v["frames"][0]), "frame 1 is listed twice"),
        (lambda v: v["frames"][1].update(file_path="./image/9"), "image/9.png: missing"),
    ],
)
def test_a_wrong_field_is_named(damaged, change, message):
    edit(damaged, change)
    with pytest.raises(InputError, match=message):
        read_capture("imavatar", damaged, ImportConfig())


@pytest.mark.parametrize("gone", ["flame_params.json", "mask/2.png", "semantic/3.png"])
def test_a_missing_file_is_named(damaged, gone):
    (damaged / gone).unlink()
    with pytest.raises(InputError, match=f"{gone}: missing"):
        read_capture("imavatar", damaged, ImportConfig())


def test_what_is_not_json_is_named(damaged):
    (damaged / "flame_params.json").write_text("{")
    with pytest.raises(InputError, match="flame_params.json: not JSON"):
        read_capture("imavatar", damaged, ImportConfig())
