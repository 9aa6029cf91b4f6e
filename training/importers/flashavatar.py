"""FlashAvatar's layout: pictures, matte, parsing, and metrical-tracker's ``.frame`` files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cag_avatar_training.importers.fields import one_camera, require_file
from cag_avatar_training.importers.foreign import ForeignCapture
from cag_avatar_training.importers.frame_file import read_frame_file, stack_frames

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError

__all__ = ["TEST_FRAMES", "read_flashavatar"]

#: FlashAvatar tests on the last frames.
TEST_FRAMES = 500
#: The tracker's frame k is the picture k + 1: FFmpeg counts pictures from 1, the tracker from 0.
_FIRST_PICTURE = 1


def read_flashavatar(
    source: Path, checkpoints: Path | None = None, test_frames: int | None = None
) -> ForeignCapture:
    """Read a capture laid out as FlashAvatar's.

    ``imgs/%05d.jpg``, ``alpha/%05d.jpg``, ``parsing/%05d_neckhead.png`` and ``%05d_mouth.png``
    count from 1; ``checkpoint/%05d.frame`` from 0. The matte is alpha times neckhead, as
    FlashAvatar uses it: FLAME has no shoulders.

    Args:
        source: the folder that holds ``imgs``.
        checkpoints: the folder of the .frame files; by default ``source/checkpoint``, or where
            FlashAvatar itself looks: ``../../metrical-tracker/output/NAME/checkpoint``.
        test_frames: how many frames at the end are held out; None: 500 as FlashAvatar does.

    Raises:
        InputError: a missing file, a gap in the count, a bad field.
    """
    if not (source / "imgs").is_dir():
        raise InputError(
            f"{source}: no folder 'imgs'; give the folder that holds imgs, alpha and parsing"
        )
    folder = _checkpoints(source, checkpoints)
    files = sorted(folder.glob("*.frame"))
    if not files:
        raise InputError(
            f"{folder}: no .frame files; run metrical-tracker, or give its folder with "
            "--checkpoints"
        )
    for number, file in enumerate(files):
        if file.name != f"{number:05d}.frame":
            raise InputError(
                f"{folder / f'{number:05d}.frame'}: missing, the next is {file.name}; the frames "
                "must count from 00000 without gaps"
            )
    frames = [read_frame_file(file) for file in files]
    first = frames[0]
    for frame in frames:
        if (frame.width, frame.height) != (first.width, first.height):
            raise InputError(
                f"{frame.file}: field 'img_size' differs from {first.file.name}'s; give the "
                ".frame files of one run"
            )
    camera = one_camera(np.stack([f.intrinsics for f in frames]), f"{folder}: opencv.K")
    count = len(frames)
    names = [f"{k + _FIRST_PICTURE:05d}" for k in range(count)]
    pair = "the tracker's frame k is picture k + 1"
    notes = ["matte: alpha times neckhead"]
    held = TEST_FRAMES if test_frames is None else test_frames
    if held >= count:
        notes.append(f"too short to hold out the last {held} frames")
        held = 0
    return ForeignCapture(
        format="flashavatar",
        source=source.resolve().name,
        camera=PinholeCamera(first.width, first.height, *camera.tolist()),
        world_to_camera=np.stack([f.world_to_camera for f in frames]),
        images=tuple(require_file(source / "imgs" / f"{n}.jpg", pair) for n in names),
        mattes=tuple(
            (
                require_file(source / "alpha" / f"{n}.jpg", "every picture needs its matte"),
                require_file(source / "parsing" / f"{n}_neckhead.png", "parse every picture"),
            )
            for n in names
        ),
        mouths=tuple(
            require_file(source / "parsing" / f"{n}_mouth.png", "parse every picture")
            for n in names
        ),
        frames=np.arange(count, dtype=np.int64) + _FIRST_PICTURE,
        flame=stack_frames(frames),
        held_out=tuple(range(count - held, count)),
        notes=tuple(notes),
    )


def _checkpoints(source: Path, given: Path | None) -> Path:
    root = source.resolve()
    places = [
        root / "checkpoint",
        root.parent.parent / "metrical-tracker" / "output" / root.name / "checkpoint",
    ]
    if given is not None:
        places = [given, given / "checkpoint"]
    for place in places:
        if place.is_dir() and any(place.glob("*.frame")):
            return place
    raise InputError(
        f"{places[0]}: no .frame files; run metrical-tracker, or give its folder with --checkpoints"
    )
