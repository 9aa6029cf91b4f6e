"""Reading a video file: upright pictures at their presentation times, with errors that say what is
wrong with it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame as DecodedFrame
    from av.video.stream import VideoStream

__all__ = ["VideoFrame", "VideoInfo", "probe_video", "read_frames", "read_video"]

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
    alpha: bool = False
    """Whether the pictures carry an alpha plane (which may be opaque everywhere)."""


@dataclass(frozen=True)
class VideoFrame:
    """One picture of a video."""

    number: int
    """Counted from 0."""
    time: float
    """Presentation time since the first frame, seconds; grows strictly."""
    image: NDArray[np.uint8]
    """RGB, upright, [H, W, 3]. Not multiplied by alpha."""
    alpha: NDArray[np.uint8] | None
    """The file's own alpha plane [H, W], 255 = opaque, if it has one."""


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


def _decoder(container: InputContainer, stream: VideoStream) -> Iterator[DecodedFrame]:
    """Frames of the stream; VP8 and VP9 keep alpha in a side stream that only libvpx reads."""
    import av

    coded = stream.codec_context.name
    library = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(coded)
    tags = {name.lower(): value for name, value in stream.metadata.items()}
    if library is None or tags.get("alpha_mode") != "1":
        yield from container.decode(stream)
        return
    if library not in av.codecs_available:
        _log.warning("this FFmpeg has no %s: the alpha plane is not read", library)
        yield from container.decode(stream)
        return
    context: Any = av.CodecContext.create(library, "r")
    context.extradata = stream.codec_context.extradata
    for packet in container.demux(stream):
        for frame in context.decode(packet if packet.size else None):
            frame.time_base = frame.time_base or stream.time_base
            yield frame


def _decoded(path: Path, container: InputContainer, stream: VideoStream) -> Iterator[DecodedFrame]:
    """Frames up to the first that is damaged, which is logged."""
    import av

    frames = _decoder(container, stream)
    for index in itertools.count():
        try:
            frame = next(frames)
        except (StopIteration, EOFError):
            return
        except av.InvalidDataError:
            _log.warning("%s: damaged after frame %d; the rest is not read", path, index - 1)
            return
        yield frame


def _has_alpha(frame: DecodedFrame) -> bool:
    return any(component.is_alpha for component in frame.format.components)


def _upright(frame: DecodedFrame) -> NDArray[np.uint8]:
    """RGB or RGBA as shown: phones write the sensor's picture and the turn that it needs."""
    image = frame.to_ndarray(format="rgba" if _has_alpha(frame) else "rgb24")
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
    return VideoInfo(path, width, height, fps, frames, _has_alpha(first))


def read_video(info: VideoInfo) -> Iterator[VideoFrame]:
    """Frames in order, with their times.

    Times come from the file (its frame rate may vary); a frame without a time, or with one that
    does not grow, comes 1 / fps after the one before, which is logged once.

    Raises:
        InputError: the frame size changes within the file.
    """
    first: float | None = None
    time = -1.0 / info.fps
    told = False
    with _opened(info.path) as (container, stream):
        for index, frame in enumerate(_decoded(info.path, container, stream)):
            image = _upright(frame)
            height, width = image.shape[:2]
            if (width, height) != (info.width, info.height):
                raise InputError(
                    f"{info.path}: frame {index} is {width} x {height}, the first was "
                    f"{info.width} x {info.height}; re-encode the video at one size"
                )
            shown = None if frame.time is None else float(frame.time)
            if first is None:
                first = shown
            if shown is not None and first is not None and shown - first > time:
                time = shown - first
            else:
                if not told:
                    _log.warning(
                        "%s: frame %d has no presentation time, or not a later one than the frame "
                        "before; 1/%g s are assumed", info.path, index, info.fps,
                    )  # fmt: skip
                told = True
                time += 1.0 / info.fps
            alpha = np.ascontiguousarray(image[..., 3]) if image.shape[2] == 4 else None
            yield VideoFrame(index, time, np.ascontiguousarray(image[..., :3]), alpha)


def read_frames(info: VideoInfo) -> Iterator[NDArray[np.uint8]]:
    """Pictures alone, in order, RGB [H, W, 3] uint8; otherwise as :func:`read_video`."""
    return (frame.image for frame in read_video(info))
