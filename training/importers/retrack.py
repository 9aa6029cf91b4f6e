"""A foreign capture without FLAME's parameters, tracked by this project's own tracker."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.importers.convert import imported_fields
from cag_avatar_training.importers.foreign import ForeignCapture
from cag_avatar_training.preprocess import PreprocessConfig, preprocess

from cag_avatar.errors import InputError, MissingDependencyError

__all__ = ["track_capture"]


def track_capture(
    capture: ForeignCapture, out: Path | str, fps: float, config: PreprocessConfig
) -> Dataset:
    """Track a capture's pictures, in their order, as a video; keep its split.

    Args:
        capture: the capture; only its pictures, split and notes are used, and its camera is noted.
        out: dataset folder to write.
        fps: frames per second, which no format tells.
        config: settings of the tracker.

    Raises:
        InputError: as preprocess() does, or a picture that is unreadable or of another size.
    """
    with tempfile.TemporaryDirectory(prefix="cag-avatar-import-") as folder:
        video = Path(folder) / f"{capture.source}.mkv"
        _write_video(capture, video, fps)
        dataset = preprocess(video, out, config)
    # Pictures without a face are left out: find each frame's picture by its time.
    numbers = np.rint(dataset.tracking.timestamps * fps).astype(int).tolist()
    held = set(capture.held_out)
    camera = {**capture.camera.to_dict(), "moves": "see the source; the tracker finds its own"}
    return dataset.with_info(
        replace(
            dataset.info,
            source=capture.source,
            held_out=tuple(i for i, n in enumerate(numbers) if n in held),
            imported={
                **imported_fields(capture),
                "tracked_again": True,
                "source_camera": camera,
                "pictures": [str(capture.images[n].name) for n in numbers],
            },
        )
    )


def _write_video(capture: ForeignCapture, video: Path, fps: float) -> None:
    """Losslessly: FFV1 in Matroska, in the colours of the pictures."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingDependencyError("av", "tracking pictures", "training") from error
    camera = capture.camera
    with av.open(str(video), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = camera.width, camera.height, "bgr0"
        for file in capture.images:
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is None:
                raise InputError(f"{file}: missing or not a picture; export the dataset again")
            if image.shape[:2] != (camera.height, camera.width):
                raise InputError(
                    f"{file}: {image.shape[1]}x{image.shape[0]} pixels, the first picture has "
                    f"{camera.width}x{camera.height}; make all pictures of one size"
                )
            pixels = np.ascontiguousarray(image, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
