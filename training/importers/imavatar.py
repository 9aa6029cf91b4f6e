"""IMavatar's layout, which PointAvatar and SplattingAvatar share: flame_params.json."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from cag_avatar_training.importers.fields import Record, frame_number, require_file
from cag_avatar_training.importers.foreign import FlameTrack, ForeignCapture
from cag_avatar_training.importers.rotations import from_rotation_vector

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError

__all__ = ["SCALE", "TEST_FRAMES", "read_imavatar"]

#: IMavatar's FLAME is so many times larger than life, and its camera as many times farther.
SCALE = 4.0
#: SplattingAvatar tests on the last frames; IMavatar and PointAvatar on folders of their own.
TEST_FRAMES = 350
_FIX = "make it with IMavatar's preprocessing"
#: Intrinsics above 1 are an older form, in pixels of a picture of this size.
_OLD_SIZE = 512
#: World axes are OpenGL's (x right, y up, z backward).
_OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def read_imavatar(source: Path, test_frames: int | None = None) -> ForeignCapture:
    """Read a capture laid out as IMavatar's.

    ``flame_params.json``: per frame ``file_path`` (without .png), ``world_mat`` (world to camera,
    3 x 4, OpenGL axes, everything four times as large as life), ``expression`` (50), ``pose`` (15:
    global, neck, jaw, left eye, right eye as rotation vectors); ``shape_params``; ``intrinsics``
    (fx, fy, cx, cy as fractions of the picture's width and height; fx is negative, because the
    camera looks along -z). Mattes in ``mask/``, or the pictures' own alpha; labels in
    ``semantic/`` are used where they are. There are no eyelids.

    Args:
        source: the folder that holds flame_params.json.
        test_frames: how many frames at the end are held out; None: 350 as SplattingAvatar does.

    Raises:
        InputError: a missing file, a frame twice, a bad field.
    """
    file = source / "flame_params.json"
    params = Record.from_json(file, _FIX)
    records = sorted(
        params.records("frames"), key=lambda r: frame_number(r.text("file_path"), file)
    )
    numbers = np.array([frame_number(r.text("file_path"), file) for r in records], np.int64)
    twice = np.flatnonzero(np.diff(numbers) == 0)
    if len(twice):
        raise InputError(f"{file}: frame {numbers[twice[0]]} is listed twice; {_FIX}")
    images = tuple(_picture(source, r) for r in records)
    camera = _camera(params, images[0])
    mattes = tuple(_beside(p, "mask") for p in images)
    if all(m is None for m in mattes):
        mattes_of: tuple[tuple[Path, ...], ...] = ((),) * len(images)
    else:
        mattes_of = tuple(
            (require_file(p.parent.parent / "mask" / p.name, "every picture needs its matte"),)
            for p in images
        )
    labels = [_beside(p, "semantic") for p in images]
    semantics = tuple(p for p in labels if p is not None)
    if semantics and len(semantics) < len(images):
        absent = images[labels.index(None)]
        raise InputError(
            f"{absent.parent.parent / 'semantic' / absent.name}: missing; parse every picture, or "
            "remove the folder"
        )
    poses = np.stack([r.array("pose", 15) for r in records]).reshape(-1, 5, 3)
    turns = from_rotation_vector(poses)
    views = np.stack([r.rigid("world_mat", 3) for r in records])
    views[:, :3, 3] /= SCALE
    notes = []
    held = TEST_FRAMES if test_frames is None else test_frames
    if held >= len(records):
        notes.append(f"too short to hold out the last {held} frames")
        held = 0
    return ForeignCapture(
        format="imavatar",
        source=source.resolve().name,
        camera=camera,
        world_to_camera=_OPENGL_TO_OPENCV @ views,
        images=images,
        frames=numbers,
        flame=FlameTrack.neutral(len(records)).with_values(
            shape=params.array("shape_params", -1),
            expression=np.stack([r.array("expression", 50) for r in records]),
            rotation=turns[:, 0],
            neck=turns[:, 1],
            jaw=turns[:, 2],
            eyes=turns[:, 3:],
        ),
        mattes=mattes_of,
        semantics=semantics,
        held_out=tuple(range(len(records) - held, len(records))),
        missing=("eyelids",),
        notes=tuple(notes),
    )


def _picture(source: Path, record: Record) -> Path:
    path = source / f"{record.text('file_path').removesuffix('.png')}.png"
    # SplattingAvatar's copies name the folder "images" where the file says "image".
    other = path.parent.with_name("images") / path.name
    if not path.is_file() and path.parent.name == "image" and other.is_file():
        path = other
    return require_file(path, "every frame needs its picture")


def _beside(image: Path, folder: str) -> Path | None:
    path = image.parent.parent / folder / image.name
    return path if path.is_file() else None


def _camera(params: Record, image: Path) -> PinholeCamera:
    picture = cv2.imread(str(image), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise InputError(f"{image}: not a PNG; {_FIX}")
    height, width = picture.shape[:2]
    fx, fy, cx, cy = np.abs(params.array("intrinsics", 4)).tolist()
    unit = _OLD_SIZE if cy > 1 else 1
    across, down = width / unit, height / unit
    return PinholeCamera(width, height, fx * across, fy * down, cx * across, cy * down)
