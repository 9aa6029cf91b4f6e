"""Whether left is left: in the pictures, in the landmarks, in the coefficients."""

from __future__ import annotations

import numpy as np
import torch
from cag_avatar_training.validation.config import ValidationConfig
from cag_avatar_training.validation.evidence import Evidence
from cag_avatar_training.validation.face_measures import EYE_CORNERS
from cag_avatar_training.validation.findings import Finding, NotChecked
from cag_avatar_training.validation.motion_agreement import compare_motion

__all__ = ["check_sides", "exchanged_columns"]

#: Frames on which coefficients are exchanged, at most.
_FRAMES = 240
#: Motion that the exchange must make (root mean square over landmarks, eye distances), else the
#: face is too symmetric to tell.
_ASYMMETRY = 0.002
#: Largest error of a landmark that counts, eye distances.
_CLIP = 0.15


def exchanged_columns(names: tuple[str, ...]) -> list[int] | None:
    """Column of each coefficient's partner on the other side, its own if it has none.

    Names of sides: Left/Right (ARKit) or _L/_R. None if no coefficient has a side.
    """
    index = {name: i for i, name in enumerate(names)}
    columns = []
    for i, name in enumerate(names):
        partner = name.replace("Left", "\0").replace("Right", "Left").replace("\0", "Right")
        if name.endswith(("_L", "_R")):
            partner = name[:-1] + ("R" if name.endswith("L") else "L")
        columns.append(index.get(partner, i))
    return columns if columns != list(range(len(names))) else None


def check_sides(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Mirrored pictures, landmarks numbered from the wrong side, exchanged coefficients."""
    straight = compare_motion(evidence, 0).explained(0)
    mirrored = compare_motion(evidence, 0, mirrored=True).explained(0)
    if mirrored > config.follows and mirrored > straight + 0.2:
        return [
            Finding(
                "sides",
                "error",
                "the pictures are mirrored against the tracking: mirrored back, the tracking "
                f"explains {100 * mirrored:.0f} % of their motion, as they are "
                f"{max(0.0, 100 * straight):.0f} %",
                "mirror images and mattes (a selfie camera mirrors), or track the mirrored video",
            )
        ]
    if evidence.landmarks is None or evidence.mesh_landmarks is None:
        return [NotChecked("sides", "of the coefficients: needs landmarks")]
    right, left = EYE_CORNERS
    seen = evidence.landmarks[evidence.seen]
    mesh = evidence.mesh_landmarks[evidence.seen]
    across = ((seen[:, left] - seen[:, right]) * (mesh[:, left] - mesh[:, right])).sum(1)
    if (across < 0).mean() > 0.5:
        return [
            Finding(
                "sides",
                "error",
                "the landmarks' left eye lies where the head model has its right one",
                "landmarks 33 and 263 are the outer corners of the subject's right and left eye: "
                "the landmarks, or the pictures they come from, are mirrored",
            )
        ]
    return _coefficients(evidence, config)


def _coefficients(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Exchange left and right in the code and see whether the landmarks like it better."""
    columns = exchanged_columns(tuple(evidence.info.code_names))
    if columns is None:
        return [NotChecked("sides", "of the coefficients: needs ARKit names")]
    assert evidence.landmarks is not None
    assert evidence.mesh_landmarks is not None
    frames = np.flatnonzero(evidence.seen)
    frames = frames[np.unique(np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int))]
    tracking = evidence.tracking
    rows = torch.from_numpy(frames)
    arrays = (tracking.codes[:, columns], tracking.head_pose, tracking.torso_pose)
    posed = evidence.head.vertices(*(torch.from_numpy(a)[rows] for a in arrays))
    camera = evidence.info.camera
    other = np.stack([evidence.head.landmarks(v, camera) for _, v in posed])  # type: ignore[misc]
    unit = evidence.unit[frames, None, None]

    def error(points: np.ndarray) -> np.ndarray:
        difference = (points - evidence.landmarks[frames]) / unit  # type: ignore[index]
        # What is the same in all frames is the person's shape, not the expression.
        return np.asarray(difference - np.median(difference, axis=0))

    def squared(values: np.ndarray) -> float:
        return float(np.minimum((values**2).sum(-1), _CLIP**2).mean())

    stored, exchanged = error(evidence.mesh_landmarks[frames]), error(other)
    moved = squared(exchanged - stored)
    if np.sqrt(moved) < _ASYMMETRY:
        return [NotChecked("sides", "of the coefficients: the face always moves symmetrically")]
    # -1 for coefficients without error, 1 for exchanged ones.
    verdict = (squared(stored) - squared(exchanged)) / moved
    if verdict < config.sides_gain:
        return []
    names = tuple(evidence.info.code_names)
    moving = [n for n in ("eyeLookInLeft", "eyeBlinkLeft", "mouthSmileLeft") if n in names]
    example = f" (eyeBlinkLeft, {moving[-1]}, ...)" if moving else ""
    return [
        Finding(
            "sides",
            "error",
            f"left and right are exchanged in the coefficients{example}: exchanged back, the error "
            f"of the landmarks' motion falls from {100 * np.sqrt(squared(stored)):.1f} to "
            f"{100 * np.sqrt(squared(exchanged)):.1f} % of the eye distance",
            "Left and Right in the names are the subject's own sides, not the viewer's: exchange "
            "the columns",
        )
    ]
