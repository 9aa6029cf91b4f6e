from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cag_avatar_training.importers import ImportConfig, import_dataset, read_capture
from cag_avatar_training.importers.retrack import _write_video
from cag_avatar_training.synthetic import load_truth
from cag_avatar_training.video import probe_video, read_frames
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models import REGIONS, load_head_model
from cag_avatar.rendering.mesh import rasterize
from tests.training.importers.scenes import imported_vertices

#: Every eighth frame of the clip.
STEP = 8
TORSO = [REGIONS.index("shoulders"), REGIONS.index("neck")]
FX, FY, CX, CY = 610.0, 620.0, 0.52, 0.47


def known_view(t: int) -> NDArray[np.float64]:
    """World to camera, OpenCV axes."""
    c, s = np.cos(0.1 * t), np.sin(0.1 * t)
    view = np.eye(4)
    view[:3, :3] = np.diag([1.0, -1.0, -1.0]) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    view[:3, 3] = 0.01 * t, 0.02, 0.5
    return view


def write_nerface(
    frames: list[NDArray[np.uint8]], folder: Path, shuffle: bool, with_map: bool = True
) -> list[int]:
    """As real_to_nerf.py does: training and validation shuffled, test the end of the clip.

    Returns the number in the clip of each training frame.
    """
    count = len(frames)
    test = list(range(count - 4, count))
    mixed = list(range(count - 4))
    if shuffle:
        mixed = np.random.default_rng(2).permutation(mixed).tolist()
        train, val = mixed[:-2], mixed[-2:]
    else:
        val = [3, 6]
        train = [t for t in mixed if t not in val]
    width = frames[0].shape[1]
    for split, numbers in (("train", train), ("val", val), ("test", test)):
        (folder / split).mkdir(parents=True)
        rows = []
        for k, t in enumerate(numbers):
            name = f"./{split}/f_{k:04d}"
            cv2.imwrite(str(folder / f"{name}.png"), frames[t][..., ::-1])
            to_world = np.linalg.inv(known_view(t))
            to_world[:, 1:3] *= -1  # y up, z backward
            expression = 0.2 * np.sin(0.3 * t + np.arange(76))
            rows.append(
                {
                    "file_path": name,
                    "bbox": [0.0, 1.0, 0.0, 1.0],
                    "transform_matrix": to_world.tolist(),
                    "expression": expression.tolist(),
                }
            )
        values = {
            "camera_angle_x": 2 * np.arctan(width / (2 * FX)),
            "frames": rows,
            "intrinsics": [-FX, FY, CX, CY],
        }
        (folder / f"transforms_{split}.json").write_text(json.dumps(values))
    if with_map:
        table = np.stack([np.arange(count), np.full(count, -1)], 1).astype(float)
        table[train, 1] = np.arange(len(train))
        np.save(folder / "index_map.npy", table)
    return train


def plain_frames(count: int) -> list[NDArray[np.uint8]]:
    """Frames that carry their number as a grey level."""
    return [np.full((24, 32, 3), 5 * t, np.uint8) for t in range(count)]


def numbers_of(images: tuple[Path, ...]) -> list[int]:
    return [int(cv2.imread(str(p))[0, 0, 0]) // 5 for p in images]


@pytest.mark.parametrize(
    ("shuffle", "with_map", "note"),
    [
        (True, True, "order from index_map.npy"),
        (True, False, "the frames are shuffled and index_map.npy is missing: ordered by likeness"),
        (False, False, None),
    ],
)
def test_the_order_of_the_clip_comes_back(shuffle, with_map, note, tmp_path):
    write_nerface(plain_frames(24), tmp_path, shuffle, with_map)
    capture = read_capture("nerface", tmp_path, ImportConfig())
    assert capture.flame is None
    order = numbers_of(capture.images)
    # Likeness does not tell the direction of time.
    assert order in ([*range(24)], [*range(19, -1, -1), *range(20, 24)])
    if note is None or with_map:
        assert order == [*range(24)]
    assert list(capture.notes) == ([] if note is None else [note])
    held = {order[i] for i in capture.held_out}
    assert {20, 21, 22, 23} < held
    assert len(held) == 6
    for t, view in zip(order, capture.world_to_camera, strict=True):
        np.testing.assert_allclose(view, known_view(t), atol=1e-9)
    camera = capture.camera
    assert (camera.width, camera.height) == (32, 24)
    assert (camera.fx, camera.fy) == (FX, FY)
    assert (camera.cx, camera.cy) == pytest.approx((CX * 32, CY * 24))


def test_the_pictures_reach_the_tracker_unchanged(tmp_path):
    random = np.random.default_rng(0)
    frames = [random.integers(0, 255, (24, 32, 3), dtype=np.uint8) for _ in range(12)]
    write_nerface(frames, tmp_path / "in", shuffle=True)
    capture = read_capture("nerface", tmp_path / "in", ImportConfig())
    _write_video(capture, tmp_path / "clip.mkv", 25.0)
    info = probe_video(tmp_path / "clip.mkv")
    assert info.fps == pytest.approx(25.0)
    np.testing.assert_array_equal(np.stack(list(read_frames(info))), np.stack(frames))


def test_a_capture_is_tracked_again(face_video, tmp_path):
    frames = list(read_frames(probe_video(face_video)))[::STEP]
    write_nerface(frames, tmp_path / "in", shuffle=True)
    dataset = import_dataset(
        "nerface", tmp_path / "in", tmp_path / "out", ImportConfig(progress=False)
    )
    assert len(dataset) == len(frames)
    assert dataset.info.head_model == "anny"
    assert dataset.info.imported["tracked_again"]
    assert dataset.info.imported["source_camera"]["fx"] == FX
    train, held_out = dataset.split("source")
    assert held_out[-4:] == [*range(len(frames) - 4, len(frames))]
    assert (len(train), len(held_out)) == (len(frames) - 6, 6)

    # Our render of the tracked head overlays the head with its hair; the torso, whose shape the
    # tracker does not fit, is left out of both.
    truth = load_truth(face_video.with_suffix(".truth"))
    crop, size = dataset.info.crop, dataset.info.camera.width
    head = load_head_model("anny")
    faces = head.faces[~torch.isin(head.face_region, torch.tensor(TORSO))].numpy()
    for t, posed in enumerate(imported_vertices(dataset, "anny")):
        ours = rasterize(posed, faces, dataset.info.camera).face_index >= 0
        regions = truth.regions(t * STEP)
        rows, columns = (slice(crop[k], crop[k] + crop["size"]) for k in ("y", "x"))
        regions = cv2.resize(regions[rows, columns], (size, size), interpolation=cv2.INTER_NEAREST)
        theirs = ~np.isin(regions, [255, *TORSO])
        assert (ours & theirs).sum() / (ours | theirs).sum() >= 0.94


@pytest.fixture
def damaged(tmp_path) -> Path:
    write_nerface(plain_frames(12), tmp_path / "in", shuffle=False)
    return tmp_path / "in"


@pytest.mark.parametrize("gone", ["transforms_train.json", "train/f_0002.png", "test/f_0001.png"])
def test_a_missing_file_is_named(damaged, gone):
    (damaged / gone).unlink()
    with pytest.raises(InputError, match=f"{gone}: missing"):
        read_capture("nerface", damaged, ImportConfig())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("frames"), "transforms_train.json: field 'frames' is missing"),
        (
            lambda v: v.update(intrinsics=[1.0, 2.0]),
            r"'intrinsics' has shape \[2\], expected \[4\]",
        ),
        (lambda v: v.update(intrinsics=[900, 900, 0.5, 0.5]), "differ from frame 0's"),
        (
            lambda v: v["frames"][1].pop("transform_matrix"),
            r"'frames\[1\].transform_matrix' is missing",
        ),
    ],
)
def test_a_wrong_field_is_named(damaged, change, message):
    file = damaged / "transforms_train.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match=message):
        read_capture("nerface", damaged, ImportConfig())


def test_a_map_that_does_not_fit_is_named(damaged):
    np.save(damaged / "index_map.npy", np.zeros((4, 2)))
    with pytest.raises(
        InputError, match="index_map.npy: column 1 must name each of the 6 training"
    ):
        read_capture("nerface", damaged, ImportConfig())


def test_without_intrinsics_the_angle_counts(damaged):
    for split in ("train", "val", "test"):
        file = damaged / f"transforms_{split}.json"
        values = json.loads(file.read_text()) | {"intrinsics": []}
        file.write_text(json.dumps(values))
    camera = read_capture("nerface", damaged, ImportConfig()).camera
    assert (camera.fx, camera.cx, camera.cy) == pytest.approx((FX, 16, 12))


def test_a_missing_source_is_named(tmp_path):
    shutil.rmtree(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        import_dataset("nerface", tmp_path, tmp_path / "out")
