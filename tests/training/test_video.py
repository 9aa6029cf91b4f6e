from __future__ import annotations

import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
from cag_avatar_training.video import VideoInfo, _vp8_size, probe_video, read_frames
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from tests.training.conftest import write_motion_jpeg, write_video


def gradient(width: int, height: int, red: int = 200) -> NDArray[np.uint8]:
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = red
    image[..., 1] = np.linspace(0, 255, width).astype(np.uint8)
    return image


def test_size_rate_and_length(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [gradient(96, 64)] * 12, fps=12.5)
    info = probe_video(str(path))
    assert info == VideoInfo(path, 96, 64, 12.5, 12)


def test_frames_come_in_order_as_rgb(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [gradient(96, 64, 25 * k) for k in range(10)])
    frames = list(read_frames(probe_video(path)))
    assert len(frames) == 10
    for k, frame in enumerate(frames):
        assert frame.dtype == np.uint8
        assert frame.shape == (64, 96, 3)
        assert abs(float(frame[..., 0].mean()) - 25 * k) < 6
        assert float(frame[:, -1, 1].mean()) > 200 > 50 > float(frame[:, 0, 1].mean())
        assert frame[..., 2].mean() < 10


def test_a_container_without_a_length_is_read_to_its_end(tmp_path: Path) -> None:
    path = write_motion_jpeg(tmp_path / "a.mjpeg", [gradient(96, 64)] * 9)
    info = probe_video(path)
    assert info.frames == 0
    assert info.fps > 0
    assert len(list(read_frames(info))) == 9


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.mp4", tmp_path):
        with pytest.raises(InputError, match=f"{path.name}: no such file"):
            probe_video(path)


@pytest.mark.parametrize("content", [b"", b"These are words.\n" * 50, bytes(range(256)) * 20])
def test_a_file_that_is_no_video_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"notes\.mp4: not a video .*; convert it to H\.264 MP4$"):
        probe_video(path)


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "voice.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    with pytest.raises(InputError, match=r"voice\.wav: (not a video|holds no pictures)"):
        probe_video(path)


def test_a_video_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "cut.mp4", [gradient(96, 64)] * 12)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(InputError, match=r"cut\.mp4: "):
        probe_video(path)


def test_a_frame_size_that_changes_is_named(tmp_path: Path) -> None:
    frames = [gradient(128, 96)] * 5 + [gradient(96, 64)] * 5
    path = write_motion_jpeg(tmp_path / "two.mjpeg", frames)
    with pytest.raises(
        InputError, match=r"two\.mjpeg: frame 5 is 96 x 64, the first was 128 x 96; re-encode"
    ):
        list(read_frames(probe_video(path)))


def test_vp8_key_frames_tell_their_size(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"VP80"), 25, (96, 64))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write VP8")
    for k in range(5):
        writer.write(gradient(96, 64, 40 * k))
    writer.release()
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    packets = [capture.read()[1].tobytes() for _ in range(5)]
    assert _vp8_size(packets[0]) == (96, 64)
    assert set(map(_vp8_size, packets[1:])) <= {None, (96, 64)}
    assert len(list(read_frames(probe_video(path)))) == 5


def test_a_decoder_that_shows_another_size_is_caught(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [gradient(96, 64)] * 3)
    with pytest.raises(InputError, match="frame 0 is 96 x 64, the first was 90 x 64"):
        list(read_frames(VideoInfo(path, 90, 64, 25.0, 3)))
