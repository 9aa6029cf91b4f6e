"""Whether tracking, pictures and clock belong together."""

from __future__ import annotations

import numpy as np
from cag_avatar_training.validation.config import ValidationConfig
from cag_avatar_training.validation.evidence import Evidence
from cag_avatar_training.validation.face_measures import measure_faces
from cag_avatar_training.validation.findings import (
    Finding,
    NotChecked,
    counted,
    frame_ranges,
)
from cag_avatar_training.validation.motion_agreement import (
    Agreement,
    compare_motion,
    compare_series,
)

__all__ = ["check_order", "check_shift", "check_timestamps"]

#: Pieces that vote on a shift, and windows that may be shifted alone, seconds.
_PIECE, _WINDOW = 0.5, 4.0
#: A window alone must be more certain than the whole clip.
_WINDOW_GAIN, _WINDOW_AGREEMENT = 0.05, 0.9
#: Least number of frames between which motion is compared.
_LEAST = 12


def _frames(count: int) -> str:
    return counted(abs(count), "frame")


def _shift_sentence(subject: str, shift: int, gain: tuple[float, float]) -> str:
    way = "late" if shift > 0 else "early"
    verb = "are" if subject.endswith("s") else "is"
    return (
        f"{subject} {verb} {_frames(shift)} too {way}: it describes {100 * gain[1]:.0f} % of the "
        f"pictures' motion when moved back, {100 * gain[0]:.0f} % as stored"
    )


def check_shift(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Tracking that belongs to the picture before or after."""
    motion = compare_motion(evidence, config.max_shift)
    if len(motion.energy) < _LEAST or motion.motion() < config.min_motion:
        return [NotChecked("shifted", "the head hardly moves in this capture")]
    piece = max(2, round(_PIECE * evidence.info.fps))
    whole = _shifted(motion, piece, slice(None), config.shift_gain, config.shift_agreement)
    if whole:
        return [
            Finding(
                "shifted",
                "error",
                _shift_sentence(
                    "the tracking", whole, (motion.explained(0), motion.explained(whole))
                ),
                f"shift codes and poses by {_frames(whole)} against the pictures (row t of the "
                f"numbers belongs to picture t {'-' if whole > 0 else '+'} {abs(whole)}), or make "
                "the dataset again",
            )
        ]
    expression = _expression_shift(evidence, config, piece)
    if any(isinstance(entry, Finding) for entry in expression):
        return expression
    return [*expression, *_shifted_windows(evidence, motion, piece)]


def _shifted(motion: Agreement, piece: int, part: slice, gain: float, agreement: float) -> int:
    """The shift of a part of the clip, 0 unless it is certain."""
    best = motion.best(part)
    if best == 0 or motion.explained(best, part) - motion.explained(0, part) < gain:
        return 0
    return best if motion.preferred(best, piece, part) >= agreement else 0


def _shifted_windows(evidence: Evidence, motion: Agreement, piece: int) -> list[Finding]:
    """Parts of the clip that are shifted: frames were dropped or doubled on the way."""
    window = max(4 * piece, round(_WINDOW * evidence.info.fps))
    found: dict[int, list[int]] = {}
    for start in range(0, len(motion.energy) - window + 1, window):
        part = slice(start, start + window)
        shift = _shifted(motion, piece, part, _WINDOW_GAIN, _WINDOW_AGREEMENT)
        if shift:
            frames = range(motion.first + start, motion.first + start + window)
            found.setdefault(shift, []).extend(frames)
    return [
        Finding(
            "shifted",
            "error",
            f"in a part of the clip the tracking is {_frames(shift)} too "
            f"{'late' if shift > 0 else 'early'}",
            "frames were dropped or doubled on the way: make the dataset again from the original "
            "video, or cut the clip there",
            frame_ranges(frames),
        )
        for shift, frames in found.items()
    ]


def _expression_shift(
    evidence: Evidence, config: ValidationConfig, piece: int
) -> list[Finding | NotChecked]:
    """Expressions shifted while the head's pose is not: lips and lids tell."""
    if evidence.landmarks is None or evidence.mesh_landmarks is None:
        return [NotChecked("shifted", "of the expressions alone: needs landmarks")]
    seen, mesh = (
        np.stack([m.lip_gap, m.lid_left, m.lid_right, m.chin], 1)
        for m in (
            measure_faces(points, evidence.unit)
            for points in (evidence.landmarks, evidence.mesh_landmarks)
        )
    )
    face = compare_series(seen, evidence.seen, mesh, config.max_shift)
    if len(face.energy) < _LEAST:
        return []
    shift = _shifted(face, piece, slice(None), 0.1, config.shift_agreement)
    if not shift or face.explained(shift) < config.follows:
        return []
    return [
        Finding(
            "shifted",
            "error",
            _shift_sentence(
                "the expression code", shift, (face.explained(0), face.explained(shift))
            ),
            f"shift the codes alone by {_frames(shift)}: the head's pose is in time",
        )
    ]


def check_order(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Tracking of other pictures: frames in the wrong order, another clip's numbers."""
    motion = compare_motion(evidence, config.max_shift)
    if len(motion.energy) < _LEAST or motion.motion() < config.min_motion:
        return [NotChecked("wrong-order", "the head hardly moves in this capture")]
    explained = motion.explained(motion.best())
    mirrored = compare_motion(evidence, 0, mirrored=True).explained(0)
    if max(explained, mirrored) >= config.follows:
        return []
    return [
        Finding(
            "wrong-order",
            "error",
            f"the tracked head does not move like the head in the pictures: it explains "
            f"{max(0.0, 100 * explained):.0f} % of their motion",
            "pictures or numbers are in the wrong order, or belong to another clip: compare file "
            "names with the tracker's frame numbers and make the dataset again",
        )
    ]


def check_timestamps(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Time stamps that do not grow, or do not fit the frame rate."""
    times = evidence.tracking.timestamps
    if len(times) < 2:
        return [NotChecked("timestamps", "a single frame has no rate")]
    steps = np.diff(times)
    back = np.flatnonzero(steps <= 0) + 1
    if len(back):
        return [
            Finding(
                "timestamps",
                "error",
                f"the time does not grow at {counted(len(back), 'frame')} (the "
                f"first is frame {back[0]}: {times[back[0] - 1]:.3f} s, then "
                f"{times[back[0]]:.3f} s)",
                "write the presentation times of the video, in seconds, in the order of the frames",
                frame_ranges(back),
            )
        ]
    together = evidence.consecutive()
    findings: list[Finding | NotChecked] = []
    rate = 1 / float(np.median(steps[together] if together.any() else steps))
    fps = evidence.info.fps
    if abs(rate / fps - 1) > config.rate:
        findings.append(
            Finding(
                "timestamps",
                "warning",
                f"dataset.json says {fps:g} frames per second, the time stamps {rate:.4g}",
                "correct 'fps' or 'timestamps'; videos and live playback run at the wrong speed",
            )
        )
    gaps = np.flatnonzero(~together)
    if len(gaps):
        missing = round(float((steps[gaps] * rate - 1).sum()))
        findings.append(
            Finding(
                "timestamps",
                "note",
                f"{counted(missing, 'frame')} of the video left out, in "
                f"{counted(len(gaps), 'place')}",
                "nothing to do if no face was to be seen there",
                frame_ranges(gaps + 1),
            )
        )
    return findings
