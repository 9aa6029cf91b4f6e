"""Whether the expression code says what the face does."""

from __future__ import annotations

import numpy as np
from cag_avatar_training.validation.config import ValidationConfig
from cag_avatar_training.validation.evidence import Evidence, Floats
from cag_avatar_training.validation.face_measures import FaceMeasures, measure_faces
from cag_avatar_training.validation.findings import Finding, NotChecked, counted, frame_ranges
from numpy.typing import NDArray

__all__ = ["check_code_range", "check_frozen", "check_jaw", "check_repeats"]

#: Movement of lips, lids or brows (eye distances) that a frozen code leaves out.
_MOVED = 0.04


def _range(values: Floats) -> float:
    low, high = np.percentile(values, [5, 98])
    return float(high - low)


def check_jaw(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """A mouth that opens in the pictures but not in the numbers."""
    if evidence.landmarks is None or evidence.mesh_landmarks is None:
        return [NotChecked("missing-jaw", "needs landmarks")]
    seen = evidence.seen
    measured = measure_faces(evidence.landmarks[seen], evidence.unit[seen])
    mesh = measure_faces(evidence.mesh_landmarks[seen], evidence.unit[seen])
    opened = _range(measured.lip_gap)
    if opened < config.jaw_seen:
        return []
    share = _slope(measured.lip_gap, mesh.lip_gap)
    flat = evidence.arkit and float(evidence.code("jawOpen").max()) < config.jaw_flat
    if share >= config.jaw_slope and not flat:
        return []
    name = "jawOpen" if evidence.arkit else "the jaw"
    wide = measured.lip_gap > np.percentile(measured.lip_gap, 5) + 0.6 * opened
    return [
        Finding(
            "missing-jaw",
            "error",
            f"the mouth opens in the pictures (by {100 * opened:.0f} % of the eye distance) but "
            + (
                f"{name} stays neutral"
                if flat
                else f"the head model makes only {100 * max(share, 0):.0f} % of it"
            ),
            f"{name} is missing from the code: many exports leave the jaw to a file of its own; "
            "import it, or preprocess the video again",
            frame_ranges(np.flatnonzero(seen)[wide], join=3),
        )
    ]


def _slope(cause: Floats, effect: Floats) -> float:
    a, b = cause - cause.mean(), effect - effect.mean()
    return float((a * b).sum() / max((a * a).sum(), 1e-12))


def _runs(same: NDArray[np.bool_], least: int) -> list[tuple[int, int]]:
    """Frames first to last (both included) over which steps ``same`` [T - 1] hold, long enough."""
    ranges = frame_ranges(np.flatnonzero(same))
    return [(a, b + 1) for a, b in ranges if b - a + 1 >= least]


def check_frozen(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Codes that stay the same while the pictures go on."""
    if len(evidence) < 2:
        return [NotChecked("frozen", "needs more than one frame")]
    step = np.abs(np.diff(evidence.tracking.codes, axis=0)).max(1)
    least = max(3, round(config.frozen_seconds * evidence.info.fps))
    runs = _runs(step <= config.frozen_step, least)
    measures: FaceMeasures | None = None
    if evidence.landmarks is not None:
        measures = measure_faces(evidence.landmarks, evidence.unit)
    moving: list[tuple[int, int]] = []
    resting: list[tuple[int, int]] = []
    for first, last in runs:
        changed = evidence.change[first:last] > config.still_picture
        if changed.mean() < 0.5:
            continue  # the pictures stand still as well: see check_repeats()
        moved = measures is None or _expression_moved(measures, evidence.seen, first, last)
        (moving if moved else resting).append((first, last))
    findings: list[Finding | NotChecked] = []
    for ranges, severity in ((moving, "error"), (resting, "warning")):
        if not ranges:
            continue
        frames = sum(b - a + 1 for a, b in ranges)
        seconds = frames / evidence.info.fps
        findings.append(
            Finding(
                "frozen",
                severity,  # type: ignore[arg-type]
                f"the expression code stands still for {counted(frames, 'frame')} "
                f"({seconds:.1f} s) while "
                + ("the face moves" if severity == "error" else "the pictures go on"),
                "the tracker lost the face there and held its last answer: track these frames "
                "again, or cut them out",
                tuple(ranges),
            )
        )
    return findings


def _expression_moved(
    measures: FaceMeasures, seen: NDArray[np.bool_], first: int, last: int
) -> bool:
    part = np.flatnonzero(seen[first : last + 1]) + first
    if len(part) < 2:
        return False
    values = (measures.lip_gap, measures.lid_left, measures.lid_right, measures.mouth_width)
    return any(_range(v[part]) > _MOVED for v in values)


def check_repeats(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Pictures that repeat the one before."""
    same = np.flatnonzero(evidence.change <= config.still_picture) + 1
    share = len(same) / max(1, len(evidence) - 1)
    longest = _runs(evidence.change <= config.still_picture, 4)
    if share <= config.repeats and not longest:
        return []
    return [
        Finding(
            "repeats",
            "warning",
            f"{counted(len(same), 'picture')} ({100 * share:.0f} %) repeat the picture before",
            "the video was stretched to another frame rate, or the camera stalled: record at a "
            "constant rate, or leave these frames out",
            frame_ranges(same),
        )
    ]


def check_code_range(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Coefficients that no face can have."""
    codes = evidence.tracking.codes
    if evidence.arkit:
        low, high = -config.out_of_range, 1 + config.out_of_range
        allowed = "0 to 1"
    else:
        low, high = -config.out_of_range_other, config.out_of_range_other
        allowed = f"{low:g} to {high:g}"
    bad = ~((codes >= low) & (codes <= high))
    if not bad.any():
        return []
    columns = np.flatnonzero(bad.any(0))
    worst = columns[int(np.abs(np.nan_to_num(codes[:, columns], nan=np.inf)).max(0).argmax())]
    values = codes[:, worst]
    more = f" and {len(columns) - 1} more" if len(columns) > 1 else ""
    return [
        Finding(
            "code-range",
            "error",
            f"{evidence.info.code_names[worst]}{more} leaves its range of {allowed}: "
            f"{values.min():.3g} to {values.max():.3g}",
            "coefficients may have been stored as per cent, or for another head model; scale them "
            "or import again",
            frame_ranges(np.flatnonzero(bad.any(1))),
        )
    ]
