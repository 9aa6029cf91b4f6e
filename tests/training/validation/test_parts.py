"""The parts of the validator against plain references."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from cag_avatar_training.validation import (
    EmbeddedVideo,
    ValidationConfig,
    ValidationResult,
    judge,
    overlay_video,
    write_page,
)
from cag_avatar_training.validation.charts import angle_map, curve
from cag_avatar_training.validation.findings import counted, frame_ranges, frames_in_words
from cag_avatar_training.validation.mesh_motion import head_angles
from cag_avatar_training.validation.motion_agreement import compare_series
from cag_avatar_training.validation.picture_figures import (
    follow,
    matte_figures,
    picture_change,
    sharpness,
    toggled,
)
from cag_avatar_training.validation.sides import exchanged_columns

from cag_avatar.head_models import ARKIT_INDEX, ARKIT_NAMES


def disc(radius: int, size: int = 128, centre: tuple[int, int] = (64, 64)) -> np.ndarray:
    return cv2.circle(np.zeros((size, size), np.uint8), centre, radius, 255, -1)


def test_frames_in_words() -> None:
    assert frame_ranges([7, 3, 4, 5, 9]) == ((3, 5), (7, 7), (9, 9))
    assert frame_ranges([3, 5, 9], join=2) == ((3, 5), (9, 9))
    assert frames_in_words(((3, 5), (9, 9))) == "frames 3-5, 9"
    assert frames_in_words(((4, 4),)) == "frame 4"
    assert frames_in_words(()) == "all frames"
    assert frames_in_words(((0, 1), (4, 5), (8, 9)), most=2) == "frames 0-1, 4-5 and 1 more place"
    assert (counted(1, "frame"), counted(0, "frame")) == ("1 frame", "0 frames")


def test_matte_figures() -> None:
    head = disc(40) > 0
    clean = matte_figures(disc(45), head)
    assert (clean.hole, clean.outside, clean.island) == (0, 0, 0)
    holed = disc(45)
    holed[60:68, 60:68] = 0
    figures = matte_figures(holed, head)
    assert figures.hole == pytest.approx(64 / figures.inner.sum())
    assert figures.outside == pytest.approx(64 / head.sum())
    matte = disc(45)
    matte[:10, :20] = 255
    assert matte_figures(matte, head).island == pytest.approx(200 / (disc(45) > 0).sum())
    moved = matte_figures(disc(45, centre=(40, 64)), head)
    assert moved.outside > 0.05
    assert moved.outside_at[0] > 0.2  # the head sticks out to the right
    assert abs(moved.outside_at[1]) < 0.02


def test_toggled_counts_the_width_of_what_comes_and_goes() -> None:
    small, large = disc(30, 256), disc(32, 256)
    none = np.zeros(small.shape, bool)
    assert toggled(small, large, small, none) == pytest.approx(2, rel=0.2)
    assert toggled(small, large, large, none) == 0
    assert toggled(small, large, small, ~none) == 0


def test_pictures_compared() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(60, 200, (128, 128)).astype(np.uint8)
    everywhere = np.ones(picture.shape, bool)
    assert picture_change(picture, picture, everywhere) == 0
    assert picture_change(picture, picture + 3, everywhere) == 3
    blurred = np.asarray(cv2.GaussianBlur(picture, (0, 0), 3), np.uint8)
    assert sharpness(blurred, everywhere) < 0.1 * sharpness(picture, everywhere)
    dim = (picture // 2).astype(np.uint8)
    assert sharpness(dim, everywhere) == pytest.approx(sharpness(picture, everywhere), rel=0.05)


def test_motion_is_followed() -> None:
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(128, 90, (128, 128)), (0, 0), 2)
    before = np.clip(noise, 0, 255).astype(np.uint8)
    shift = np.float32([[1, 0, 3.5], [0, 1, -2.0]])
    after = cv2.warpAffine(before, shift, (128, 128), borderMode=cv2.BORDER_REFLECT)
    points = rng.uniform(20, 108, (40, 2)).astype(np.float32)
    flow, good = follow(before, np.asarray(after, np.uint8), points)
    assert good.mean() > 0.9
    np.testing.assert_allclose(np.median(flow[good], axis=0), [3.5, -2.0], atol=0.1)


@pytest.mark.parametrize("shift", [-2, 0, 3])
def test_a_shift_of_series_is_found(shift: int) -> None:
    rng = np.random.default_rng(2)
    seen = cv2.GaussianBlur(rng.normal(size=(120, 3)), (1, 15), 1.5)
    tracked = np.roll(seen, shift, axis=0) * 0.8
    agreement = compare_series(seen, np.ones(120, bool), tracked, 3)
    assert agreement.best() == shift
    assert agreement.explained(shift) > 0.9


def test_partners() -> None:
    columns = exchanged_columns(ARKIT_NAMES)
    assert columns is not None
    assert columns[ARKIT_INDEX["eyeBlinkLeft"]] == ARKIT_INDEX["eyeBlinkRight"]
    assert columns[ARKIT_INDEX["mouthRight"]] == ARKIT_INDEX["mouthLeft"]
    assert columns[ARKIT_INDEX["jawOpen"]] == ARKIT_INDEX["jawOpen"]
    assert exchanged_columns(("a_L", "b", "a_R")) == [2, 1, 0]
    assert exchanged_columns(("expression0", "expression1")) is None


def test_head_angles() -> None:
    yaw, pitch = np.deg2rad(20), np.deg2rad(-7)
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    pose = np.eye(4)[None]
    pose[0, :3, :3] = np.diag([1, -1, -1]) @ about_y @ about_x
    np.testing.assert_allclose(head_angles(pose.astype(np.float32)), [[-7, 20, 0]], atol=1e-4)
    # Turned to the subject's left, the face looks to the right of the picture.
    assert (pose[0, :3, :3] @ [0, 0, 1])[0] > 0


def test_curves_keep_their_peaks_when_thinned() -> None:
    values = np.zeros(5000)
    values[3333] = 1
    svg = re.search("<svg.*</svg>", curve("blink", values, 0, 1))
    assert svg is not None
    line = ElementTree.fromstring(svg.group()).find("polyline")
    assert line is not None
    points = [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
    assert len(points) < 700
    assert min(points, key=lambda p: p[1])[0] == pytest.approx(280 * 3333 / 4999, abs=0.1)


def test_angle_map_counts_every_frame() -> None:
    yaw, pitch = np.array([1.0, 2.0, -60.0, 89.0]), np.array([3.0, 1.0, -70.0, 20.0])
    counts = re.findall(r": (\d+) frames", angle_map(yaw, pitch))
    assert sum(map(int, counts)) == 4
    assert "yaw 0 to 5, pitch 0 to 5 degrees: 2 frames" in angle_map(yaw, pitch)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_is_whole_and_fetches_nothing(
    clean_result: ValidationResult, tmp_path: Path
) -> None:
    info = dataclasses.replace(clean_result.evidence.info, source="<b>&.mp4")
    codes = clean_result.evidence.tracking.codes * np.float32(2)
    evidence = dataclasses.replace(
        clean_result.evidence,
        info=info,
        tracking=dataclasses.replace(clean_result.evidence.tracking, codes=codes),
    )
    video = tmp_path / "v.mp4"
    video.write_bytes(b"video")
    page = write_page(
        tmp_path / "page.html", "Dataset <x>", judge(evidence, ValidationConfig()),
        EmbeddedVideo(video, 2, 12.5),
    ).read_text()  # fmt: skip
    parser = _Tags()
    parser.feed(page)
    tags = parser.tags
    assert "Dataset &lt;x&gt;" in page
    assert "&lt;b&gt;&amp;.mp4" in page
    assert 'class="finding error"' in page
    assert "leaves its range of 0 to 1" in page
    for svg in re.findall("<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(svg)
    charts = [a for tag, a in tags if tag == "svg" and a.get("class") == "time"]
    assert len(charts) == 52 + 5 + 1
    assert not [a for tag, a in tags if tag in ("link", "img", "iframe")]
    sources = [a["src"] for _, a in tags if "src" in a]
    assert sources == ["data:video/mp4;base64,dmlkZW8="]
    assert "http" not in page


def test_overlay_video(clean_result: ValidationResult, tmp_path: Path) -> None:
    evidence = clean_result.evidence
    model, info = evidence.head.model, evidence.info
    height = info.camera.height
    grey = np.full((height, info.camera.width, 3), 128, np.uint8)
    file = tmp_path / "overlay.mp4"
    config = ValidationConfig(max_video_frames=4)
    assert evidence.landmarks is not None
    shown = {}
    t = evidence.tracking
    with overlay_video(file, 7, info, model, config) as video:
        for frame in range(7):
            pose = (t.codes, t.head_pose, t.torso_pose)
            vertices = model.posed_vertices(
                evidence.head.rest, *(_row(x, frame) for x in pose)
            )[0].numpy()  # fmt: skip
            points = evidence.landmarks[frame]
            shown[frame] = video.draw(frame, grey, vertices, points)
            video.add(frame, grey, vertices, points)
        assert (video.step, video.rate) == (2, info.fps / 2)
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
    assert len(frames) == 4
    drawn = frames[2].astype(int)
    assert np.abs(drawn - shown[4]).mean() < 6
    # The tip of the nose: a landmark, in yellow.
    column, row = np.floor(evidence.landmarks[4, 4]).astype(int)
    assert shown[4][row, column].tolist() == [255, 240, 60]


def _row(values: np.ndarray, frame: int) -> torch.Tensor:
    return torch.from_numpy(values[frame : frame + 1])
