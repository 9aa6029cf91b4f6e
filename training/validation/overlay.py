"""A video of the dataset with the fitted mesh's outlines and the landmarks drawn over it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from cag_avatar_training.dataset import DatasetInfo
from cag_avatar_training.validation.config import ValidationConfig
from cag_avatar_training.validation.mesh_motion import HEAD_REGIONS
from numpy.typing import NDArray

from cag_avatar.errors import MissingDependencyError
from cag_avatar.files import replacing
from cag_avatar.head_models import REGIONS, HeadModel
from cag_avatar.rendering.mesh import rasterize

if TYPE_CHECKING:
    from av.container import OutputContainer

__all__ = ["OverlayVideo", "overlay_video"]

_LOG = logging.getLogger(__name__)

#: Part of the mesh: regions that are filled together, and the colour (RGB) of their outline.
_OUTLINES: tuple[tuple[tuple[str, ...], tuple[int, int, int]], ...] = (
    (HEAD_REGIONS, (0, 220, 255)),
    (("lips", "teeth_upper", "teeth_lower", "tongue", "mouth_cavity"), (255, 60, 160)),
    (("eye_left",), (80, 255, 80)),
    (("eye_right",), (255, 150, 40)),
)
_LANDMARK = (255, 240, 60)
#: Browsers play H.264; a build of FFmpeg without x264 writes MPEG-4 part 2.
_CODECS = {"libx264": {"crf": "27", "preset": "veryfast"}, "mpeg4": {"qscale": "6"}}


class OverlayVideo:
    """Draws and encodes frames as they come; made by :func:`overlay_video`."""

    def __init__(
        self, container: OutputContainer, frames: int, info: DatasetInfo, model: HeadModel,
        config: ValidationConfig, av: ModuleType,
    ) -> None:  # fmt: skip
        self.step = math.ceil(frames / config.max_video_frames)
        """Every so many frames one is shown."""
        self.rate = info.fps / self.step
        """Frames of the video per second."""
        self._av = av
        self._container = container
        self._source = info.camera
        height = min(config.video_size, 2 * math.ceil(info.camera.height / 2))
        width = 2 * round(info.camera.width * height / info.camera.height / 2)
        self._camera = info.camera.resized(width, height)
        self._faces = model.faces.numpy()
        region = model.face_region.numpy()
        self._outlines = [
            (np.isin(region, [REGIONS.index(name) for name in names]), color)
            for names, color in _OUTLINES
        ]
        self._stream = self._open_stream()

    def _open_stream(self) -> Any:
        codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
        if codec != "libx264":
            _LOG.warning("PyAV lacks libx264: the overlay is MPEG-4, which few browsers play")
        rate = Fraction(self.rate).limit_denominator(1001)
        stream: Any = self._container.add_stream(codec, rate=rate, options=_CODECS[codec])
        stream.width, stream.height = self._camera.width, self._camera.height
        stream.pix_fmt = "yuv420p"
        # A key frame a second lets a click on a curve seek quickly.
        stream.codec_context.gop_size = max(1, round(self.rate))
        return stream

    def add(
        self,
        frame: int,
        image: NDArray[np.uint8],
        vertices: NDArray[np.float32],
        landmarks: NDArray[np.float32] | None,
    ) -> None:
        """Draw a frame; arguments as in FrameSink."""
        if frame % self.step:
            return
        drawn = self.draw(frame, image, vertices, landmarks)
        picture = self._av.VideoFrame.from_ndarray(drawn, format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def draw(
        self,
        frame: int,
        image: NDArray[np.uint8],
        vertices: NDArray[np.float32],
        landmarks: NDArray[np.float32] | None,
    ) -> NDArray[np.uint8]:
        """The picture [H, W, 3] of a frame."""
        camera = self._camera
        canvas: Any = cv2.resize(image, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
        buffers = rasterize(vertices, self._faces, camera)
        covered = buffers.face_index >= 0
        index = np.maximum(buffers.face_index, 0)
        for chosen, color in self._outlines:
            mask = (covered & chosen[index]).astype(np.uint8)
            contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(canvas, contours, -1, color, 1)
        if landmarks is not None:
            scale = (camera.width / self._source.width, camera.height / self._source.height)
            column, row = np.floor(landmarks * scale).astype(int).T
            inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
            canvas[row[inside], column[inside]] = _LANDMARK
        cv2.putText(
            canvas, str(frame), (6, camera.height - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.45,
            (255, 255, 255), 1, cv2.LINE_AA,
        )  # fmt: skip
        return np.asarray(canvas, np.uint8)

    def close(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode())


@contextmanager
def overlay_video(
    path: Path, frames: int, info: DatasetInfo, model: HeadModel, config: ValidationConfig
) -> Iterator[OverlayVideo]:
    """Write an MP4 (H.264) while a pass over the dataset feeds it.

    Args:
        path: file; it appears when the block ends well.
        frames: number of frames of the dataset.
        info: its camera and rate.
        model: head model.
        config: size and length of the video.

    Raises:
        MissingDependencyError: PyAV is not installed.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingDependencyError("av", "writing videos", "training") from error
    with replacing(path) as temporary:
        options = {"movflags": "faststart"}
        with av.open(str(temporary), "w", format="mp4", options=options) as container:
            video = OverlayVideo(container, frames, info, model, config, av)
            yield video
            video.close()
