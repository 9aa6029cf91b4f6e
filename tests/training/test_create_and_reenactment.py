"""Driving an avatar by a dataset, and the report page."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from cag_avatar_training.create import create
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.reenactment import reenact
from cag_avatar_training.report import write_report

from cag_avatar.avatar.animator import Animator
from cag_avatar.errors import InputError


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
