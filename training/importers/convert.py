"""A foreign capture with FLAME's parameters, written as a dataset of this project."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from cag_avatar_training.dataset import Dataset, DatasetInfo, DatasetWriter, Tracking
from cag_avatar_training.importers.foreign import FlameTrack, ForeignCapture
from cag_avatar_training.importers.labels import label_plane
from cag_avatar_training.matting import estimate_foreground
from cag_avatar_training.progress import progress_bars
from numpy.typing import NDArray

import cag_avatar
from cag_avatar.errors import InputError
from cag_avatar.geometry import matrix_to_rotation_6d
from cag_avatar.head_models.flame import FlameHeadModel
from cag_avatar.rendering.mesh import rasterize

__all__ = ["imported_fields", "write_capture"]

_LOG = logging.getLogger(__name__)

#: Vertices that VHAP appends to FLAME's for the teeth.
_VHAP_TEETH = 120
#: Ridge of the shape's solution, as a fraction of the mean squared column.
_RIDGE = 1e-7


def imported_fields(capture: ForeignCapture) -> dict[str, Any]:
    """What dataset.json says of an import; logs what is missing."""
    for name in capture.missing:
        _LOG.warning("%s: %s has no %s: neutral values", capture.source, capture.format, name)
    for note in capture.notes:
        _LOG.info("%s: %s", capture.source, note)
    return {
        "format": capture.format,
        "missing": list(capture.missing),
        "notes": list(capture.notes),
    }


def write_capture(
    capture: ForeignCapture,
    model: FlameHeadModel,
    out: Path | str,
    fps: float,
    show_progress: bool = False,
) -> Dataset:
    """Write a capture with FLAME's parameters as a dataset.

    The camera becomes the world: a head that stands still before a moving camera moves before ours.
    Lips and eyes are labelled where the mesh shows them, or as the format's own masks say.

    Args:
        capture: the capture; its ``flame`` must not be None.
        model: FLAME as the capture's tracker used it.
        out: dataset folder to write; a dataset already there is replaced.
        fps: frames per second, which no format tells.
        show_progress: show a progress bar.

    Raises:
        InputError: more coefficients than the model has, another topology, a picture that is
            unreadable or of another size than the camera's.
    """
    if capture.flame is None:
        raise ValueError("a capture without FLAME's parameters has to be tracked")
    track, notes = _fitting(capture.flame, capture, model)
    identity = torch.from_numpy(track.shape).float()
    offsets = torch.zeros_like(model.vertices)
    if track.static_offset is not None:
        offsets = torch.from_numpy(track.static_offset).float()
    rest = model.rest_vertices(identity, offsets)
    codes = _codes(track, model)
    head, torso = _poses(capture, track, model, rest, codes)
    capture = replace(capture, notes=(*capture.notes, *notes))
    imported = imported_fields(capture)
    faces = model.faces.numpy()
    with DatasetWriter.create(out) as writer, progress_bars(show_progress) as bars:
        task = bars.add_task("convert", total=len(capture))
        for t in range(len(capture)):
            image, alpha = _picture(capture, t)
            at = slice(t, t + 1)
            posed = model.posed_vertices(rest, codes[at], head[at], torso[at])[0]
            seen = rasterize(posed.numpy(), faces, capture.camera)
            labels = label_plane(
                model.face_region.numpy(),
                seen.face_index,
                alpha,
                capture.camera.project(model.eye_centres(posed)).double().numpy(),
                mouth=_plane(capture.mouths[t], capture) if capture.mouths else None,
                semantics=_plane(capture.semantics[t], capture) if capture.semantics else None,
            )
            writer.add_frame(estimate_foreground(image, alpha), alpha, labels)
            bars.advance(task)
        writer.finish(
            DatasetInfo(
                camera=capture.camera,
                fps=fps,
                source=capture.source,
                head_model=model.name,
                code_names=model.expression_names,
                background="foreground colours where alpha < 1; composite with alpha",
                tool_version=cag_avatar.__version__,
                held_out=capture.held_out,
                imported=imported,
            ),
            Tracking(
                identity=identity.numpy(),
                vertex_offsets=offsets.numpy(),
                codes=codes.numpy(),
                head_pose=head.numpy(),
                torso_pose=torso.numpy(),
                landmarks=None,
                timestamps=(capture.frames - capture.frames[0]) / fps,
            ),
        )
    return Dataset.open(out)


def _fitting(
    track: FlameTrack, capture: ForeignCapture, model: FlameHeadModel
) -> tuple[FlameTrack, list[str]]:
    """The parameters with as many coefficients and vertices as the model has, and notes."""
    notes: list[str] = []
    expressions = len(model.expression_basis)
    shape = track.shape
    if capture.canonical is not None:
        shape = _solved_shape(capture, model)
    offset = track.static_offset
    vertices = len(model.vertices)
    if offset is not None and len(offset) == vertices + _VHAP_TEETH:
        notes.append(f"static_offset of {_VHAP_TEETH} teeth vertices left out")
        offset = offset[:vertices]
    if offset is not None and len(offset) != vertices:
        raise InputError(
            f"{capture.source}: static_offset has {len(offset)} vertices, head model "
            f"'{model.name}' has {vertices}; choose the model it was tracked with by --head-model"
        )
    return (
        track.with_values(
            shape=_padded(shape, model.num_identity, "shape", capture, model),
            expression=_padded(track.expression, expressions, "expression", capture, model),
            static_offset=offset,
        ),
        notes,
    )


def _padded(
    values: NDArray[np.float64],
    size: int,
    what: str,
    capture: ForeignCapture,
    model: FlameHeadModel,
) -> NDArray[np.float64]:
    if np.any(values[..., size:]):
        raise InputError(
            f"{capture.source}: {values.shape[-1]} {what} coefficients, head model '{model.name}' "
            f"has {size}; choose a model with all of FLAME's components by --head-model"
        )
    padded = np.zeros((*values.shape[:-1], size))
    padded[..., : values.shape[-1]] = values[..., :size]
    return padded


def _solved_shape(capture: ForeignCapture, model: FlameHeadModel) -> NDArray[np.float64]:
    """Shape coefficients from the vertices of the shaped head with its jaw turned.

    Where the jaw has no hold, vertices are linear in the shape: least squares over those.
    """
    canonical = capture.canonical
    assert canonical is not None
    if canonical.shape != tuple(model.vertices.shape):
        raise InputError(
            f"{capture.source}: canonical.obj has {len(canonical)} vertices, head model "
            f"'{model.name}' has {len(model.vertices)}; choose the model it was tracked with by "
            "--head-model"
        )
    turn = np.eye(3)
    c, s = np.cos(capture.canonical_jaw), np.sin(capture.canonical_jaw)
    turn[1:, 1:] = [[c, -s], [s, c]]
    one = FlameTrack.neutral(1).with_values(
        expression=np.zeros((1, len(model.expression_basis))), jaw=turn[None]
    )
    still = torch.eye(4)[None]
    mean = model.posed_vertices(model.vertices, _codes(one, model), still, still)[0]
    free = model.skinning[:, model.joint_names.index("jaw")] == 0
    wanted = torch.from_numpy(canonical)[free] - (mean + model.origin).double()[free]
    columns = model.identity_basis[:, free].double().flatten(1)
    normal = columns @ columns.T
    normal += _RIDGE * normal.diagonal().mean() * torch.eye(len(normal), dtype=normal.dtype)
    return np.asarray(torch.linalg.solve(normal, columns @ wanted.flatten()).numpy())


def _codes(track: FlameTrack, model: FlameHeadModel) -> torch.Tensor:
    """Codes [T, E]: expression, jaw, eyes in FLAME's joint order, eyelids."""
    turns = np.concatenate([track.jaw[:, None], track.eyes], 1)
    six = matrix_to_rotation_6d(torch.from_numpy(turns)).flatten(1)
    parts = [torch.from_numpy(track.expression), six, torch.from_numpy(track.eyelids)]
    codes = torch.cat(parts, 1).float()
    assert codes.shape[1] == model.num_expression
    return codes


def _poses(
    capture: ForeignCapture,
    track: FlameTrack,
    model: FlameHeadModel,
    rest: torch.Tensor,
    codes: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Head and torso pose, canonical to camera space, [T, 4, 4] each."""
    parts = (track.rotation, track.neck, track.translation)
    rotation, neck, translation = (torch.from_numpy(values).float() for values in parts)
    view = torch.from_numpy(capture.world_to_camera)
    head, torso = model.poses(rest, codes, rotation, neck, translation)
    return (view @ head.double()).float(), (view @ torso.double()).float()


def _picture(capture: ForeignCapture, t: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image [H, W, 3] RGB and matte [H, W] of a frame."""
    file = capture.images[t]
    image = _read(file, cv2.IMREAD_UNCHANGED, capture)
    if image.ndim == 2 or image.dtype != np.uint8:
        raise InputError(f"{file}: must be 8-bit colour; convert it")
    colour = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2RGB)
    if capture.mattes[t]:
        product = np.ones(image.shape[:2], np.float32)
        for part in capture.mattes[t]:
            product *= _plane(part, capture).astype(np.float32) / 255
        alpha = np.rint(product * 255)
    elif image.shape[2] == 4:
        alpha = image[..., 3]
    else:
        raise InputError(f"{file}: has no alpha channel; matte the pictures first")
    return np.asarray(colour, np.uint8), np.asarray(alpha, np.uint8)


def _plane(file: Path, capture: ForeignCapture) -> NDArray[np.uint8]:
    return np.asarray(_read(file, cv2.IMREAD_GRAYSCALE, capture), np.uint8)


def _read(file: Path, flags: int, capture: ForeignCapture) -> NDArray[Any]:
    image = cv2.imread(str(file), flags)
    if image is None:
        raise InputError(f"{file}: missing or not a picture; export the dataset again")
    camera = capture.camera
    if image.shape[:2] != (camera.height, camera.width):
        raise InputError(
            f"{file}: {image.shape[1]}x{image.shape[0]} pixels, the capture's camera has "
            f"{camera.width}x{camera.height}; use the pictures that were tracked"
        )
    return image
