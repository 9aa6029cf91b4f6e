"""NerFace's layout: pictures and splits; its 76 coefficients are not FLAME's."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from cag_avatar_training.importers.fields import Record, frame_number, one_camera, require_file
from cag_avatar_training.importers.foreign import ForeignCapture
from numpy.typing import NDArray

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError

__all__ = ["read_nerface"]

_FIX = "make it with NerFace's real_to_nerf.py"
_SPLITS = ("train", "val", "test")
_HELD_OUT = ("val", "test")
#: Camera axes are OpenGL's (x right, y up, z backward).
_OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
#: Steps between neighbours that are so much longer than between the nearest frames: shuffled.
_SHUFFLED = 2.5


def read_nerface(source: Path) -> ForeignCapture:
    """Read a capture laid out as NerFace's.

    ``transforms_{train,val,test}.json``: per frame ``file_path`` (without .png),
    ``transform_matrix`` (camera to the head's space, OpenGL axes) and ``expression``;
    ``intrinsics`` (fx, fy in pixels, fx negative; cx, cy as fractions of width and height), or
    ``camera_angle_x``. Validation and test frames are held out. The expression code belongs to a
    face model that is not public, so that the pictures have to be tracked again: the capture's
    ``flame`` is None.

    NerFace shuffles the frames of training and validation. They are put back in order by
    ``index_map.npy``, if there, or else along the shortest steps of pose and expression.

    Raises:
        InputError: a missing file or a bad field.
    """
    parts: dict[str, list[Record]] = {}
    intrinsics = []
    for split in _SPLITS:
        file = source / f"transforms_{split}.json"
        if split != "train" and not file.is_file():
            continue
        content = Record.from_json(file, _FIX)
        if split == "train" or content.value("frames"):
            parts[split] = sorted(
                content.records("frames"), key=lambda r: frame_number(r.text("file_path"), r.file)
            )
            intrinsics.append(content)
    train = parts["train"]
    first = _picture(source, train[0])
    picture = cv2.imread(str(first))
    if picture is None:
        raise InputError(f"{first}: not a PNG; {_FIX}")
    height, width = picture.shape[:2]
    values = one_camera(np.stack([_intrinsics(c, width, height) for c in intrinsics]), str(source))

    order, notes = _in_time_order(source, parts)
    held = {id(r) for split in _HELD_OUT for r in parts.get(split, [])}
    to_world = np.stack([r.rigid("transform_matrix", 4) for r in order])
    return ForeignCapture(
        format="nerface",
        source=source.resolve().name,
        camera=PinholeCamera(width, height, *values.tolist()),
        world_to_camera=_OPENGL_TO_OPENCV @ np.linalg.inv(to_world),
        images=tuple(_picture(source, r) for r in order),
        frames=np.arange(len(order), dtype=np.int64),
        flame=None,
        held_out=tuple(i for i, r in enumerate(order) if id(r) in held),
        notes=tuple(notes),
    )


def _picture(source: Path, record: Record) -> Path:
    path = source / f"{record.text('file_path').removesuffix('.png')}.png"
    return require_file(path, "every frame needs its picture")


def _intrinsics(content: Record, width: int, height: int) -> NDArray[np.float64]:
    if "intrinsics" in content and content.value("intrinsics"):
        fx, fy, cx, cy = np.abs(content.array("intrinsics", 4))
        return np.array([fx, fy, cx * width, cy * height])
    focal = 0.5 * width / np.tan(0.5 * abs(content.number("camera_angle_x")))
    return np.array([focal, focal, 0.5 * width, 0.5 * height])


def _in_time_order(source: Path, parts: dict[str, list[Record]]) -> tuple[list[Record], list[str]]:
    """Training and validation frames in the order of the video, then the test frames; notes."""
    train, test = parts["train"], parts.get("test", [])
    mixed = [*train, *parts.get("val", [])]
    file = source / "index_map.npy"
    if file.is_file():
        try:
            table = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{file}: not an array of numbers ({error}); remove it") from error
        rows = table[table[:, 1] >= 0].astype(int) if table.ndim == 2 else np.zeros((0, 2), int)
        if sorted(rows[:, 1].tolist()) != list(range(len(train))):
            raise InputError(
                f"{file}: column 1 must name each of the {len(train)} training frames once; "
                "remove the file"
            )
        # The map leaves out the validation frames: they go by what they look like, below.
        chain = [train[k] for k in rows[np.argsort(rows[:, 0]), 1]]
        return [*_inserted(chain, parts.get("val", [])), *test], ["order from index_map.npy"]
    features = _features(mixed)
    if len(mixed) < 3:
        return [*mixed, *test], []
    steps = np.linalg.norm(np.diff(features[: len(train)], axis=0), axis=1)
    nearest = np.array([_distances(features, k).min() for k in range(len(mixed))])
    if np.median(steps) < _SHUFFLED * np.median(nearest):
        return [*_inserted(train, parts.get("val", [])), *test], []
    left = set(range(len(mixed)))
    # The farthest frame from the mean is an end of the path rather than its middle.
    at = int(np.linalg.norm(features - features.mean(0), axis=1).argmax())
    path = [at]
    left.remove(at)
    while left:
        distance = _distances(features, at)
        distance[path] = np.inf
        at = int(distance.argmin())
        path.append(at)
        left.remove(at)
    note = "the frames are shuffled and index_map.npy is missing: ordered by likeness"
    return [*(mixed[k] for k in path), *test], [note]


def _features(records: list[Record]) -> NDArray[np.float64]:
    """Pose and expression of each frame, each number in its standard deviations, [T, D]."""
    rows = [
        np.concatenate([r.rigid("transform_matrix", 4)[:3].ravel(), r.array("expression", -1)])
        for r in records
    ]
    if len({len(row) for row in rows}) > 1:
        raise records[0].wrong("expression", "has not the same length in all frames")
    table = np.stack(rows)
    deviation = table.std(0)
    return np.asarray((table - table.mean(0)) / np.where(deviation > 1e-9, deviation, 1.0))


def _distances(features: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """From frame k to every other, infinity to itself, [T]."""
    distance = np.linalg.norm(features - features[k], axis=1)
    distance[k] = np.inf
    return distance


def _inserted(chain: list[Record], extra: list[Record]) -> list[Record]:
    """Put each extra frame where it lengthens the chain least, ends included."""
    for record in extra:
        features = _features([*chain, record])
        to = np.linalg.norm(features[:-1] - features[-1], axis=1)
        between = to[:-1] + to[1:] - np.linalg.norm(np.diff(features[:-1], axis=0), axis=1)
        at = int(np.concatenate([to[:1], between, to[-1:]]).argmin())
        chain = [*chain[:at], record, *chain[at:]]
    return chain
