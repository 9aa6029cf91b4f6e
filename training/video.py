"""Reading a video file, with errors that say what is wrong with it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["VideoInfo", "probe_video", "read_frames"]

_log = logging.getLogger(__name__)
_DEFAULT_FPS = 30.0


@dataclass(frozen=True)
class VideoInfo:
    """What the container says of a video."""

    path: Path
    width: int
    """Pixels, as shown: after the rotation that the file asks for."""
    height: int
    """Pixels, as shown."""
    fps: float
    """Frames per second."""
    frames: int
    """Number of frames, as announced: the file may hold fewer; 0 if it does not say."""


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingDependencyError("av", "reading videos", "training") from error
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise InputError(
            f"{path}: not a video that FFmpeg can read; convert it to H.264 MP4"
        ) from error
    with container:
        if not container.streams.video:
            raise InputError(f"{path}: holds no pictures; give a video with a face in it")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        yield container, stream


def _decoded(path: Path, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Frames up to the first that is damaged, which is logged."""
    import av

    frames = container.decode(stream)
    for index in itertools.count():
        try:
            frame = next(frames)
        except (StopIteration, EOFError):
            return
        except av.InvalidDataError:
            _log.warning("%s: damaged after frame %d; the rest is not read", path, index - 1)
            return
        yield frame


def _upright(frame: VideoFrame) -> NDArray[np.uint8]:
    """RGB as shown: phones write the sensor's picture and the turn that it needs."""
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)).astype(np.uint8, copy=False)


def probe_video(path: Path | str) -> VideoInfo:
    """Size, rate and length of a video. Raises InputError if it is not a video with pictures."""
    path = Path(path)
    with _opened(path) as (container, stream):
        first = next(_decoded(path, container, stream), None)
        if first is None:
            raise InputError(f"{path}: holds no pictures; give a video with a face in it")
        rate = float(stream.average_rate or 0)
        fps = rate if 1 <= rate <= 1000 else _DEFAULT_FPS
        frames = stream.frames
        if frames == 0 and container.duration is not None:
            frames = round(container.duration * 1e-6 * fps)
        height, width = _upright(first).shape[:2]
    return VideoInfo(path, width, height, fps, frames)


def read_frames(info: VideoInfo) -> Iterator[NDArray[np.uint8]]:
    """Frames in order, RGB [H, W, 3] uint8.

    Raises:
        InputError: the frame size changes within the file.
    """
    with _opened(info.path) as (container, stream):
        for index, frame in enumerate(_decoded(info.path, container, stream)):
            image = _upright(frame)
            height, width = image.shape[:2]
            if (width, height) != (info.width, info.height):
                raise InputError(
                    f"{info.path}: frame {index} is {width} x {height}, the first was "
                    f"{info.width} x {info.height}; re-encode the video at one size"
                )
            yield image
