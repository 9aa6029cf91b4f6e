from __future__ import annotations

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from cag_avatar_training.dataset import Dataset, DatasetInfo, DatasetWriter
from safetensors.numpy import load_file, save_file

from cag_avatar.camera import BLUR_VARIANCE
from cag_avatar.errors import InputError
from tests.conftest import TINY_FRAMES, TINY_SIZE


@pytest.fixture
def copied(tiny_dataset_path, tmp_path):
    """A dataset that a test may damage."""
    return shutil.copytree(tiny_dataset_path, tmp_path / "copy")


def test_round_trip(tiny_dataset):
    assert len(tiny_dataset) == TINY_FRAMES
    assert tiny_dataset.info.source == "tiny.mp4"
    assert tiny_dataset.tracking.codes.shape == (TINY_FRAMES, 52)
    assert tiny_dataset.tracking.timestamps[10] == pytest.approx(1.0, abs=1e-6)
    frame = tiny_dataset.frame(4)
    assert frame.alpha.shape == (TINY_SIZE, TINY_SIZE)
    assert 0.05 < frame.alpha.mean() < 0.95
    assert 0 < frame.mouth.sum() < frame.alpha.sum()


def test_channels_survive_as_rgb(tmp_path, tiny_dataset):
    image = np.zeros((TINY_SIZE, TINY_SIZE, 3), np.uint8)
    image[..., 0] = 200
    plane = np.full((TINY_SIZE, TINY_SIZE), 255, np.uint8)
    with DatasetWriter.create(tmp_path / "red") as writer:
        for _ in range(TINY_FRAMES):
            writer.add_frame(image, plane, plane // 255)
        writer.finish(tiny_dataset.info, tiny_dataset.tracking)
    target = Dataset.open(tmp_path / "red").frame(0).target(torch.ones(3))
    assert target[5, 5].tolist() == pytest.approx([200 / 255, 0, 0])


def test_smaller_frames_scale_the_camera(tiny_dataset):
    frame = tiny_dataset.frame(0, TINY_SIZE // 2)
    assert frame.target(torch.ones(3)).shape == (TINY_SIZE // 2, TINY_SIZE // 2, 3)
    assert frame.camera.fx == pytest.approx(tiny_dataset.info.camera.fx / 2)
    # The same blur on the head: half the standard deviation in pixels.
    assert tiny_dataset.frame(0).camera.blur_variance == pytest.approx(BLUR_VARIANCE)
    assert frame.camera.blur_variance == pytest.approx(BLUR_VARIANCE / 4)


def _edit(path, **changes):
    file = path / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 1}, "dataset.json: version 1, this program reads 2"),
        ({"format": "x"}, "dataset.json: format"),
        ({"frames": -1}, "field 'frames'"),
        ({"camera": {"width": 3}}, "camera needs"),
        ({"code_names": ["jawOpen"]}, "field 'code_names'"),
        ({"fps": None}, "dataset.json: field"),
    ],
)
def test_bad_text_is_named(copied, changes, message):
    _edit(copied, **changes)
    with pytest.raises(InputError, match=message):
        Dataset.open(copied)


def test_an_imported_dataset_keeps_its_split_and_needs_no_landmarks(copied):
    dataset = Dataset.open(copied)
    file = copied / "tracking.safetensors"
    tensors = load_file(file)
    del tensors["landmarks"]
    save_file(tensors, file)
    imported = {"format": "insta", "missing": ["jaw"]}
    opened = dataset.with_info(replace(dataset.info, held_out=(4, 2), imported=imported))
    assert opened.tracking.landmarks is None
    assert opened.split("source")[1] == [2, 4]
    assert Dataset.open(copied).info == opened.info
    assert opened.info.imported == imported
    _edit(copied, held_out=[TINY_FRAMES])
    with pytest.raises(InputError, match="'held_out'"):
        Dataset.open(copied)


def test_missing_or_broken_files_are_named(copied):
    for name in ("alpha/00003.png", "tracking.safetensors", "dataset.json"):
        broken = copied.with_name("broken")
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(copied, broken)
        (broken / name).unlink()
        with pytest.raises(InputError, match=f"{name}: missing"):
            Dataset.open(broken)
    data = (copied / "tracking.safetensors").read_bytes()
    (copied / "tracking.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="missing or truncated"):
        Dataset.open(copied)


def test_wrong_picture_size_is_named(copied):
    cv2.imwrite(str(copied / "parsing" / "00000.png"), np.zeros((8, 9), np.uint8))
    with pytest.raises(InputError, match=r"00000.png: 9x8 pixels, dataset.json says 72x72"):
        Dataset.open(copied)


def test_unknown_part_labels_are_named(copied):
    cv2.imwrite(str(copied / "parsing" / "00000.png"), np.full((72, 72), 7, np.uint8))
    with pytest.raises(InputError, match="00000.png: holds label 7, the largest is 6"):
        Dataset.open(copied)


def test_parts_by_name(copied):
    plane = np.zeros((72, 72), np.uint8)
    plane[10:60, 10:60] = 1
    plane[20:24, 30:36] = 2
    plane[40:50, 20:40] = 4
    plane[43:46, 22:38] = 5
    plane[43:44, 25:35] = 6
    cv2.imwrite(str(copied / "parsing" / "00001.png"), plane)
    frame = Dataset.open(copied).frame(1)
    np.testing.assert_array_equal(frame.parsing.numpy(), plane)
    np.testing.assert_array_equal(frame.mouth.numpy(), (plane >= 4).astype(np.float32))
    np.testing.assert_array_equal(frame.mask("eye_left", "teeth").numpy(), np.isin(plane, (2, 6)))
    with pytest.raises(KeyError, match="no part 'nose'"):
        frame.mask("nose")
    small = Dataset.open(copied).frame(1, size=36)
    assert set(np.unique(small.parsing.numpy())) <= set(range(7))
    np.testing.assert_array_equal(small.mask("lips").numpy()[20:21, 10:20], True)


def test_bad_tensors_are_named(copied):
    file = copied / "tracking.safetensors"
    good = load_file(file)
    nan = good["codes"].copy()
    nan[2, 3] = np.nan
    for change, message in (
        ({"codes": nan}, "'codes' holds NaN"),
        ({"head_pose": good["head_pose"][:-1]}, "'head_pose' has shape"),
    ):
        save_file(good | change, file)
        with pytest.raises(InputError, match=message):
            Dataset.open(copied)
    del good["landmarks"]
    save_file(good, file)
    with pytest.raises(InputError, match="'landmarks' is missing"):
        Dataset.open(copied)


def test_an_unfinished_dataset_leaves_nothing(tmp_path, tiny_dataset):
    target = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt), DatasetWriter.create(target):
        raise KeyboardInterrupt
    with pytest.raises(RuntimeError), DatasetWriter.create(target):
        pass
    assert list(tmp_path.iterdir()) == []


def test_other_folders_are_not_overwritten(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("x")
    with (
        pytest.raises(InputError, match="not a dataset"),
        DatasetWriter.create(tmp_path / "letters"),
    ):
        pass
    assert (tmp_path / "letters" / "dear.txt").read_text() == "x"
    with (
        pytest.raises(InputError, match="not a folder"),
        DatasetWriter.create(tmp_path / "letters" / "dear.txt"),
    ):
        pass


def test_frames_must_fit(tmp_path, tiny_dataset):
    plane = np.zeros((8, 8), np.uint8)
    with pytest.raises(ValueError, match="do not fit"), DatasetWriter.create(tmp_path / "a") as w:
        w.add_frame(np.zeros((8, 9, 3), np.uint8), plane, plane)
    with pytest.raises(ValueError, match="part labels"), DatasetWriter.create(tmp_path / "c") as w:
        w.add_frame(np.zeros((8, 8, 3), np.uint8), plane, plane + np.uint8(255))
    with (
        pytest.raises(ValueError, match="tracked frames"),
        DatasetWriter.create(tmp_path / "b") as w,
    ):
        w.finish(DatasetInfo(tiny_dataset.info.camera, 10.0, "x"), tiny_dataset.tracking)


def test_frames_with_a_covered_mouth_are_in_no_split(copied, caplog):
    caplog.set_level("INFO")
    file = copied / "tracking.safetensors"
    reliability = np.ones((TINY_FRAMES, 3), np.float32)
    reliability[[2, 13], 0] = 0.4
    reliability[5, 1] = 0.0  # an eye does not matter
    source = np.arange(TINY_FRAMES, dtype=np.int64) * 2
    save_file(load_file(file) | {"reliability": reliability, "source_frames": source}, file)
    dataset = Dataset.open(copied)
    assert dataset.tracking.source_frames.dtype == np.int64
    np.testing.assert_array_equal(dataset.tracking.source_frames, source)
    train, held_out = dataset.split("last")
    assert train == [0, 1, *range(3, 12)]
    assert held_out == [12, 14]
    assert "2 frames with a covered mouth are left out" in caplog.text
    reliability[12:, 0] = 0
    save_file(load_file(file) | {"reliability": reliability}, file)
    with pytest.raises(InputError, match="the mouth is covered in 4 of 15 frames"):
        Dataset.open(copied).split("last")


def test_tensors_that_older_datasets_lack_have_defaults(copied):
    file = copied / "tracking.safetensors"
    values = load_file(file)
    del values["reliability"], values["source_frames"]
    save_file(values, file)
    tracking = Dataset.open(copied).tracking
    np.testing.assert_array_equal(tracking.source_frames, np.arange(TINY_FRAMES))
    assert (tracking.reliability == 1).all()


def test_scores_are_optional_and_checked(tmp_path, tiny_dataset):
    assert tiny_dataset.tracking.scores is None
    plane = np.full((TINY_SIZE, TINY_SIZE), 255, np.uint8)
    scores = np.random.default_rng(0).uniform(size=(TINY_FRAMES, 52)).astype(np.float32)
    with DatasetWriter.create(tmp_path / "d") as writer:
        for _ in range(TINY_FRAMES):
            writer.add_frame(np.stack([plane] * 3, -1), plane, plane // 255)
        writer.finish(tiny_dataset.info, replace(tiny_dataset.tracking, scores=scores))
    np.testing.assert_array_equal(Dataset.open(tmp_path / "d").tracking.scores, scores)
    file = tmp_path / "d" / "tracking.safetensors"
    save_file(load_file(file) | {"scores": scores[:, :51].copy()}, file)
    with pytest.raises(InputError, match="'scores' has shape"):
        Dataset.open(tmp_path / "d")
