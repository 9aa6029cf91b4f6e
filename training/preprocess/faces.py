"""Finding one face in a video and staying with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cag_avatar_training.video import VideoFrame
from numpy.typing import NDArray

from cag_avatar.tracking.face_landmarker import DetectedFace, FaceLandmarker
from cag_avatar.tracking.landmark_correction import face_colors

__all__ = ["REMEMBERED", "FaceFinder", "FaceFollower", "FollowerState", "overlap", "visible"]

Box = tuple[float, float, float, float]

#: Frames kept at hand: to find where a run of frames with a face begins and ends, and to settle
#: the landmarker's smoothing when it starts anew.
REMEMBERED = 10
#: A face is looked for in tiles in every so manieth frame without one.
_SEARCH_EVERY = 5
#: Tile sides of the search, in the picture's shorter sides, down to the least side in pixels. The
#: landmarker's detector is made for faces that fill a fifth of its picture and more.
_TILES, _LEAST_TILE = (0.6, 0.33, 0.18), 240
#: Side of the square looked at near a face, in sides of its box.
_NEAR = 2.0
#: Overlap (intersection over union) by which a face in the next frame is the same.
_SAME, _JUMP = 0.25, 0.15
#: A face with this share of the chosen one's height may be taken for it by the landmarker.
_RIVAL = 0.4
#: A face below this share of the height of the one just lost is not at once taken for it.
_SMALLER = 0.8


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return width * height / (areas - width * height)


def _height(face: DetectedFace) -> float:
    box = face.box()
    return box[3] - box[1]


class FaceFinder:
    """Looks for faces in single pictures; close it after use.

    Args:
        model: landmarker model file.
    """

    def __init__(self, model: Path | None = None) -> None:
        self._landmarker = FaceLandmarker(max_faces=4, model=model)

    def whole(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Faces that the detector sees in the whole picture: those of a fifth of it and more."""
        return self._landmarker.detect(image)

    def tiles(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Smaller faces, from overlapping tiles, large tiles first; the first size that shows any.

        A face seen in two tiles comes once.
        """
        height, width = image.shape[:2]
        for share in _TILES:
            side = round(share * min(height, width))
            if side < _LEAST_TILE:
                break
            found: list[DetectedFace] = []
            for y in _starts(height, side):
                for x in _starts(width, side):
                    for face in self._cut(image, x, y, side):
                        if all(overlap(face.box(), f.box()) < _SAME for f in found):
                            found.append(face)
            if found:
                return found
        return []

    def near(self, image: NDArray[np.uint8], box: Box) -> DetectedFace | None:
        """The face that overlaps a box most, looked for in a square round it."""
        height, width = image.shape[:2]
        side = _NEAR * max(box[2] - box[0], box[3] - box[1])
        size = max(1, min(round(side), height, width))
        x = int(np.clip(round((box[0] + box[2] - size) / 2), 0, width - size))
        y = int(np.clip(round((box[1] + box[3] - size) / 2), 0, height - size))
        faces = self._cut(image, x, y, size)
        best = max(faces, key=lambda f: overlap(f.box(), box), default=None)
        return best if best is not None and overlap(best.box(), box) >= _SAME else None

    def _cut(self, image: NDArray[np.uint8], x: int, y: int, side: int) -> list[DetectedFace]:
        faces = self._landmarker.detect(image[y : y + side, x : x + side])
        shift = np.array([x, y, 0], np.float32)
        return [DetectedFace(f.landmarks + shift, f.scores) for f in faces]

    def close(self) -> None:
        """Release the landmarker."""
        self._landmarker.close()

    def __enter__(self) -> FaceFinder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin: they overlap by a third and more."""
    if length <= side:
        return [0]
    count = int(np.ceil((length - side) / (2 / 3 * side))) + 1
    return [round(v) for v in np.linspace(0, length - side, count)]


@dataclass
class FollowerState:
    """What must be known to go on in a later frame; plain numbers."""

    box: Box | None = None
    """Of the last face seen."""
    present: bool = False
    """Whether the frame before showed a face."""
    close: bool = False
    """Look near the last face, in the picture's own resolution, instead of in the whole picture."""
    absent: int = 0
    """Frames since the last face."""
    followed: dict[int, Box] = field(default_factory=dict)
    """Boxes of recent frames that only the landmarker's tracking has seen."""

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FollowerState:
        """The inverse of :meth:`to_json`."""
        box = values["box"]
        followed = {int(k): tuple(v) for k, v in values["followed"].items()}
        return cls(
            None if box is None else tuple(box),
            values["present"],
            values["close"],
            values["absent"],
            followed,
        )


class FaceFollower:
    """Follows one face through a stretch of frames.

    A large face is followed by the landmarker in the whole picture. A face that its detector
    does not see there is searched in tiles and followed in a square round it; so is a face with
    another beside it. Of several faces the largest is taken, and kept while it is in sight.
    A tracker holds on to a face for some frames after it is gone: where a face is lost, the frames
    before must be confirmed by a search that knows nothing of the past, or are dropped; where one
    appears, the frames before are searched near it. A smaller face elsewhere is taken up only when
    the lost one has been away for REMEMBERED frames.

    Args:
        finder: looks into single pictures.
        model: landmarker model file.
        state: where the stretch before ended.
        recent: up to REMEMBERED frames before this stretch.

    The outcome is in ``found`` (face by frame number, ``recent`` ones included), ``colors`` (of the
    same frames, see face_colors) and ``dropped``.
    """

    def __init__(
        self,
        finder: FaceFinder,
        model: Path | None,
        state: FollowerState,
        recent: list[VideoFrame],
    ) -> None:
        self.state = state
        self.found: dict[int, DetectedFace] = {}
        self.colors: dict[int, NDArray[np.uint8]] = {}
        self.dropped: list[int] = []
        self._finder = finder
        self._recent: deque[VideoFrame] = deque(recent, maxlen=REMEMBERED)
        self._tracker = FaceLandmarker(video=True, model=model)
        if state.present and not state.close:
            for frame in recent:
                self._tracker.detect(visible(frame), frame.time)

    def step(self, frame: VideoFrame) -> None:
        """Take the next frame."""
        state = self.state
        image = visible(frame)
        face = self._follow(frame, image) if state.present else None
        if face is None:
            if state.present:
                self._check_end()
                state.absent = 0
            face = self._acquire(frame, image)
        state.present = face is not None
        if face is not None:
            self._keep(frame, face)
            state.box, state.absent = face.box(), 0
        else:
            state.absent += 1
        self._recent.append(frame)
        first = self._recent[0].number
        state.followed = {k: v for k, v in state.followed.items() if k >= first}

    def finish(self) -> None:
        """Check the last frames of the video."""
        if self.state.present:
            self._check_end()

    def close(self) -> None:
        """Release the tracker."""
        self._tracker.close()

    def _keep(self, frame: VideoFrame, face: DetectedFace) -> None:
        self.found[frame.number] = face
        colors = face_colors(visible(frame), face.landmarks)
        self.colors[frame.number] = np.rint(colors).astype(np.uint8)

    def _follow(self, frame: VideoFrame, image: NDArray[np.uint8]) -> DetectedFace | None:
        """Each picture is searched by itself, near the last face: the landmarker's tracking lags
        behind the face, and its landmarks are worse by a third. It helps where the search fails."""
        state = self.state
        assert state.box is not None
        face = self._finder.near(image, state.box)
        if face is not None or state.close:
            return face
        seen = self._tracker.detect(image, frame.time)
        if seen and overlap(seen[0].box(), state.box) >= _JUMP:
            state.followed[frame.number] = seen[0].box()
            return seen[0]
        return None

    def _acquire(self, frame: VideoFrame, image: NDArray[np.uint8]) -> DetectedFace | None:
        state = self.state
        faces, tiled = self._finder.whole(image), False
        if not faces and state.absent % _SEARCH_EVERY == 0:
            faces, tiled = self._finder.tiles(image), True
        if not faces:
            return None
        face = self._choose(faces)
        if self._is_stranger(face):
            return None
        rivals = [f for f in faces if f is not face and _height(f) > _RIVAL * _height(face)]
        state.close = tiled or bool(rivals)
        self._check_start(face)
        return face

    def _choose(self, faces: list[DetectedFace]) -> DetectedFace:
        """The one seen last, if it is there; else the largest."""
        box = self.state.box
        if box is not None:
            same = [f for f in faces if overlap(f.box(), box) >= _JUMP]
            if same:
                return max(same, key=lambda f: overlap(f.box(), box))
        return max(faces, key=_height)

    def _is_stranger(self, face: DetectedFace) -> bool:
        """Whether a face may be another's: elsewhere and smaller than the one just lost.

        For as long as all its frames can still be had afterwards, the one that is lost may return.
        """
        box, waited = self.state.box, self.state.absent
        if box is None or waited >= REMEMBERED or overlap(face.box(), box) >= _JUMP:
            return False
        return _height(face) < _SMALLER * (box[3] - box[1])

    def _check_start(self, face: DetectedFace) -> None:
        """Look for the face in the frames before the one where it was noticed."""
        for frame in self._before():
            earlier = self._finder.near(visible(frame), face.box())
            if earlier is None:
                break
            face = earlier
            self._keep(frame, face)
            if frame.number in self.dropped:
                self.dropped.remove(frame.number)

    def _check_end(self) -> None:
        """Drop the last frames if a search in them alone does not confirm the face."""
        for frame in reversed(self._recent):
            box = self.state.followed.pop(frame.number, None)
            if box is None or self._finder.near(visible(frame), box) is not None:
                break
            self.found.pop(frame.number, None)
            self.dropped.append(frame.number)

    def _before(self) -> Iterator[VideoFrame]:
        """Remembered frames without a face, latest first."""
        for steps, frame in enumerate(reversed(self._recent)):
            if steps >= self.state.absent or frame.number in self.found:
                return
            yield frame


def visible(frame: VideoFrame) -> NDArray[np.uint8]:
    """The picture, over mid-grey where the file's own alpha says that there is nothing."""
    if frame.alpha is None:
        return frame.image
    share = frame.alpha[..., None].astype(np.uint16)
    return ((frame.image * share + 128 * (255 - share) + 127) // 255).astype(np.uint8)
