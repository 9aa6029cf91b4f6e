"""What the face landmarker finds in pictures of one subject, and the truth."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.files import replacing
from cag_avatar.head_models import ARKIT_NAMES, HeadModel
from cag_avatar.tracking.face_landmarker import FACE_LANDMARKS, NUM_LANDMARKS
from cag_avatar.tracking.face_pictures import FACE_SIDE, MOUTH_SHAPE, PLANES, FacePlanes
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding

__all__ = ["CorrectionData", "SubjectPictures", "read_subjects"]


#: Arrays of a file that stay float16.
_HALF = ("face", "mouth")


@dataclass(frozen=True)
class SubjectPictures:
    """T pictures of one subject in which its face was found, and its true head; float32 but for the
    planes."""

    landmarks: NDArray[np.float32]
    """Detected, [T, 478, 3] pixels."""
    scores: NDArray[np.float32]
    """Blendshape scores, [T, 52]."""
    colors: NDArray[np.float32]
    """Of ``face_colors``, [T, 468, 3]."""
    codes: NDArray[np.float32]
    """True expression codes, [T, 52]."""
    rest: NDArray[np.float32]
    """True rest vertices, canonical space, [V, 3] metres."""
    head_pose: NDArray[np.float32]
    """Canonical to camera space, [T, 4, 4]."""
    torso_pose: NDArray[np.float32]
    """Canonical to camera space, [T, 4, 4]."""
    focal: NDArray[np.float32]
    """Of the camera, pixels, []; its axis meets the picture's middle."""
    width: NDArray[np.float32]
    """Of the picture, pixels, []."""
    face: NDArray[np.float16]
    """Planes of the upright faces (``FacePlanes``), [T, PLANES, FACE_SIDE, FACE_SIDE]."""
    mouth: NDArray[np.float16]
    """The same of the mouths, [T, PLANES, *MOUTH_SHAPE]."""

    def camera(self) -> PinholeCamera:
        """Of all pictures."""
        side, focal = int(self.width), float(self.focal)
        return PinholeCamera(side, side, focal, focal, side / 2, side / 2)

    def vertices(self, model: HeadModel) -> Tensor:
        """The true head in each picture, camera space, [T, V, 3]."""
        motion = (torch.from_numpy(x) for x in (self.codes, self.head_pose, self.torso_pose))
        return model.posed_vertices(torch.from_numpy(self.rest), *motion)

    def with_truth(
        self, model: HeadModel, embedding: LandmarkEmbedding, mirrored: LandmarkEmbedding
    ) -> CorrectionData:
        """With the true places of some surface points.

        Args:
            model: head model of the subject.
            embedding: its landmarks.
            mirrored: their mirror images on the mean head (``mirrored_points``).
        """
        vertices, camera = self.vertices(model), self.camera()

        def seen(points: LandmarkEmbedding) -> NDArray[np.float32]:
            return camera.project(points.points(vertices, model.faces)).numpy()

        return CorrectionData(
            landmarks=self.landmarks, scores=self.scores, colors=self.colors, codes=self.codes,
            true_px=seen(embedding), mirrored_px=seen(mirrored), head_pose=self.head_pose,
            focal=self.focal, width=self.width, planes=FacePlanes(self.face, self.mouth),
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write as npz; colours as float16."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays["colors"] = self.colors.astype(np.float16)
        with replacing(path) as temporary:
            np.savez(temporary, **arrays)

    @classmethod
    def load(cls, path: Path) -> SubjectPictures:
        """Read a file that :meth:`save` wrote. Raises InputError naming it when it is not one."""
        names = [field.name for field in fields(cls)]
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays: dict[str, Any] = {
                    name: np.asarray(stored[name], np.float16 if name in _HALF else np.float32)
                    for name in names
                }
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not a subject's landmarks ({error}); delete it") from error
        count = len(arrays["codes"])
        shapes = {
            "landmarks": (count, NUM_LANDMARKS, 3), "scores": (count, len(ARKIT_NAMES)),
            "colors": (count, FACE_LANDMARKS, 3), "codes": (count, len(ARKIT_NAMES)),
            "rest": (len(arrays["rest"]), 3), "head_pose": (count, 4, 4),
            "torso_pose": (count, 4, 4), "focal": (), "width": (),
            "face": (count, PLANES, FACE_SIDE, FACE_SIDE), "mouth": (count, PLANES, *MOUTH_SHAPE),
        }  # fmt: skip
        for name, shape in shapes.items():
            if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
                raise InputError(f"{path}: {name} is not finite of shape {shape}; delete it")
        return cls(**arrays)


def read_subjects(folder: Path, model: HeadModel) -> dict[int, SubjectPictures]:
    """The subjects in FOLDER/subjects, by seed, that have pictures with a face.

    Raises:
        InputError: there are none, a file is damaged or its head is not ``model``'s.
    """
    subjects = {}
    for path in sorted(folder.glob("subjects/*.npz")):
        if not path.stem.isdecimal():
            raise InputError(f"{path}: the name is not a seed; move it away")
        subject = SubjectPictures.load(path)
        if len(subject.rest) != len(model.vertices):
            raise InputError(
                f"{path}: rest has {len(subject.rest)} vertices, head model '{model.name}' "
                f"{len(model.vertices)}; these are subjects of another head model"
            )
        if len(subject.codes):
            subjects[int(path.stem)] = subject
    if not subjects:
        raise InputError(f"{folder / 'subjects'}: no subjects; run 'cag-avatar train-correction'")
    return subjects


@dataclass(frozen=True)
class CorrectionData:
    """What a subject's pictures say of the landmarks of one embedding; float32 but for planes."""

    landmarks: NDArray[np.float32]
    """Detected, [T, 478, 3] pixels."""
    scores: NDArray[np.float32]
    """Blendshape scores, [T, 52]."""
    colors: NDArray[np.float32]
    """Of ``face_colors``, [T, 468, 3]."""
    codes: NDArray[np.float32]
    """True expression codes, [T, 52]."""
    true_px: NDArray[np.float32]
    """Where the head model's landmarks are, [T, 478, 2] pixels."""
    mirrored_px: NDArray[np.float32]
    """Where the mirror images of those surface points are, [T, 478, 2] pixels of the same picture:
    the surface points of the landmarks are not quite symmetric."""
    head_pose: NDArray[np.float32]
    """Canonical to camera space, [T, 4, 4]."""
    focal: NDArray[np.float32]
    """Of the camera, pixels, []; its axis meets the picture's middle."""
    width: NDArray[np.float32]
    """Of the picture, pixels, []."""
    planes: FacePlanes
    """Of the pictures."""
    flipped: bool = False
    """Whether all the rest is of the mirror images of ``planes``."""
