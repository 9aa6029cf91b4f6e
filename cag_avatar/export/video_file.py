"""Writing an MP4 that browsers play."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.files import replacing

__all__ = ["write_mp4"]

_log = logging.getLogger(__name__)

#: Browsers play H.264; a build of FFmpeg without x264 writes MPEG-4 part 2.
_CODECS = {"libx264": {"crf": "18", "preset": "fast"}, "mpeg4": {"qscale": "3"}}


def write_mp4(path: Path | str, frames: Iterable[NDArray[np.uint8]], fps: float) -> int:
    """Encode RGB pictures [H, W, 3] of one size; an odd last row or column is dropped.

    Returns:
        Number of frames.

    Raises:
        MissingDependencyError: PyAV is not installed.
        InputError: there is no frame.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingDependencyError("av", "writing videos", "export") from error
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    if codec != "libx264":
        _log.warning("PyAV lacks libx264: %s is MPEG-4, which few browsers play", path)
    written = 0
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream: Any = container.add_stream(codec, rate=rate, options=_CODECS[codec])
        stream.pix_fmt = "yuv420p"
        for image in frames:
            height, width = (side // 2 * 2 for side in image.shape[:2])
            if written == 0:
                stream.width, stream.height = width, height
            even = np.ascontiguousarray(image[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            written += 1
        if written == 0:
            raise InputError(f"{path}: no frame to write")
        container.mux(stream.encode())
    return written
