"""Driving an avatar by a dataset, and the report page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from cag_avatar_training.create import create
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.reenactment import DriveConfig, is_own_dataset, reenact
from cag_avatar_training.report import write_report

from cag_avatar.avatar.animator import Animator
from cag_avatar.avatar.driver import measure_driver
from cag_avatar.errors import InputError
from cag_avatar.head_models import ARKIT_INDEX


def test_dataset_drives_frame_by_frame(
    tiny_avatar_path: Path, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    animator = Animator.load(tiny_avatar_path, "cpu")
    out = tmp_path / "again.mp4"
    seen: list[tuple[int, int]] = []
    written = reenact(animator, tiny_dataset.path, out, lambda *x: seen.append(x))
    assert written == len(tiny_dataset)
    assert seen[-1] == (written, written)
    capture = cv2.VideoCapture(str(out))
    found, first = capture.read()
    tracking = tiny_dataset.tracking
    expected = animator.render(tracking.codes[0], tracking.head_pose[0], tracking.torso_pose[0])
    assert found
    assert first.shape == expected.shape
    difference = np.abs(first[..., ::-1].astype(float) - expected)
    assert difference.mean() < 8  # the codec is lossy


def test_drive_that_is_neither(tiny_avatar_path: Path, tmp_path: Path) -> None:
    animator = Animator.load(tiny_avatar_path, "cpu")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="nothing.mp4"):
        reenact(animator, tmp_path / "nothing.mp4", tmp_path / "out" / "o.mp4")
    assert not list((tmp_path / "out").iterdir())


def test_create_without_a_video_leaves_no_avatar(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none.mp4"):
        create(tmp_path / "none.mp4", tmp_path / "a.cag", tmp_path / "work")
    assert not (tmp_path / "a.cag").exists()
    assert not (tmp_path / "work" / "dataset").exists()


def test_report_is_self_contained(tiny_dataset: Dataset, tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    cv2.imwrite(str(picture), np.zeros((8, 8, 3), np.uint8))
    metrics = {
        "as_tracked": {"psnr": 21.5, "ssim": 0.9, "l1": 0.01, "stlpips": 0.1, "psnr_matte": 20.0},
        "protocol": {"held_out_frames": 3, "split": "last", "resolution": [72, 72]},
    }
    page = write_report(
        tmp_path / "r.html", "A <title>", tiny_dataset, metrics, {"shown": picture}, {"x": 1}
    ).read_text()
    assert "21.5" in page
    assert "A &lt;title&gt;" in page
    assert "data:image/jpeg;base64," in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_report_names_a_picture_that_is_missing(tiny_dataset: Dataset, tmp_path: Path) -> None:
    metrics = {"protocol": {"held_out_frames": 3, "split": "last", "resolution": [72, 72]}}
    with pytest.raises(InputError, match="gone.png"):
        write_report(
            tmp_path / "r.html", "t", tiny_dataset, metrics, {"gone": tmp_path / "gone.png"}, {}
        )
    assert not (tmp_path / "r.html").exists()


def test_another_persons_dataset_drives_relative_to_their_rest(
    tiny_avatar_path: Path,
    tiny_dataset: Dataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")
    animator = Animator.load(tiny_avatar_path, "cpu")
    assert is_own_dataset(animator, tiny_dataset)
    tracking = tiny_dataset.tracking
    identity = tracking.identity.copy()
    identity[0] += 1.0
    other = Dataset(tiny_dataset.path, tiny_dataset.info, replace(tracking, identity=identity))
    assert not is_own_dataset(animator, other)
    monkeypatch.setattr(Dataset, "open", lambda path: other)
    shown: list[tuple[np.ndarray, np.ndarray | None]] = []
    render = animator.render

    def watch(code: np.ndarray, pose: np.ndarray | None = None, torso: object = None) -> object:
        shown.append((code, pose))
        return render(code, pose)

    monkeypatch.setattr(animator, "render", watch)
    reenact(animator, other.path, tmp_path / "a.mp4")
    assert "another person's: expression relative, head relative" in caplog.text
    jaw = ARKIT_INDEX["jawOpen"]
    driver = measure_driver(tracking.codes, animator.layout)
    assert driver.rest[jaw] > 0
    expected = animator.transfer(tracking.codes[3], driver)
    np.testing.assert_allclose(shown[3][0], expected)
    assert shown[3][0][jaw] != pytest.approx(float(tracking.codes[3][jaw]), abs=1e-4)
    # As the avatar's own dataset would be taken, when asked for.
    shown.clear()
    config = DriveConfig("absolute", "absolute", gaze="none")
    reenact(animator, other.path, tmp_path / "a.mp4", config=config)
    inside = min(float(tracking.codes[3][jaw]), 0.8)
    assert shown[3][0][jaw] >= inside
    np.testing.assert_allclose(shown[3][1], tracking.head_pose[3])
    shown.clear()
    reenact(animator, other.path, tmp_path / "a.mp4", config=DriveConfig(head="none"))
    assert all(pose is None for _, pose in shown)


def test_codes_of_another_head_model_and_a_missing_regressor_are_refused(
    tiny_avatar_path: Path, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    animator = Animator.load(tiny_avatar_path, "cpu")
    with pytest.raises(InputError, match="train-regressor"):
        reenact(animator, tiny_dataset.path, tmp_path / "a.mp4", config=DriveConfig(regressor="on"))
    info = replace(tiny_dataset.info, code_names=("a", "b"), head_model="mine")
    tracking = replace(tiny_dataset.tracking, codes=np.zeros((len(tiny_dataset), 2), np.float32))
    foreign = Dataset(tiny_dataset.path, info, tracking)
    monkeypatch.setattr(Dataset, "open", lambda path: foreign)
    with pytest.raises(InputError, match="'mine'"):
        reenact(animator, foreign.path, tmp_path / "a.mp4")
