"""Whether the head is drawn where it is: camera, landmarks, poses."""

from __future__ import annotations

import numpy as np
import torch
from cag_avatar_training.validation.config import ValidationConfig
from cag_avatar_training.validation.evidence import Evidence, Floats
from cag_avatar_training.validation.findings import Finding, NotChecked, counted, frame_ranges
from scipy.ndimage import median_filter

from cag_avatar.geometry import matrix_to_rotation_vector

__all__ = [
    "check_camera",
    "check_drift",
    "check_jumps",
    "check_poses",
    "check_reprojection",
    "landmark_errors",
]

#: Landmarks that no expression moves much: corners of the eyes, ridge and sides of the nose,
#: forehead.
_STEADY = (33, 133, 263, 362, 168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 10, 151, 9)
_FACE = 468
#: A jump is the tracker's where the pictures lie nearer to a smooth path than to the stored one.
_BETTER = 0.95
#: Points that must be followed.
_LEAST_POINTS = 8


def _sideways(x: float, y: float) -> str:
    """Direction in the picture, in words."""
    across = "to the right" if x > 0 else "to the left"
    along = "down" if y > 0 else "up"
    if abs(x) > 2.4 * abs(y):
        return across
    if abs(y) > 2.4 * abs(x):
        return along
    return f"{along} and {across}"


def _offsets(evidence: Evidence) -> Floats | None:
    """Mean distance from the steady landmarks to the mesh's, eye distances, [seen frames, 2]."""
    if evidence.landmarks is None or evidence.mesh_landmarks is None:
        return None
    index = list(_STEADY)
    seen = evidence.seen
    difference = evidence.mesh_landmarks[seen][:, index] - evidence.landmarks[seen][:, index]
    return np.asarray(difference.mean(1) / evidence.unit[seen, None], np.float64)


def check_camera(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Principal point and focal length."""
    camera = evidence.info.camera
    findings: list[Finding | NotChecked] = []
    if abs(camera.fx / camera.fy - 1) > config.aspect:
        findings.append(
            Finding(
                "camera",
                "warning",
                f"the pixels are not square: fx is {camera.fx:.1f}, fy {camera.fy:.1f}",
                "width and height may be exchanged, or the pictures were squeezed; correct 'camera'"
                " in dataset.json",
            )
        )
    away = np.array([camera.cx / camera.width, camera.cy / camera.height]) - 0.5
    if np.abs(away).max() > config.centre:
        findings.append(
            Finding(
                "camera",
                "warning",
                f"the principal point ({camera.cx:.0f}, {camera.cy:.0f}) lies far from the middle "
                f"of the {camera.width} x {camera.height} pictures",
                "it is the middle of the uncropped video in pixels of the cropped pictures; correct"
                " 'camera' in dataset.json",
            )
        )
    offsets = _offsets(evidence)
    if offsets is None:
        findings.append(NotChecked("camera", "by landmarks: there are none; the outline was used"))
    else:
        findings += _off_landmarks(evidence, config, offsets)
    if not any(isinstance(f, Finding) for f in findings):
        findings += _off_outline(evidence, config)
    return findings


def _off_landmarks(
    evidence: Evidence, config: ValidationConfig, offsets: Floats
) -> list[Finding | NotChecked]:
    findings: list[Finding | NotChecked] = []
    x, y = np.median(offsets, axis=0)
    size = float(np.hypot(x, y))
    pixels = np.array([x, y]) * np.median(evidence.unit)
    if size > config.offset_warning:
        findings.append(
            Finding(
                "camera",
                "error" if size > config.offset_error else "warning",
                f"the head is drawn {100 * size:.0f} % of the eye distance "
                f"({np.hypot(*pixels):.1f} pixels) too far {_sideways(x, y)}, in all of the clip",
                f"the principal point is probably off by ({pixels[0]:+.0f}, {pixels[1]:+.0f}) "
                "pixels (or the pictures were cropped after tracking): correct cx and cy in "
                "dataset.json",
            )
        )
    scale = _scale(evidence) - 1
    if abs(scale) > config.scale_warning:
        findings.append(
            Finding(
                "camera",
                "error" if abs(scale) > config.scale_error else "warning",
                f"the head is drawn {100 * abs(scale):.0f} % too "
                f"{'large' if scale > 0 else 'small'}, in all of the clip",
                "the focal length is probably off by as much (or the pictures were resized after "
                "tracking): correct fx and fy in dataset.json",
            )
        )
    return findings


def _scale(evidence: Evidence) -> float:
    """Size of the mesh's steady landmarks over that of the detected ones."""
    assert evidence.landmarks is not None
    assert evidence.mesh_landmarks is not None
    mesh, seen = (
        points[evidence.seen][:, list(_STEADY)]
        for points in (evidence.mesh_landmarks, evidence.landmarks)
    )
    mesh, seen = (p - p.mean(1, keepdims=True) for p in (mesh, seen))
    return float(np.median((mesh * seen).sum((1, 2)) / np.maximum((seen**2).sum((1, 2)), 1e-9)))


def _off_outline(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    outside = float(np.median(evidence.outside))
    # Holes lie within the head; a misplaced head leaves the person at its rim.
    outside -= float(np.median(evidence.hole))
    if outside <= config.outline_error:
        return []
    x, y = np.median(evidence.outside_at, axis=0)
    return [
        Finding(
            "camera",
            "error",
            f"{100 * outside:.0f} % of the drawn head lies outside the person's outline, "
            f"{_sideways(float(x), float(y))}",
            "principal point, focal length or crop are off, or the matte cuts the head: look at "
            "the overlay",
        )
    ]


def check_drift(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """A head that slides away from the face in a part of the clip."""
    offsets = _offsets(evidence)
    if offsets is None:
        return [NotChecked("drift", "needs landmarks")]
    window = max(3, round(evidence.info.fps)) | 1
    smooth = median_filter(offsets - np.median(offsets, axis=0), (window, 1), mode="nearest")
    away = np.linalg.norm(smooth, axis=1)
    far = away > config.offset_error
    if not far.any():
        return []
    return [
        Finding(
            "drift",
            "warning",
            f"the drawn head slides away from the face by up to {100 * away.max():.0f} % of the "
            f"eye distance, for {counted(int(far.sum()), 'frame')}",
            "the head's pose or the focal length is wrong where the head is far from its usual "
            "place: track again",
            frame_ranges(np.flatnonzero(evidence.seen)[far], join=3),
        )
    ]


def landmark_errors(evidence: Evidence) -> Floats | None:
    """Root mean square distance of 468 landmarks to the mesh's, eye distances, [T]; nan where the
    face was not found; None without landmarks."""
    if evidence.landmarks is None or evidence.mesh_landmarks is None:
        return None
    difference = (evidence.mesh_landmarks - evidence.landmarks)[:, :_FACE].astype(np.float64)
    error = np.sqrt((difference**2).sum(-1).mean(1)) / evidence.unit
    return np.where(evidence.seen, error, np.nan)


def check_reprojection(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Landmarks far from where the head model has them."""
    errors = landmark_errors(evidence)
    if errors is None:
        return [NotChecked("reprojection", "needs landmarks")]
    seen = evidence.seen
    error = errors[seen]
    usual = float(np.median(error))
    frames = np.flatnonzero(seen)
    bad = frames[error > config.reprojection_error]
    if usual > config.reprojection_warning:
        return [
            Finding(
                "reprojection",
                "error" if usual > config.reprojection_error else "warning",
                f"the head model misses the landmarks by {100 * usual:.1f} % of the eye distance "
                "(median over frames)",
                "the fit is poor: preprocess again, with more light or a sharper video",
                frame_ranges(bad, join=3),
            )
        ]
    if len(bad) == 0:
        return []
    return [
        Finding(
            "reprojection",
            "warning",
            f"in {counted(len(bad), 'frame')} the head model misses the landmarks by more than "
            f"{100 * config.reprojection_error:.0f} % of the eye distance (at worst "
            f"{100 * error.max():.0f} %)",
            "leave these frames out, or track them again",
            frame_ranges(bad, join=3),
        )
    ]


def check_poses(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Poses that are no rigid motions, or put the head behind the camera."""
    findings: list[Finding | NotChecked] = []
    for name, poses in (
        ("head", evidence.tracking.head_pose),
        ("torso", evidence.tracking.torso_pose),
    ):
        turn = poses[:, :3, :3].astype(np.float64)
        skew = np.abs(np.swapaxes(turn, 1, 2) @ turn - np.eye(3)).max((1, 2))
        bad = (skew > 1e-3) | (np.linalg.det(turn) < 0)
        bad |= np.abs(poses[:, 3] - [0, 0, 0, 1]).max(1) > 1e-5
        if bad.any():
            findings.append(
                Finding(
                    "poses",
                    "error",
                    f"{counted(int(bad.sum()), f'{name} pose')} cannot be a rigid motion "
                    "(scaled, mirrored or transposed)",
                    f"'{name}_pose' must hold [R t; 0 1] with a rotation R, metres",
                    frame_ranges(np.flatnonzero(bad)),
                )
            )
    depth = evidence.tracking.head_pose[:, 2, 3]
    behind = ~((depth > 0.1) & (depth < 20))
    if behind.any():
        findings.append(
            Finding(
                "poses",
                "error",
                f"in {counted(int(behind.sum()), 'frame')} the head lies {depth[behind][0]:.2f} m "
                "in front of the camera",
                "poses map to camera space with z forward, in metres: check axes and units",
                frame_ranges(np.flatnonzero(behind)),
            )
        )
    return findings


def check_jumps(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Single frames whose pose lies off the path of their neighbours, unlike the pictures."""
    total = len(evidence)
    if total < 5:
        return [NotChecked("pose-jumps", "needs five frames")]
    poses = torch.from_numpy(evidence.tracking.head_pose.astype(np.float64))
    turn, place = poses[:, :3, :3], poses[:, :3, 3]
    # A cubic through two neighbours on either side: quick but smooth turns lie on it.
    path, across = torch.zeros(total - 4, 3), torch.zeros(total - 4, 3)
    for offset, weight in ((-2, -1 / 6), (-1, 4 / 6), (1, 4 / 6), (2, -1 / 6)):
        part = slice(2 + offset, total - 2 + offset)
        path = path + weight * matrix_to_rotation_vector(turn[part] @ turn[2:-2].mT)
        across = across + weight * (place[part] - place[2:-2])
    degrees = np.rad2deg(path.norm(dim=-1).numpy())
    metres = across.norm(dim=-1).numpy()
    strength = np.maximum(degrees / config.spike_degrees, metres / config.spike_metres)
    together = evidence.consecutive()
    strength[~(together[:-3] & together[1:-2] & together[2:-1] & together[3:])] = 0.0
    better = _smoother_is_better(evidence)[2:-2]
    # Where nothing could be followed, only a jump that no head can make counts.
    jump = np.where(np.isnan(better), strength > 3, (strength > 1) & (better < _BETTER))
    # A spike also bends the path at the frames beside it: only the peak is meant.
    padded = np.pad(strength, 1)
    jump &= (strength >= padded[:-2]) & (strength >= padded[2:])
    if not jump.any():
        return []
    frames = np.flatnonzero(jump) + 2
    worst = int(np.where(jump, strength, 0).argmax())
    return [
        Finding(
            "pose-jumps",
            "error" if strength[worst] > 2 else "warning",
            f"the head jumps in {counted(len(frames), 'frame')} (at worst "
            f"{degrees[worst]:.1f} degrees and {1000 * metres[worst]:.0f} mm off its neighbours' "
            f"path, frame {worst + 2}) while the pictures show no jump",
            "track these frames again, or leave them out",
            frame_ranges(frames),
        )
    ]


def _smoother_is_better(evidence: Evidence) -> Floats:
    """How far the pictures' motion lies from a smooth path of the mesh's points, over how far it
    lies from the stored one: below 1 the pictures know nothing of a jump. [T]; nan at both ends and
    where the pictures cannot be followed.
    """
    points = evidence.points.astype(np.float64)
    smooth = points.copy()
    # The cubic through two neighbours on either side, as in check_jumps().
    smooth[2:-2] = (4 * (points[1:-3] + points[3:-1]) - points[:-4] - points[4:]) / 6
    out = np.full(len(points), np.nan)
    for t in range(2, len(points) - 2):
        good = evidence.flow_good[t - 1], evidence.flow_good[t]
        if min(good[0].sum(), good[1].sum()) < _LEAST_POINTS:
            continue
        far = [
            np.median(np.linalg.norm(m - points[t - 1] - evidence.flow[t - 1], axis=-1)[good[0]])
            + np.median(np.linalg.norm(points[t + 1] - m - evidence.flow[t], axis=-1)[good[1]])
            for m in (points[t], smooth[t])
        ]
        out[t] = far[1] / max(far[0], 1e-9)
    return out
