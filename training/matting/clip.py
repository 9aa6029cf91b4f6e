"""Alpha of a whole clip, frame by frame."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from cag_avatar_training.matting.band import find_band
from cag_avatar_training.matting.closed_form import load_pymatting, solve_alpha, upsample_alpha
from cag_avatar_training.matting.config import MatteConfig
from cag_avatar_training.matting.robust_video_matting import RobustVideoMatting
from cag_avatar_training.matting.seeds import TORSO, Seeds, find_seeds
from cag_avatar_training.matting.segmentation import ClipModel, cut, survey
from cag_avatar_training.matting.shoulders import NeckLine, cut_shoulders, find_neck_line
from cag_avatar_training.matting.temporal import steady_alpha
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models.base import REGIONS

__all__ = ["matte_clip"]

Frames = Callable[[int], NDArray[np.uint8]]
Labels = Callable[[int], NDArray[Any]]
#: The line along which the neck ends, and the head's size, in pixels of the full frame.
Neck = tuple[NeckLine, float]

#: Alpha below the first is taken for 0, above the second for 1.
_BLACK, _WHITE = 0.03, 0.97
#: Alpha, of 255, from which a piece must hang together with the person.
_SOLID = 16
#: Levels so near to 0 and 255 become them: clean planes compress, and a trainer sees no haze.
_SNAP = 4


@dataclass(frozen=True)
class _Frame:
    """One frame on its way."""

    small: NDArray[np.uint8]
    """At the working size."""
    alpha: NDArray[np.float32]
    """At full size."""
    neck: Neck | None
    """Where it is to end."""


def matte_clip(
    frames: Frames,
    labels: Labels,
    count: int,
    config: MatteConfig | None = None,
    *,
    start: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Matte the person in every frame of a clip.

    Memory does not grow with ``count``: frames are asked for one at a time, and at most a few for
    each worker are held besides the ``config.survey_frames`` pictures at ``config.working_size``.

    The clip's colour models and background plate come from some of its frames; then each frame is
    cut (GrabCut seeded by the drawn head), given a soft edge (closed-form matting at
    ``config.working_size``, then upsampled along the frame's edges) and steadied with its two
    neighbours. The result does not depend on the number of workers. With ``config.rvm`` alpha comes
    from that network instead.

    Args:
        frames: frame i, [H, W, 3] uint8, RGB; all of one size. Called from several threads, for
            some frames twice.
        labels: the fitted head drawn into frame i, [H, W] integers: -1 for nothing, else an index
            into ``head_models.base.REGIONS``. Called likewise.
        count: number of frames.
        config: settings.
        start: first frame wanted; it and the later ones come out as if all had been.
        workers: threads; by default one a core.
        progress: called with (frames done, count).

    Yields:
        Alpha of frames start, start + 1, ..., [H, W] uint8: 255 for the person.

    Raises InputError on an empty clip, a frame or label image of another size or type, a frame in
    which no head is drawn, or a network's file that does not fit.
    """
    settings = config or MatteConfig()
    if count < 1:
        raise InputError("matte: the clip holds no frames")
    if settings.uses_rvm:
        yield from _by_network(
            _Reader(frames, labels, settings), count, settings, workers, progress
        )
        return
    for module in ("preconditioner.ichol", "solver.cg"):
        load_pymatting(module)
    reader = _Reader(frames, labels, settings)
    threads = max(1, workers or len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads) as pool:
        model = _survey(reader, count, settings, pool)
        yield from _stream(pool, reader, model, start, count, settings, threads, progress)


def _stream(
    pool: ThreadPoolExecutor,
    reader: _Reader,
    model: ClipModel,
    start: int,
    count: int,
    config: MatteConfig,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[NDArray[np.uint8]]:
    solving: deque[Future[_Frame]] = deque()
    finishing: deque[Future[NDArray[np.uint8]]] = deque()
    recent: list[_Frame] = []  # the frame before the one to finish, that one, and the one after
    read = done = max(start - 1, 0)  # the frame before the first wanted one steadies that
    try:
        while done < count:
            while read < count and len(solving) + len(finishing) < 2 * workers + 1:
                solving.append(pool.submit(_solve, reader, read, model, config))
                read += 1
            if solving:
                recent = [*recent[-2:], solving.popleft().result()]
                if len(recent) > 1:
                    before = recent[:-2]
                    around = [*before, recent[-1]]
                    finishing.append(pool.submit(_finish, recent[-2], around, config))
                if not solving and read == count:
                    finishing.append(pool.submit(_finish, recent[-1], recent[-2:-1], config))
            while finishing and (len(finishing) > workers or not solving):
                alpha = finishing.popleft().result()
                done += 1
                if done > start:
                    yield alpha
                if progress is not None:
                    progress(done, count)
    finally:
        for solve in solving:
            solve.cancel()
        for finish in finishing:
            finish.cancel()


@dataclass(frozen=True)
class _Input:
    """One frame, read."""

    image: NDArray[np.uint8]
    """Without its border."""
    small: NDArray[np.uint8]
    """The same at the working size."""
    seeds: Seeds
    """What the drawn head says, at the working size."""
    neck: Neck | None
    """Where the matte is to end; None: nowhere."""


class _Reader:
    """Reads and checks frames, and brings them to the working size."""

    def __init__(self, frames: Frames, labels: Labels, config: MatteConfig) -> None:
        self._frames, self._labels, self._config = frames, labels, config
        self._shape: tuple[int, ...] | None = None

    def read(self, i: int) -> _Input:
        """The frame, checked."""
        image, labels = np.asarray(self._frames(i)), np.asarray(self._labels(i))
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(
                f"matte: frame {i} is {image.dtype} {image.shape}, expected uint8 [H, W, 3]"
            )
        self._shape = self._shape or image.shape
        if image.shape != self._shape:
            raise InputError(f"matte: frame {i} has shape {image.shape}, the first {self._shape}")
        if labels.shape != image.shape[:2] or not np.issubdtype(labels.dtype, np.integer):
            raise InputError(
                f"matte: labels of frame {i} are {labels.dtype} {labels.shape}, expected integers "
                f"{image.shape[:2]}"
            )
        if labels.min() < -1 or labels.max() >= len(REGIONS):
            raise InputError(f"matte: labels of frame {i} leave -1..{len(REGIONS) - 1}")
        height, width = labels.shape
        if min(height, width) < 32 + 4 * self._config.border:
            raise InputError(f"matte: frames of {width} x {height} are too small")
        clean = _without_border(image, self._config.border)
        factor = min(1.0, self._config.working_size / max(height, width))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        small: NDArray[Any] = cv2.resize(clean, size, interpolation=cv2.INTER_AREA)
        drawn = cv2.resize(labels.astype(np.int16), size, interpolation=cv2.INTER_NEAREST)
        seeds = find_seeds(drawn, self._config)
        if seeds is None:
            raise InputError(f"matte: no head is drawn in frame {i}; fit it or drop the frame")
        return _Input(clean, small, seeds, self._neck(labels) if self._cut else None)

    @property
    def _cut(self) -> bool:
        return self._config.shoulders == "cut"

    def _neck(self, labels: NDArray[Any]) -> Neck | None:
        line = find_neck_line(labels)
        head = (labels >= 0) & ~np.isin(labels, TORSO)
        return None if line is None else (line, float(np.sqrt(head.sum())))


def _survey(reader: _Reader, count: int, config: MatteConfig, pool: Executor) -> ClipModel:
    chosen = np.unique(np.linspace(0, count - 1, min(count, config.survey_frames)).astype(int))

    def look(i: int) -> tuple[NDArray[np.uint8], Seeds]:
        read = reader.read(i)
        return read.small, read.seeds  # full frames are not kept

    first, *others = chosen.tolist()
    seen = [look(first)]  # before the others: they must have its size
    seen += pool.map(look, others)
    small, seeds = zip(*seen, strict=True)
    return survey(list(small), list(seeds), config, pool)


def _solve(reader: _Reader, i: int, model: ClipModel, config: MatteConfig) -> _Frame:
    """Soft alpha of a frame at full size."""
    read = reader.read(i)
    person, evidence = cut(read.small, read.seeds, model, coarse=True)
    band = find_band(read.small, person, evidence, read.seeds.head_size, config)
    alpha = solve_alpha(read.small, person, band.unknown, band.prior, band.weight)
    alpha = np.clip((alpha - _BLACK) / (_WHITE - _BLACK), 0, 1)
    return _Frame(read.small, upsample_alpha(alpha, read.small, read.image), read.neck)


def _by_network(
    reader: _Reader,
    count: int,
    config: MatteConfig,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> Iterator[NDArray[np.uint8]]:
    """Robust Video Matting: one frame after the other, because it remembers the last."""
    assert config.rvm is not None
    threads = max(1, workers or len(os.sched_getaffinity(0)))
    network = RobustVideoMatting(config.rvm, threads)
    for i in range(count):
        read = reader.read(i)
        alpha = network.matte(read.image)
        yield _levels(_Frame(read.small, alpha, read.neck), alpha, config)
        if progress is not None:
            progress(i + 1, count)


def _tidy(alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Alpha without the pieces that do not hang together with the largest."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats((alpha >= _SOLID).astype(np.uint8))
    if len(stats) > 2:
        main = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        stray = ((pieces > 0) & (pieces != main)).astype(np.uint8)
        alpha[(cv2.dilate(stray, np.ones((3, 3), np.uint8)) > 0) & (pieces != main)] = 0
    return alpha


def _finish(frame: _Frame, around: list[_Frame], config: MatteConfig) -> NDArray[np.uint8]:
    """The alpha to hand out, from a frame and its neighbours."""
    alpha = steady_alpha(
        frame.small, frame.alpha, [(f.small, f.alpha) for f in around], config.temporal_weight
    )
    return _levels(frame, alpha, config)


def _levels(frame: _Frame, alpha: NDArray[np.float32], config: MatteConfig) -> NDArray[np.uint8]:
    alpha = _without_border(alpha, config.border)
    levels = np.rint(alpha * 255).astype(np.uint8)
    levels[levels < _SNAP] = 0
    levels[levels > 255 - _SNAP] = 255
    levels = _tidy(levels)
    return levels if frame.neck is None else cut_shoulders(levels, *frame.neck)


def _without_border(image: NDArray[Any], width: int) -> NDArray[Any]:
    """The image with its outermost rows and columns replaced by their inner neighbours'."""
    if width == 0:
        return image
    inner = np.ascontiguousarray(image[width:-width, width:-width])
    return cv2.copyMakeBorder(inner, width, width, width, width, cv2.BORDER_REPLICATE)
