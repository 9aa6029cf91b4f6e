"""VHAP's layout, which GaussianAvatars, STAvatar and RGBAvatar share: transforms.json and npz."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from cag_avatar_training.importers.fields import Record, one_camera, require_file
from cag_avatar_training.importers.foreign import FlameTrack, ForeignCapture
from cag_avatar_training.importers.rotations import from_rotation_vector
from numpy.typing import NDArray

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError

__all__ = ["read_vhap"]

_FIX = "export it again with vhap/export_as_nerf_dataset.py"
_SPLITS = ("train", "val", "test")
#: Camera axes are OpenGL's (x right, y up, z backward).
_OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def read_vhap(source: Path, camera: int | None = None) -> ForeignCapture:
    """Read a capture laid out as VHAP's export.

    ``transforms.json`` (or, in a union of sequences, ``transforms_{train,val,test}.json``): per
    frame ``file_path``, ``fg_mask_path``, ``flame_param_path``, ``timestep_index``,
    ``camera_index``, ``transform_matrix`` (camera to world, OpenGL axes) and the intrinsics in
    pixels. The npz of each timestep: translation, rotation, neck_pose, jaw_pose, eyes_pose
    (rotation vectors), shape, expr and static_offset. The head moves in the world. There are no
    eyelids; a dynamic_offset is not imported. Timesteps of transforms_test.json are held out.

    Args:
        source: the folder that holds the transforms.
        camera: camera_index of the camera to import; None where there is one.

    Raises:
        InputError: a missing file, several cameras and none chosen, a frame twice, a bad field.
    """
    records, held = _frames(source)
    cameras = sorted({round(r.number("camera_index")) for r in records})
    if camera is None:
        if len(cameras) > 1:
            raise InputError(
                f"{source}: holds cameras {', '.join(map(str, cameras))}; choose one with --camera"
            )
        camera = cameras[0]
    if camera not in cameras:
        raise InputError(
            f"--camera: {camera} is not in {source}, choose from {', '.join(map(str, cameras))}"
        )
    records = [r for r in records if round(r.number("camera_index")) == camera]
    records.sort(key=lambda r: r.number("timestep_index"))
    numbers = np.array([round(r.number("timestep_index")) for r in records], np.int64)
    twice = np.flatnonzero(np.diff(numbers) == 0)
    if len(twice):
        raise InputError(
            f"{records[0].file}: timestep_index {numbers[twice[0]]} is there twice; {_FIX}"
        )
    for record in records:
        if "fg_mask_path" not in record:
            raise record.wrong("fg_mask_path", "is missing")
    intrinsics = one_camera(
        np.array([[r.number(k) for k in ("fl_x", "fl_y", "cx", "cy")] for r in records]),
        str(records[0].file),
    )
    sizes = {(round(r.number("w")), round(r.number("h"))) for r in records}
    if len(sizes) > 1:
        raise InputError(f"{records[0].file}: fields 'w' and 'h' vary; {_FIX}")
    width, height = sizes.pop()
    flame, notes = _flame([source / r.text("flame_param_path") for r in records])
    if len(cameras) > 1:
        notes.append(f"camera {camera} of {len(cameras)}")
    to_world = np.stack([r.rigid("transform_matrix", 4) for r in records])
    return ForeignCapture(
        format="vhap",
        source=source.resolve().name,
        camera=PinholeCamera(width, height, *intrinsics.tolist()),
        world_to_camera=_OPENGL_TO_OPENCV @ np.linalg.inv(to_world),
        images=tuple(
            require_file(source / r.text("file_path"), "every frame needs its picture")
            for r in records
        ),
        frames=numbers,
        flame=flame,
        mattes=tuple(
            (require_file(source / r.text("fg_mask_path"), "every picture needs its matte"),)
            for r in records
        ),
        held_out=tuple(i for i, n in enumerate(numbers.tolist()) if n in held),
        missing=("eyelids",),
        notes=tuple(notes),
    )


def _frames(source: Path) -> tuple[list[Record], set[int]]:
    """Every frame of every camera, and the timesteps held out."""
    by_split = {
        split: Record.from_json(file, _FIX)
        for split in _SPLITS
        if (file := source / f"transforms_{split}.json").is_file()
    }
    whole = source / "transforms.json"
    if not by_split or whole.is_file():
        records = Record.from_json(whole, _FIX).records("frames")
    else:
        # An empty validation set is normal: one camera leaves none for it.
        parts = [p for s, p in by_split.items() if s != "val" or p.value("frames")]
        records = [r for part in parts for r in part.records("frames")]
    held: set[int] = set()
    if "test" in by_split and by_split["test"].value("frames"):
        held = {round(r.number("timestep_index")) for r in by_split["test"].records("frames")}
    return records, held


def _read_npz(file: Path) -> Record:
    require_file(file, _FIX)
    try:
        with np.load(file, allow_pickle=False) as data:
            return Record({key: data[key] for key in data.files}, file, fix=_FIX)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: not an npz of numbers ({error}); {_FIX}") from error


def _flame(files: list[Path]) -> tuple[FlameTrack, list[str]]:
    """FLAME's parameters of the frames, and notes."""
    rows = [_read_npz(file) for file in files]
    first = rows[0]
    shape = first.array("shape", -1)
    offset: NDArray[np.float64] | None = None
    if "static_offset" in first:
        offset = first.array("static_offset", -1, 3)
    for row in rows:
        if not np.allclose(row.array("shape", len(shape)), shape, atol=1e-3):
            raise row.wrong("shape", f"differs from {first.file.name}'s: it must be one person")
        if offset is not None and not np.allclose(
            row.array("static_offset", len(offset), 3), offset, atol=1e-4
        ):
            raise row.wrong("static_offset", f"differs from {first.file.name}'s")
    notes = []
    moving = [
        r for r in rows if "dynamic_offset" in r and np.abs(r.array("dynamic_offset", -1, 3)).max()
    ]
    if moving:
        notes.append(f"dynamic_offset of {len(moving)} frames left out")

    def turns(key: str, joints: int) -> NDArray[np.float64]:
        vectors = np.stack([r.array(key, 3 * joints) for r in rows])
        return from_rotation_vector(vectors.reshape(len(rows), joints, 3))

    track = FlameTrack.neutral(len(rows)).with_values(
        shape=shape,
        expression=np.stack([r.array("expr", first.array("expr", -1).size) for r in rows]),
        rotation=turns("rotation", 1)[:, 0],
        translation=np.stack([r.array("translation", 3) for r in rows]),
        neck=turns("neck_pose", 1)[:, 0],
        jaw=turns("jaw_pose", 1)[:, 0],
        eyes=turns("eyes_pose", 2),
        static_offset=offset,
    )
    return track, notes
