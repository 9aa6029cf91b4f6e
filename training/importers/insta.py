"""INSTA's layout: transforms.json, RGBA pictures, expression texts, and meshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cag_avatar_training.importers.fields import Record, frame_number, require_file
from cag_avatar_training.importers.foreign import FlameTrack, ForeignCapture
from cag_avatar_training.importers.frame_file import TrackerFrame, read_frame_file, stack_frames
from numpy.typing import NDArray

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError

__all__ = ["TEST_FRAMES", "read_insta"]

#: INSTA tests on the last frames.
TEST_FRAMES = 350
_FIX = "make it with INSTA's scripts/transforms.py"
#: How far metrical-tracker opens the jaw of canonical.obj, radians about x.
_CANONICAL_JAW = np.deg2rad(12.0)


def read_insta(
    source: Path, checkpoints: Path | None = None, test_frames: int | None = None
) -> ForeignCapture:
    """Read a capture laid out as INSTA's.

    ``transforms.json`` holds the intrinsics in pixels and, per frame, ``transform_matrix`` (camera
    to world, OpenCV axes), ``file_path`` (RGBA) and ``exp_path``. INSTA writes the expression only:
    jaw, eyes and eyelids come from metrical-tracker's .frame files where they are at hand, and are
    neutral and named in ``missing`` where they are not; then the shape is solved from
    ``canonical.obj``. INSTA's number of a frame is the tracker's, without a shift. transforms.json
    lists the frames in any order.

    Args:
        source: the folder that holds transforms.json.
        checkpoints: the folder of the .frame files; by default ``source/checkpoint``, if any.
        test_frames: how many frames at the end are held out; None: those of transforms_test.json,
            or 350.

    Raises:
        InputError: a missing file, a frame twice, a bad field, checkpoints of another capture.
    """
    file = source / "transforms.json"
    transforms = Record.from_json(file, _FIX)
    records = sorted(
        transforms.records("frames"), key=lambda r: frame_number(r.text("file_path"), file)
    )
    numbers = np.array([frame_number(r.text("file_path"), file) for r in records], np.int64)
    twice = np.flatnonzero(np.diff(numbers) == 0)
    if len(twice):
        raise InputError(f"{file}: frame {numbers[twice[0]]} is listed twice; {_FIX}")
    camera = PinholeCamera(
        round(transforms.number("w")),
        round(transforms.number("h")),
        transforms.number("fl_x"),
        transforms.number("fl_y"),
        transforms.number("cx"),
        transforms.number("cy"),
    )
    expression = _expressions(source, records)
    folder, given = (source / "checkpoint", False) if checkpoints is None else (checkpoints, True)
    missing: list[str] = []
    notes: list[str] = []
    canonical = None
    if given or folder.is_dir():
        frames = [read_frame_file(folder / f"{n:05d}.frame") for n in numbers]
        _check_same_capture(frames, expression, records)
        flame = stack_frames(frames)
    else:
        flame = FlameTrack.neutral(len(records)).with_values(expression=expression)
        missing += ["jaw", "eyes", "eyelids"]
        if (source / "canonical.obj").is_file():
            canonical = _obj_vertices(source / "canonical.obj")
            notes.append("shape solved from canonical.obj")
        else:
            missing.append("shape")
    held_out = _held_out(source, numbers, test_frames, notes)
    return ForeignCapture(
        format="insta",
        source=source.resolve().name,
        camera=camera,
        world_to_camera=np.linalg.inv(np.stack([r.rigid("transform_matrix", 4) for r in records])),
        images=tuple(
            require_file(source / r.text("file_path"), "every frame needs its picture")
            for r in records
        ),
        frames=numbers,
        flame=flame,
        mattes=((),) * len(records),
        held_out=held_out,
        canonical=canonical,
        canonical_jaw=float(_CANONICAL_JAW),
        missing=tuple(missing),
        notes=tuple(notes),
    )


def _expressions(source: Path, records: list[Record]) -> NDArray[np.float64]:
    rows: list[NDArray[np.float64]] = []
    for record in records:
        file = require_file(source / record.text("exp_path"), _FIX)
        try:
            row = np.loadtxt(file, dtype=np.float64, ndmin=1)
        except ValueError as error:
            raise InputError(f"{file}: not a column of numbers ({error}); {_FIX}") from error
        if row.ndim != 1 or not np.isfinite(row).all() or (rows and len(row) != len(rows[0])):
            want = f", the first file has {len(rows[0])}" if rows else ""
            raise InputError(f"{file}: {list(row.shape)} coefficients{want}; {_FIX}")
        rows.append(row)
    return np.stack(rows)


def _check_same_capture(
    frames: list[TrackerFrame], expression: NDArray[np.float64], records: list[Record]
) -> None:
    for frame, row, record in zip(frames, expression, records, strict=True):
        same = frame.expression.shape == row.shape and np.allclose(frame.expression, row, atol=1e-4)
        if not same:
            raise InputError(
                f"{frame.file}: field 'flame.exp' is not what {record.text('exp_path')} holds; "
                "give the .frame files that the capture was made from"
            )


def _held_out(
    source: Path, numbers: NDArray[np.int64], test_frames: int | None, notes: list[str]
) -> tuple[int, ...]:
    file = source / "transforms_test.json"
    if test_frames is None and file.is_file():
        test = {
            frame_number(r.text("file_path"), file)
            for r in Record.from_json(file, _FIX).records("frames")
        }
        unknown = test - set(numbers.tolist())
        if unknown:
            raise InputError(f"{file}: frame {min(unknown)} is not in transforms.json; {_FIX}")
        return tuple(i for i, n in enumerate(numbers.tolist()) if n in test)
    held = TEST_FRAMES if test_frames is None else test_frames
    if held >= len(numbers):
        notes.append(f"too short to hold out the last {held} frames")
        held = 0
    return tuple(range(len(numbers) - held, len(numbers)))


def _obj_vertices(file: Path) -> NDArray[np.float64]:
    rows = [line.split()[1:4] for line in file.read_text().splitlines() if line.startswith("v ")]
    try:
        vertices = np.array(rows, np.float64).reshape(-1, 3)
    except ValueError as error:
        raise InputError(f"{file}: a vertex is not three numbers; {_FIX}") from error
    if not len(vertices) or not np.isfinite(vertices).all():
        raise InputError(f"{file}: no vertices, or not finite; {_FIX}")
    return vertices
