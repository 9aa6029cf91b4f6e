"""Stage: the landmarks of one face in every frame that shows it."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from cag_avatar_training.preprocess.config import PreprocessConfig
from cag_avatar_training.preprocess.faces import (
    REMEMBERED,
    FaceFinder,
    FaceFollower,
    FollowerState,
    overlap,
    visible,
)
from cag_avatar_training.preprocess.parallel import prefetched
from cag_avatar_training.preprocess.workspace import StageStore
from cag_avatar_training.progress import Advance
from cag_avatar_training.video import VideoFrame, VideoInfo, read_video
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar.tracking.face_landmarker import FACE_LANDMARKS, NUM_LANDMARKS, DetectedFace

__all__ = ["Detections", "find_landmarks", "frame_ranges", "too_short"]

_LOG = logging.getLogger(__name__)

#: Frames that are found, and kept, together.
CHUNK = 240
#: Frames looked at for a second face.
_SURVEY = 12
#: Of two faces this alike in height, nobody can tell which one is meant.
_TWIN = 0.8
#: A run of fewer frames is believed only if its face overlaps that of a longer one this much.
_SHORT_RUN, _SAME_PLACE = 5, 0.15
#: Alpha below this, of 255, somewhere in the clip means that the file's alpha is a matte.
_OPAQUE = 250


@dataclass(frozen=True)
class Detections:
    """The face in T of a video's frames."""

    frames: NDArray[np.int64]
    """Their numbers in the video, ascending, [T]."""
    landmarks: NDArray[np.float32]
    """Pixels of the video, [T, 478, 3]."""
    scores: NDArray[np.float32]
    """Blendshape scores, [T, 52]."""
    colors: NDArray[np.uint8]
    """Blurred colours at the landmarks of the face (they tell the light), [T, 468, 3]."""
    times: NDArray[np.float64]
    """Presentation times of all frames of the video, seconds, [N]."""
    transparent: bool
    """Whether the file's own alpha is a matte."""

    def segments(self) -> list[tuple[int, int]]:
        """Stretches of frames that follow each other in the video: [first, end) of the T."""
        breaks = np.flatnonzero(np.diff(self.frames) != 1) + 1
        edges = [0, *breaks.tolist(), len(self.frames)]
        return [(a, b) for a, b in itertools.pairwise(edges) if a < b]

    def without_face(self) -> list[tuple[int, int]]:
        """Ranges [first, last] of the video's frames that are left out."""
        return frame_ranges(np.setdiff1d(np.arange(len(self.times)), self.frames))


def frame_ranges(frames: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ascending frame numbers as ranges [first, last]."""
    if not len(frames):
        return []
    parts = np.split(frames, np.flatnonzero(np.diff(frames) != 1) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts]


def too_short(info: VideoInfo, seconds: float, config: PreprocessConfig) -> InputError:
    """The error of a video that is too short."""
    return InputError(
        f"{info.path}: {seconds:.1f} s long, at least {config.min_seconds:g} s are "
        "needed; record a longer video (a minute is good)"
    )


def find_landmarks(
    info: VideoInfo, config: PreprocessConfig, stage: StageStore, advance: Advance
) -> Detections:
    """Find the face in every frame, in chunks that are kept.

    Each chunk starts from the last frames of the one before in the same way, whether the run was
    interrupted there or not: the result is the same.

    Raises:
        InputError: too short, no face or hardly any, two faces of one size.
    """
    if not stage.whole:
        _find(info, config, stage, advance)
    return _merge(info, config, stage)


@dataclass
class _Census:
    """Faces beside the largest, in some frames."""

    surveyed: int = 0
    crowded: int = 0

    def take(self, faces: list[DetectedFace]) -> None:
        self.surveyed += 1
        heights = sorted((f.box()[3] - f.box()[1] for f in faces), reverse=True)
        self.crowded += len(heights) > 1 and heights[1] > _TWIN * heights[0]


@dataclass
class _Chunk:
    """What is gathered until the chunk is full."""

    follower: FaceFollower
    times: list[float] = field(default_factory=list)
    transparent: bool = False


def _find(info: VideoInfo, config: PreprocessConfig, stage: StageStore, advance: Advance) -> None:
    state, census = FollowerState(), _Census()
    if stage.done:
        _, notes = stage.load(_name(-(-stage.done // CHUNK) - 1))
        state, census = FollowerState.from_json(notes["state"]), _Census(**notes["census"])
    every = max(1, info.frames // _SURVEY) if info.frames else CHUNK // 2
    recent: deque[VideoFrame] = deque(maxlen=REMEMBERED)
    chunk: _Chunk | None = None
    with (
        FaceFinder(config.landmarker) as finder,
        prefetched(read_video(info)) as frames,
    ):
        try:
            for frame in frames:
                if frame.number < stage.done:
                    if frame.number >= stage.done - REMEMBERED:
                        recent.append(frame)
                    advance(frame.number + 1)
                    continue
                if chunk is None:
                    follower = FaceFollower(finder, config.landmarker, state, list(recent))
                    chunk = _Chunk(follower)
                if frame.number % every == every // 2:
                    census.take(finder.whole(visible(frame)))
                chunk.follower.step(frame)
                chunk.times.append(frame.time)
                if frame.alpha is not None:
                    chunk.transparent |= bool(frame.alpha.min() < _OPAQUE)
                recent.append(frame)
                if len(chunk.times) == CHUNK:
                    state = chunk.follower.state
                    _keep(chunk, stage, census)
                    chunk.follower.close()
                    chunk = None
                advance(frame.number + 1)
            if chunk is not None:
                chunk.follower.finish()
                _keep(chunk, stage, census)
            elif stage.done:
                _drop_unconfirmed_end(finder, config, state, list(recent), stage, census)
        finally:
            if chunk is not None:
                chunk.follower.close()
    _refuse_crowds(info, census)
    stage.commit(stage.done, whole=True)


def _drop_unconfirmed_end(
    finder: FaceFinder,
    config: PreprocessConfig,
    state: FollowerState,
    recent: list[VideoFrame],
    stage: StageStore,
    census: _Census,
) -> None:
    """The video ends with a chunk: its last frames are checked in a chunk without frames."""
    follower = FaceFollower(finder, config.landmarker, state, recent)
    try:
        follower.finish()
        _keep(_Chunk(follower), stage, census)
    finally:
        follower.close()


def _name(chunk: int) -> str:
    return f"{chunk:05d}"


def _keep(chunk: _Chunk, stage: StageStore, census: _Census) -> None:
    found = chunk.follower.found
    frames = sorted(found)
    shape = (len(frames), NUM_LANDMARKS, 3)
    arrays = {
        "frames": np.array(frames, np.int64),
        "landmarks": np.array([found[t].landmarks for t in frames], np.float32).reshape(shape),
        "scores": np.array([found[t].scores for t in frames], np.float32).reshape(
            len(frames), len(ARKIT_NAMES)
        ),
        "colors": np.array([chunk.follower.colors[t] for t in frames], np.uint8).reshape(
            len(frames), FACE_LANDMARKS, 3
        ),
        "times": np.array(chunk.times, np.float64),
        "dropped": np.array(chunk.follower.dropped, np.int64),
    }
    stage.save(
        _name(-(-stage.done // CHUNK)),
        arrays,
        state=chunk.follower.state.to_json(),
        census=vars(census),
        transparent=chunk.transparent,
    )
    stage.commit(stage.done + len(chunk.times))


def _refuse_crowds(info: VideoInfo, census: _Census) -> None:
    if 4 * census.crowded > census.surveyed:
        raise InputError(
            f"{info.path}: two faces of one size in {census.crowded} of {census.surveyed} frames "
            "looked at; crop the video to one person"
        )


def _merge(info: VideoInfo, config: PreprocessConfig, stage: StageStore) -> Detections:
    files = sorted(stage.folder.glob("[0-9]*.safetensors"))
    parts = [stage.load(file.stem) for file in files]
    times = np.concatenate([arrays["times"] for arrays, _ in parts])
    seconds = float(times[-1]) + 1 / info.fps
    if seconds < config.min_seconds - 1e-6:
        raise too_short(info, seconds, config)
    dropped = np.concatenate([arrays["dropped"] for arrays, _ in parts])
    frames, landmarks, scores, colors = (
        np.concatenate([arrays[name] for arrays, _ in parts])
        for name in ("frames", "landmarks", "scores", "colors")
    )
    order = np.argsort(frames, kind="stable")
    order = order[~np.isin(frames[order], dropped)]
    order = order[_lasting(frames[order], landmarks[order])]
    frames = frames[order]
    durations = np.diff(times, append=seconds)
    seen = float(durations[frames].sum())
    if not len(frames) or seen < config.min_seconds - 1e-6:
        what = "no face"
        if len(frames):
            what = (
                f"a face in only {len(frames)} of {len(times)} frames, {seen:.1f} s; at least "
                f"{config.min_seconds:g} s are needed"
            )
        raise InputError(
            f"{info.path}: {what}; film one face that fills about half of the picture's height"
        )
    if len(frames) < len(times):
        _LOG.warning(
            "%s: no face in %d of %d frames, left out", info.path, len(times) - len(frames),
            len(times),
        )  # fmt: skip
    transparent = any(notes["transparent"] for _, notes in parts)
    return Detections(frames, landmarks[order], scores[order], colors[order], times, transparent)


def _lasting(frames: NDArray[np.int64], landmarks: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which detections to keep, [T].

    Lettering and patterns pass for a face now and then, for a frame or two: a short run counts
    only where the face was seen before or is seen next.
    """
    keep = np.ones(len(frames), bool)
    if not len(frames):
        return keep
    low, high = landmarks[..., :2].min(1), landmarks[..., :2].max(1)
    boxes = [tuple(map(float, b)) for b in np.concatenate([low, high], 1)]
    runs = np.split(np.arange(len(frames)), np.flatnonzero(np.diff(frames) != 1) + 1)
    long = [run for run in runs if len(run) >= _SHORT_RUN]
    for run in runs:
        if len(run) >= _SHORT_RUN:
            continue
        beside = [other[-1] for other in long if other[-1] < run[0]][-1:]
        beside += [other[0] for other in long if other[0] > run[-1]][:1]
        keep[run] = any(overlap(boxes[run[0]], boxes[t]) >= _SAME_PLACE for t in beside)
    return keep
