"""The dataset: a tracked, matted video of one head, as a folder.

Layout (T frames counted from 0; see docs/dataset_format.md)::

    DIR/dataset.json          format, version, frames, camera, code_names, crop, ... (below)
    DIR/images/%05d.png       RGB, 8 bit, H x W
    DIR/alpha/%05d.png        matte, 8 bit grey: 255 = person
    DIR/parsing/%05d.png      part labels, 8 bit: indices into PARSING_LABELS
    DIR/tracking.safetensors  float32 identity [I], vertex_offsets [V, 3] (metres), codes [T, E],
                              head_pose and torso_pose [T, 4, 4] (canonical to camera space, OpenCV
                              axes, metres), landmarks [T, 478, 3] (crop pixels; z as MediaPipe's);
                              float64 timestamps [T] (seconds), int64 source_frames [T] (numbers
                              in the video), float32 reliability [T, 3] (below) and scores
                              [T, 52] (optional: MediaPipe's, in the order of ARKIT_NAMES)

dataset.json: ``format`` "cag_avatar-dataset", ``version`` 2, ``head_model``, ``source``, ``fps``,
``frames`` T, ``camera`` {width height fx fy cx cy}, ``code_names``, ``crop`` {x y size, in source
pixels}, ``background`` (how images are composited: a note), ``tool_version``, ``tracking``
(figures of the fit; ``frames_without_face``: ranges [first, last] of the video's frames),
``held_out`` (frames that the source's own protocol tests on) and ``imported``
(where it came from, of a dataset that another program tracked; landmarks may be absent then).

Reliability is that of mouth, left and right eye (the subject's sides) in each frame: 1 = seen,
0 = covered by a hand or a thing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
import torch
from cag_avatar_training.frame import Frame, FrameArrays
from cag_avatar_training.parts import MOUTH_LABELS, PARSING_LABELS
from cag_avatar_training.split import Split, split_frames
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.files import replace_folder, replacing, replacing_folder
from cag_avatar.head_models import ARKIT_NAMES

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "Dataset",
    "DatasetInfo",
    "DatasetWriter",
    "Tracking",
]

FORMAT = "cag_avatar-dataset"
FORMAT_VERSION = 2
#: Landmarks of MediaPipe's face landmarker.
NUM_LANDMARKS = 478

_LOG = logging.getLogger(__name__)

_FOLDERS = ("images", "alpha", "parsing")
#: Least reliability of the mouth in frames that are trained on and measured.
_RELIABLE = 0.5
#: Decoded images that are kept in memory, at most.
_CACHE_BYTES = 2 << 30
_REMAKE = "make the dataset again with 'cag-avatar preprocess'"


@dataclass(frozen=True)
class Tracking:
    """The fit of a head model to T frames."""

    identity: NDArray[np.float32]
    """Identity components, [I]."""
    vertex_offsets: NDArray[np.float32]
    """Offsets of the rest vertices, metres, [V, 3]."""
    codes: NDArray[np.float32]
    """Expression codes, [T, E]."""
    head_pose: NDArray[np.float32]
    """Canonical to camera space (OpenCV axes, metres), [T, 4, 4]."""
    torso_pose: NDArray[np.float32]
    """Canonical to camera space, [T, 4, 4]."""
    landmarks: NDArray[np.float32] | None
    """Detected landmarks, [T, 478, 3]: x and y in pixels of the crop, z as MediaPipe gives it; the
    irises' where they were found in the pictures (``irises_in_pictures`` of DatasetInfo.tracking).
    None in a dataset that was imported."""
    timestamps: NDArray[np.float64]
    """Presentation time of each frame since the start of the video, seconds, [T]."""
    source_frames: NDArray[np.int64] = None  # type: ignore[assignment]
    """Number of each frame in the video, ascending, [T]; by default 0, 1, ..."""
    reliability: NDArray[np.float32] = None  # type: ignore[assignment]
    """How far mouth, left and right eye are seen, in [0, 1], [T, 3]; by default 1."""
    scores: NDArray[np.float32] | None = None
    """MediaPipe's blendshape scores in the order of ARKIT_NAMES, [T, 52]; None in a dataset from
    before they were kept, or that was imported."""

    def __post_init__(self) -> None:
        if self.source_frames is None:
            object.__setattr__(self, "source_frames", np.arange(len(self.codes), dtype=np.int64))
        if self.reliability is None:
            object.__setattr__(self, "reliability", np.ones((len(self.codes), 3), np.float32))

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(frozen=True)
class DatasetInfo:
    """The text part of a dataset."""

    camera: PinholeCamera
    """Camera of the images; it is the world."""
    fps: float
    """Frames per second of the video."""
    source: str
    """Name of the video."""
    head_model: str = "anny"
    """Name of the head model that was fitted."""
    code_names: tuple[str, ...] = ARKIT_NAMES
    """Name of each coefficient."""
    crop: dict[str, int] = field(default_factory=dict)
    """Square cut from the source: x, y, size in source pixels."""
    background: str = "original image; composite with alpha over any colour"
    """What is behind the person."""
    tool_version: str = ""
    """Version of the program that wrote it."""
    tracking: dict[str, Any] = field(default_factory=dict)
    """Figures of the fit, as plain JSON values."""
    held_out: tuple[int, ...] = ()
    """Frames that the source's own protocol tests on (split ``source``)."""
    imported: dict[str, Any] = field(default_factory=dict)
    """Of another program's dataset: its format, what it lacks, notes, as plain JSON values."""


class Dataset:
    """A dataset that has been checked; made by :meth:`open`.

    Images are read on demand, and up to 2 GiB of them kept.

    Args:
        path: the folder.
        info: its text part.
        tracking: its numbers.
    """

    def __init__(self, path: Path, info: DatasetInfo, tracking: Tracking) -> None:
        self.path = path
        self.info = info
        self.tracking = tracking
        self._cache: dict[tuple[int, int], FrameArrays] = {}
        self._cached_bytes = 0

    @classmethod
    def open(cls, path: Path | str) -> Dataset:
        """Open and check a folder.

        Raises:
            InputError: one line naming the file and the fix: no dataset, another version, a missing
                file, an image or tensor of the wrong size, NaN.
        """
        path = Path(path)
        info, frames = _read_info(path)
        tracking = _read_tracking(
            path / "tracking.safetensors",
            frames,
            len(info.code_names),
            frozenset({"scores", "landmarks"} if info.imported else {"scores"}),
        )
        for folder in _FOLDERS:
            for frame in range(frames):
                file = path / folder / f"{frame:05d}.png"
                if not file.is_file():
                    raise InputError(f"{file}: missing; {_REMAKE}")
        dataset = cls(path, info, tracking)
        for folder in _FOLDERS:
            dataset._read(folder, 0)
        return dataset

    def __len__(self) -> int:
        return len(self.tracking)

    def split(self, split: Split) -> tuple[list[int], list[int]]:
        """Training and held-out frame numbers; see split_frames().

        Frames whose mouth is covered (reliability below 0.5) are in neither.
        """
        covered = set(np.flatnonzero(self.tracking.reliability[:, 0] < _RELIABLE).tolist())
        if covered:
            _LOG.info("%s: %d frames with a covered mouth are left out", self.path, len(covered))
        train, held_out = (
            [frame for frame in side if frame not in covered]
            for side in split_frames(len(self), split, self.info.held_out)
        )
        if not train or not held_out:
            raise InputError(
                f"{self.path}: the mouth is covered in {len(covered)} of {len(self)} frames, too "
                f"few are left for split '{split}'; record another video"
            )
        return train, held_out

    def with_info(self, info: DatasetInfo) -> Dataset:
        """Replace the text part, in the folder too; camera and code names must stay."""
        if (info.camera, info.code_names) != (self.info.camera, self.info.code_names):
            raise ValueError("camera and code names belong to the images and the tracking")
        with replacing(self.path / "dataset.json") as temporary:
            temporary.write_text(_info_text(info, len(self)))
        return Dataset.open(self.path)

    def frame(
        self, index: int, size: int | None = None, device: torch.device | None = None
    ) -> Frame:
        """One frame, its height ``size`` pixels (None: full size), its tensors on ``device``."""
        camera = self.info.camera
        height = camera.height if size is None else size
        key = (index, height)
        arrays = self._cache.get(key)
        if arrays is None:
            image, alpha, parsing = (self._read(folder, index) for folder in _FOLDERS)
            mouth = np.isin(parsing, MOUTH_LABELS).astype(np.uint8) * np.uint8(255)
            if height != camera.height:
                target = (round(camera.width * height / camera.height), height)
                image, alpha, mouth = (
                    np.asarray(cv2.resize(plane, target, interpolation=cv2.INTER_AREA), np.uint8)
                    for plane in (image, alpha, mouth)
                )
                nearest = cv2.resize(parsing, target, interpolation=cv2.INTER_NEAREST_EXACT)
                parsing = np.asarray(nearest, np.uint8)
            arrays = FrameArrays(image, alpha, mouth, parsing)
            # Frames come in random order, so when the room is used up, keeping those that are there
            # is as good as replacing them.
            if self._cached_bytes + arrays.nbytes <= _CACHE_BYTES:
                self._cache[key] = arrays
                self._cached_bytes += arrays.nbytes
        width = arrays.alpha.shape[1]
        return Frame(arrays, camera if size is None else camera.resized(width, height), device)

    def image(self, index: int) -> NDArray[np.uint8]:
        """The picture of a frame as it is, RGB uint8 [H, W, 3]. Raises InputError if unreadable."""
        return self._read("images", index)

    def _read(self, folder: str, index: int) -> NDArray[np.uint8]:
        file = self.path / folder / f"{index:05d}.png"
        color = folder == "images"
        image = cv2.imread(str(file), cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise InputError(f"{file}: missing or not a PNG; {_REMAKE}")
        camera = self.info.camera
        if image.shape[:2] != (camera.height, camera.width):
            raise InputError(
                f"{file}: {image.shape[1]}x{image.shape[0]} pixels, dataset.json says "
                f"{camera.width}x{camera.height}; {_REMAKE}"
            )
        if color:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        elif folder == "parsing" and image.max() >= len(PARSING_LABELS):
            raise InputError(
                f"{file}: holds label {image.max()}, the largest is {len(PARSING_LABELS) - 1}; "
                f"{_REMAKE}"
            )
        return image.astype(np.uint8, copy=False)


def _read_info(path: Path) -> tuple[DatasetInfo, int]:
    file = path / "dataset.json"
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file}: missing or not JSON; pass a folder made by 'preprocess'"
        ) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InputError(f"{file}: format is not '{FORMAT}'; {_REMAKE}")
    if values.get("version") != FORMAT_VERSION:
        raise InputError(
            f"{file}: version {values.get('version')}, this program reads {FORMAT_VERSION}; "
            f"{_REMAKE}"
        )
    frames = values.get("frames")
    if not isinstance(frames, int) or frames < 1:
        raise InputError(f"{file}: field 'frames' must be a positive integer; {_REMAKE}")
    names = values.get("code_names")
    if not isinstance(names, list) or not names or len(set(map(str, names))) != len(names):
        raise InputError(f"{file}: field 'code_names' must hold distinct names; {_REMAKE}")
    names = tuple(map(str, names))
    if values.get("head_model") == "anny" and names != ARKIT_NAMES:
        raise InputError(f"{file}: field 'code_names' is not the 52 ARKit names; {_REMAKE}")
    try:
        info = DatasetInfo(
            camera=PinholeCamera.from_dict(values["camera"], str(file)),
            fps=float(values["fps"]),
            source=str(values["source"]),
            head_model=str(values["head_model"]),
            code_names=names,
            crop=dict(values.get("crop") or {}),
            background=str(values.get("background", "")),
            tool_version=str(values.get("tool_version", "")),
            tracking=dict(values.get("tracking") or {}),
            held_out=_held_out(values.get("held_out") or [], frames),
            imported=dict(values.get("imported") or {}),
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: field {error} is missing or wrong; {_REMAKE}") from error
    return info, frames


def _held_out(values: list[Any], frames: int) -> tuple[int, ...]:
    if not all(isinstance(v, int) and 0 <= v < frames for v in values):
        raise ValueError("'held_out'")
    return tuple(values)


#: Types of the tensors that are not float32.
_TYPES: Mapping[str, type] = {"timestamps": np.float64, "source_frames": np.int64}


def _read_tracking(
    file: Path, frames: int, coefficients: int, optional: frozenset[str]
) -> Tracking:
    shapes: dict[str, tuple[int, ...]] = {
        "identity": (-1,),
        "vertex_offsets": (-1, 3),
        "codes": (frames, coefficients),
        "head_pose": (frames, 4, 4),
        "torso_pose": (frames, 4, 4),
        "landmarks": (frames, NUM_LANDMARKS, 3),
        "timestamps": (frames,),
        "source_frames": (frames,),
        "reliability": (frames, 3),
        "scores": (frames, len(ARKIT_NAMES)),
    }
    try:
        with safe_open(file, "np") as handle:
            arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: missing or truncated ({error}); {_REMAKE}") from error
    values: dict[str, Any] = {}
    for name, shape in shapes.items():
        if name not in arrays and name in optional:
            values[name] = None
            continue
        if name not in arrays and name in ("source_frames", "reliability"):
            continue  # a dataset from before these: Tracking has defaults
        if name not in arrays:
            raise InputError(f"{file}: tensor '{name}' is missing; {_REMAKE}")
        array = arrays[name]
        fits = array.ndim == len(shape) and all(
            want in (-1, have) for want, have in zip(shape, array.shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"{file}: tensor '{name}' has shape {list(array.shape)}, expected {list(shape)}; "
                f"{_REMAKE}"
            )
        if not np.isfinite(array).all():
            raise InputError(f"{file}: tensor '{name}' holds NaN or infinity; {_REMAKE}")
        values[name] = array.astype(_TYPES.get(name, np.float32))
    return Tracking(**values)


#: Fast compression: 2.5 times quicker to write for a tenth more bytes. Rows as differences to the
#: row above: half of the time again, and smaller (OpenCV before 4.12 cannot be told).
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    _PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]


class DatasetWriter:
    """Writes a dataset; nothing is at ``path`` until it is whole.

    Use::

        with DatasetWriter.create(path) as writer:
            for ...: writer.add_frame(image, alpha, parsing)
            writer.finish(info, tracking)
    """

    def __init__(self, folder: Path, target: Path) -> None:
        self._folder = folder
        self._target = target
        self._frames = 0
        self._lock = Lock()
        self.finished = False
        for name in _FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)

    @classmethod
    @contextmanager
    def create(cls, path: Path | str) -> Iterator[DatasetWriter]:
        """Start a dataset that replaces ``path`` when the block ends after finish().

        Raises:
            InputError: ``path`` exists and is not a dataset (it would be lost).
        """
        cls.check_target(path)
        path = Path(path)
        with replacing_folder(path) as folder:
            writer = cls(folder, path)
            yield writer
            if not writer.finished:
                raise RuntimeError(f"{path}: the dataset was not finished")

    @classmethod
    @contextmanager
    def resume(cls, path: Path | str, folder: Path, frames: int) -> Iterator[DatasetWriter]:
        """Like create(), in a folder that stays when the block fails, with ``frames`` in it.

        ``folder`` must lie on the file system of ``path``.

        Raises:
            InputError: ``path`` exists and is not a dataset (it would be lost).
        """
        cls.check_target(path)
        writer = cls(folder, Path(path))
        writer._frames = frames
        yield writer
        if not writer.finished:
            raise RuntimeError(f"{path}: the dataset was not finished")
        replace_folder(folder, Path(path))

    @staticmethod
    def check_target(path: Path | str) -> None:
        """Raise InputError if ``path`` exists and is not a dataset: it would be lost."""
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: exists and is not a folder; name another")
        if path.exists() and not (path / "dataset.json").is_file() and any(path.iterdir()):
            raise InputError(
                f"{path}: exists and is not a dataset; name another folder or remove it"
            )

    def add_frame(
        self, image: NDArray[np.uint8], alpha: NDArray[np.uint8], parsing: NDArray[np.uint8]
    ) -> None:
        """Append a frame: RGB [H, W, 3], matte [H, W], part labels [H, W], all uint8."""
        self.write_frame(self._frames, image, alpha, parsing)

    def write_frame(
        self,
        index: int,
        image: NDArray[np.uint8],
        alpha: NDArray[np.uint8],
        parsing: NDArray[np.uint8],
    ) -> None:
        """Write frame ``index``, as add_frame(); several threads may, in any order."""
        shape = image.shape[:2]
        if image.shape != (*shape, 3) or alpha.shape != shape or parsing.shape != shape:
            raise ValueError(
                f"frame: shapes {image.shape}, {alpha.shape}, {parsing.shape} do not fit"
            )
        if parsing.max(initial=0) >= len(PARSING_LABELS):
            raise ValueError(f"frame: part labels go up to {parsing.max()}, the largest is 6")
        name = f"{index:05d}.png"
        planes = {
            "images": cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
            "alpha": alpha,
            "parsing": parsing,
        }
        for folder, plane in planes.items():
            if not cv2.imwrite(str(self._folder / folder / name), plane, _PNG):
                raise InputError(
                    f"{self._target / folder / name}: cannot be written; is the disk full?"
                )
        with self._lock:
            self._frames = max(self._frames, index + 1)

    def finish(self, info: DatasetInfo, tracking: Tracking) -> None:
        """Write the numbers and the text; T of the tracking must be the frames added."""
        if len(tracking) != self._frames:
            raise ValueError(f"{len(tracking)} tracked frames, {self._frames} images")
        arrays = {
            name: np.ascontiguousarray(value)
            for name, value in vars(tracking).items()
            if value is not None
        }
        save_file(arrays, self._folder / "tracking.safetensors")
        (self._folder / "dataset.json").write_text(_info_text(info, self._frames))
        self.finished = True


def _info_text(info: DatasetInfo, frames: int) -> str:
    values: Mapping[str, Any] = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "head_model": info.head_model,
        "source": info.source,
        "fps": info.fps,
        "frames": frames,
        "camera": info.camera.to_dict(),
        "code_names": list(info.code_names),
        "crop": info.crop,
        "background": info.background,
        "tool_version": info.tool_version,
        "tracking": info.tracking,
    }
    if info.held_out:
        values = {**values, "held_out": list(info.held_out)}
    if info.imported:
        values = {**values, "imported": info.imported}
    return json.dumps(values, indent=2, allow_nan=False) + "\n"
