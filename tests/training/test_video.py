from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from cag_avatar_training.video import VideoInfo, probe_video, read_frames, read_video
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


def write_packets(path: Path, parts: list[Path]) -> Path:
    """Join the raw packets of videos: what a stream looks like whose camera changed its mode."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def encode(path: Path, codec: str, frames: list[NDArray[np.uint8]]) -> Path:
    """Encode RGB frames with a codec of FFmpeg."""
    height, width = frames[0].shape[:2]
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    try:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, pixels
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
    except (av.FFmpegError, ValueError):
        pytest.skip(f"this FFmpeg cannot write {codec}")
    return path


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("mjpeg", "mjpeg"), ("libx264", "h264"), ("libx265", "hevc")],
)
def test_a_frame_size_that_changes_is_named(tmp_path: Path, codec: str, suffix: str) -> None:
    parts = [
        encode(tmp_path / f"{width}.{suffix}", codec, [gradient(width, 96)] * 5)
        for width in (128, 96)
    ]
    path = write_packets(tmp_path / f"two.{suffix}", parts)
    with pytest.raises(
        InputError, match=r"two\.\w+: frame 5 is 96 x 96, the first was 128 x 96; re-encode"
    ):
        list(read_frames(probe_video(path)))


def test_a_decoder_that_shows_another_size_is_caught(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [gradient(96, 64)] * 3)
    with pytest.raises(InputError, match="frame 0 is 96 x 64, the first was 90 x 64"):
        list(read_frames(VideoInfo(path, 90, 64, 25.0, 3)))


def test_a_picture_is_turned_as_the_file_asks(tmp_path: Path) -> None:
    """A phone held upright writes lying pictures and, in the track header, a quarter turn."""
    path = write_video(tmp_path / "phone.mp4", [gradient(96, 64)] * 3)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # ISO/IEC 14496-12, 8.3.2, version 0
    quarter = (0, 0x10000, 0, -0x10000 & 0xFFFFFFFF, 0, 0, 0, 0, 0x40000000)
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big") for value in quarter)
    path.write_bytes(data)
    info = probe_video(path)
    assert (info.width, info.height) == (64, 96)
    image = next(read_frames(info))
    expected = np.rot90(gradient(96, 64), -1)  # clockwise: left becomes top
    assert np.abs(image.astype(int) - expected).mean() < 6


def test_a_damaged_file_is_read_up_to_the_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_video(tmp_path / "a.mp4", [gradient(96, 64, 20 * k) for k in range(12)])
    info = probe_video(path)
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    start = packets[6].pos
    data[start : start + packets[6].size] = bytes(packets[6].size)
    path.write_bytes(data)
    assert len(list(read_frames(info))) == 6
    assert "a.mp4: damaged after frame 5" in caplog.text


def test_times_are_those_of_presentation(tmp_path: Path) -> None:
    """A phone's frame rate varies: the times come from the file."""
    times = [0, 33, 66, 100, 200, 400, 433, 466, 1000, 1033]  # milliseconds
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for k, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(gradient(96, 64, 20 * k), format="rgb24")
            frame.pts, frame.time_base = time + 500, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    frames = list(read_video(probe_video(path)))
    assert [frame.number for frame in frames] == list(range(10))
    found = [frame.time for frame in frames]
    np.testing.assert_allclose(found, np.array(times) / 1000, atol=2e-3)
    assert frames[0].alpha is None


def test_times_that_do_not_grow_are_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import cag_avatar_training.video as module

    path = write_video(tmp_path / "a.mp4", [gradient(96, 64)] * 5, fps=10)
    info = probe_video(path)
    real = module._decoded

    def shuffled(*arguments: object) -> object:
        for frame, pts in zip(real(*arguments), (0, None, 1, 1, 9), strict=True):  # type: ignore[arg-type]
            frame.pts, frame.time_base = pts, Fraction(1, 10)
            yield frame

    monkeypatch.setattr(module, "_decoded", shuffled)
    found = [frame.time for frame in read_video(info)]
    np.testing.assert_allclose(found, [0, 0.1, 0.2, 0.3, 0.9])
    assert caplog.text.count("no presentation time, or not a later one") == 1


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix", "given"),
    [
        ("png", "rgba", "mov", "rgba"),
        ("qtrle", "argb", "mov", "rgba"),
        ("prores_ks", "yuva444p10le", "mov", "rgba"),
        ("libvpx-vp9", "yuva420p", "webm", "yuva420p"),
    ],
)
def test_alpha_is_read(tmp_path: Path, codec: str, pixels: str, suffix: str, given: str) -> None:
    image = np.dstack([gradient(96, 64), np.zeros((64, 96), np.uint8)])
    image[16:48, 24:72, 3] = 255
    path = tmp_path / f"a.{suffix}"
    try:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
            if suffix == "webm":
                stream.metadata["alpha_mode"] = "1"
            for _ in range(3):
                frame = av.VideoFrame.from_ndarray(image, format="rgba")
                container.mux(stream.encode(frame.reformat(format=given)))
            container.mux(stream.encode(None))
    except (av.FFmpegError, ValueError):
        pytest.skip(f"this FFmpeg cannot write {codec}")
    info = probe_video(path)
    assert info.alpha
    frames = list(read_video(info))
    assert len(frames) == 3
    for frame in frames:
        assert frame.alpha is not None
        assert frame.alpha.shape == (64, 96)
        assert np.abs(frame.alpha.astype(int) - image[..., 3]).mean() < 4
        assert np.abs(frame.image[20:44, 28:68].astype(int) - image[20:44, 28:68, :3]).mean() < 8
