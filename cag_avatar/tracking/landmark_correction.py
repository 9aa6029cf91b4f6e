"""What is known about the face landmarker's errors: landmarks put where the head model has them.

MediaPipe's landmarks are off by 2 to 3 % of the distance between the eyes, and systematically so:
with the person, the view, the light and the expression. A small network, trained on rendered
subjects whose truth is known (``cag-avatar train-correction``), predicts that error and the
expression code. It sees landmarks, blendshape scores and the light on the face, each also as its
deviation from what is typical of the clip: a face at rest is not a frown because its brows are low.
There are two such networks: one that a camera's live frames can afford, and one for clips that also
sees what a network of its own (:mod:`cag_avatar.tracking.face_pictures`) reads in the pictures.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cag_avatar.errors import InputError
from cag_avatar.files import replacing
from cag_avatar.tracking.face_landmarker import (
    EYE_OUTER_CORNERS,
    FACE_CENTRE,
    FACE_LANDMARKS,
    NUM_LANDMARKS,
)

__all__ = [
    "Corrected",
    "FaceFrame",
    "LandmarkCorrection",
    "Typical",
    "correction_path",
    "face_colors",
    "frontal_landmarks",
    "head_rotations",
    "landmark_features",
    "load_landmark_correction",
    "upright_frame",
]

_FORMAT = "cag_avatar-landmark-correction"
#: Blur of the picture in which the light is read, in distances between the outer eye corners.
_COLOR_BLUR = 0.04
#: Scales that bring the parts of the feature vector to a like size: metres, scores, rotation, log.
_CENTIMETRE, _SCORE, _TURN, _LIGHT = 0.01, 4.0, 4.0, 3.0
_LUMA = np.array([0.299, 0.587, 0.114])
_NUM_LIGHT = 5
#: Inner and outer corners of the two eyes, in the order of the irises.
_EYE_CORNERS = np.array([[33, 133], [362, 263]])


@dataclass(frozen=True)
class FaceFrame:
    """Similarity transforms that bring T faces upright, to metres, round their middle."""

    turn: NDArray[np.float64]
    """Rotation in the picture, [T, 2, 2]: upright = turn @ (pixels - middle) / scale."""
    scale: NDArray[np.float64]
    """Pixels per metre at the face, [T]."""
    middle: NDArray[np.float64]
    """Mean of the face's landmarks, pixels, [T, 2]."""

    def upright(self, pixels: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points of the pictures, pixels [T, N, 2], in metres at the face, upright."""
        moved = np.einsum("tij,tnj->tni", self.turn, pixels - self.middle[:, None])
        return np.asarray(moved / self.scale[:, None, None])


@dataclass(frozen=True)
class Corrected:
    """Landmarks and codes of T frames."""

    landmarks: NDArray[np.float32]
    """Where the head model's landmarks should be, pixels, [T, 478, 2]."""
    codes: NDArray[np.float32]
    """Expression codes in [0, 1], [T, 52]."""
    deviation: NDArray[np.float32]
    """Standard deviation of their errors on subjects that were not trained on, [52]."""


@dataclass(frozen=True)
class Typical:
    """What the frames of one person have in common."""

    features: NDArray[np.float64]
    """Median of the network's raw input, [1497]."""
    error: NDArray[np.float64]
    """Median error of the landmarks, in units and axes of FaceFrame, [478, 2]."""


def face_colors(image: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blurred colours at the face's landmarks, [468, 3] in 0..255.

    Args:
        image: RGB, [H, W, 3] uint8.
        landmarks: [478, 2 or 3] pixels of that image.
    """
    points = landmarks[:FACE_LANDMARKS, :2].astype(np.float32)
    low = np.floor(points.min(0)).astype(int)
    high = np.ceil(points.max(0)).astype(int) + 1
    eyes = points[EYE_OUTER_CORNERS[0]] - points[EYE_OUTER_CORNERS[1]]
    sigma = max(_COLOR_BLUR * float(np.linalg.norm(eyes)), 0.5)
    margin = int(3 * sigma) + 1
    x0, y0 = np.maximum(low - margin, 0)
    patch = image[y0 : max(high[1] + margin, y0 + 1), x0 : max(high[0] + margin, x0 + 1)]
    if patch.size == 0:  # a face wholly outside of the picture
        return np.full((FACE_LANDMARKS, 3), 128.0, np.float32)
    # Wide blurs on a smaller picture: what averaging f x f pixels blurs already, is taken off.
    factor = 4 if sigma >= 8 else 2 if sigma >= 4 else 1
    height, width = (side // factor * factor for side in patch.shape[:2])
    if factor > 1 and min(height, width) > 0:
        patch = np.asarray(
            cv2.resize(
                patch[:height, :width], (width // factor, height // factor),
                interpolation=cv2.INTER_AREA,
            ),
            np.uint8,
        )  # fmt: skip
        sigma = math.sqrt(sigma**2 - (factor**2 - 1) / 12) / factor
    else:
        factor = 1
    blurred = cv2.GaussianBlur(np.ascontiguousarray(patch), (0, 0), sigma).astype(np.float32)
    at = ((points - (x0, y0)) / factor - 0.5).astype(np.float32)[None]
    found = cv2.remap(
        blurred, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(found[0], np.float32)


def landmark_features(
    mean: NDArray[np.float64],
    skin: NDArray[np.int64],
    landmarks: NDArray[np.float32],
    scores: NDArray[np.float32],
    colors: NDArray[np.float32],
) -> tuple[NDArray[np.float64], FaceFrame]:
    """The network's raw input, [T, 1497], and the frame in which its landmarks lie.

    Args:
        mean: landmarks of the mean head, canonical space, [468, 3] metres.
        skin: landmarks on bare skin, whose colours tell the light, [K].
        landmarks: [T, 478, 3] pixels.
        scores: blendshape scores, [T, 52].
        colors: of :func:`face_colors`, [T, 468, 3].
    """
    frame, rows = _face_frame(mean, landmarks)
    points = _upright_points(frame, landmarks).reshape(len(landmarks), -1)
    rotation = _upright_rotation(frame, rows)
    parts = [
        points / _CENTIMETRE,
        scores * _SCORE,
        rotation[:, :2].reshape(len(landmarks), -1) * _TURN,
        _light(mean, skin, colors) * _LIGHT,
    ]
    return np.concatenate(parts, 1), frame


def frontal_landmarks(
    mean: NDArray[np.float64], landmarks: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Landmarks of T faces freed of the head's pose, [T, 478, 3] metres, canonical axes.

    The origin is the middle of the face's landmarks. Also the angle between each face and the
    camera, [T] radians.

    Args:
        mean: landmarks of the head at rest, canonical space, [468, 3] metres.
        landmarks: [T, 478, 3] pixels, z as MediaPipe gives it.
    """
    frame, rows = _face_frame(mean, landmarks)
    points = _upright_points(frame, landmarks) @ _upright_rotation(frame, rows)
    away = np.arcsin(np.clip(np.linalg.norm(rows[:, :, 2], axis=1), 0.0, 1.0))
    return np.asarray(points), np.asarray(away)


def head_rotations(
    mean: NDArray[np.float64], landmarks: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Rotations from canonical to the upright axes of T faces (x right, y down, z away), [T, 3, 3];
    arguments as for :func:`frontal_landmarks`."""
    frame, rows = _face_frame(mean, landmarks)
    return _upright_rotation(frame, rows)


def upright_frame(mean: NDArray[np.float64], landmarks: NDArray[np.float32]) -> FaceFrame:
    """The frames of T faces.

    Args:
        mean: landmarks of the mean head, canonical space, [468, 3] metres.
        landmarks: [T, 478, 2 or 3] pixels.
    """
    return _face_frame(mean, landmarks)[0]


def _upright_points(frame: FaceFrame, landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Landmarks with their depth in the frames of the faces, metres, [T, 478, 3]."""
    upright = frame.upright(landmarks[..., :2].astype(np.float64))
    depth = landmarks[..., 2:].astype(np.float64) / frame.scale[:, None, None]
    depth -= depth[:, :FACE_LANDMARKS].mean(1, keepdims=True)
    return np.concatenate([upright, depth], -1)


def _face_frame(
    mean: NDArray[np.float64], landmarks: NDArray[np.floating]
) -> tuple[FaceFrame, NDArray[np.float64]]:
    """The frames of T faces, and the first two rows of the mean head's rotations, [T, 2, 3]."""
    pixels = landmarks[..., :2].astype(np.float64)
    middle = pixels[:, :FACE_LANDMARKS].mean(1)
    centred = mean - mean.mean(0)
    # Scaled orthography of the mean head: least squares, then the nearest rotation.
    affine = np.einsum(
        "cn,tnk->tkc", np.linalg.pinv(centred), pixels[:, :FACE_LANDMARKS] - middle[:, None]
    )
    u, s, vt = np.linalg.svd(affine, full_matrices=False)
    rows = u @ vt
    scale = s.mean(1)
    angle = np.arctan2(rows[:, 1, 0], rows[:, 0, 0])
    turn = np.stack(
        [
            np.stack([np.cos(angle), np.sin(angle)], -1),
            np.stack([-np.sin(angle), np.cos(angle)], -1),
        ],
        1,
    )
    return FaceFrame(turn, scale, middle), rows


def _light(
    mean: NDArray[np.float64], skin: NDArray[np.int64], colors: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Second-order gradients of the logarithm of the luminance over the face, [T, 5]."""
    normal = mean[skin] - FACE_CENTRE
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    x, y = normal[:, 0], normal[:, 1]
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    luminance = np.log(np.maximum(colors[:, skin].astype(np.float64) @ _LUMA, 4.0))
    return np.asarray((luminance @ np.linalg.pinv(basis).T)[:, 1:])


def _upright_rotation(frame: FaceFrame, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Canonical to upright axes, [T, 3, 3]; ``rows`` as of _face_frame()."""
    rotation = np.concatenate([rows, np.cross(rows[:, 0], rows[:, 1])[:, None]], 1)
    rotation[:, :2] = frame.turn @ rotation[:, :2]
    return rotation


class LandmarkCorrection:
    """The trained network; arrays as :meth:`save` names them, H hidden units, K kept components.

    Args:
        head_model: name of the head model whose landmarks and code it predicts.
        arrays: see _SHAPES.
        protocol: how it was trained and how well it did, as plain JSON values.
    """

    #: "mean" [468, 3] and "skin" [S] as in landmark_features; "centre" [1497] and "basis"
    #: [K, 1497] of the input's principal components, "typical" how many of them tell the clip;
    #: "weight0" [H, K + typical + 5 + D], D numbers that are read in a picture (0 where none is),
    #: ... "weight2" [52 + C, H] and biases; "error_mean" [956] and "error_basis" [C, 956] of the
    #: landmarks' errors in metres, upright; "deviation" [52]. Other arrays are the picture reader's
    #: and only kept.
    NAMES = (
        "mean", "skin", "centre", "basis", "typical", "weight0", "bias0", "weight1", "bias1",
        "weight2", "bias2", "error_mean", "error_basis", "deviation",
    )  # fmt: skip

    def __init__(
        self, head_model: str, arrays: dict[str, NDArray], protocol: dict[str, object] | None = None
    ) -> None:
        self.head_model = head_model
        self.protocol = protocol or {}
        self._stored = arrays
        self._a = {name: arrays[name].astype(np.float64) for name in self.NAMES}
        self._skin = arrays["skin"].astype(np.int64)
        self._typical = int(np.ravel(arrays["typical"])[0])

    def frames(self, landmarks: NDArray[np.float32]) -> FaceFrame:
        """As :func:`upright_frame`, with the mean head that this network was trained with."""
        return upright_frame(self._a["mean"], landmarks)

    def features(
        self,
        landmarks: NDArray[np.float32],
        scores: NDArray[np.float32],
        colors: NDArray[np.float32],
    ) -> tuple[NDArray[np.float64], FaceFrame]:
        """As :func:`landmark_features`, with the mean head that this network was trained with."""
        return landmark_features(self._a["mean"], self._skin, landmarks, scores, colors)

    @property
    def reads_pictures(self) -> bool:
        """Whether it needs what a picture reader says (``looks``)."""
        known = len(self._a["basis"]) + self._typical + _NUM_LIGHT
        return bool(self._a["weight0"].shape[1] > known)

    def inputs(
        self,
        features: NDArray[np.float64],
        typical: NDArray[np.float64],
        looks: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float64]:
        """The network's input [T, K + typical + 5 + D].

        Features [T, 1497], the clip's [1497], and what is read in the pictures [T, D].
        """
        deviation = (features - typical) @ self._a["basis"].T
        offset = typical - self._a["centre"]
        kept = (self._a["basis"] @ offset)[: self._typical]
        clip = np.concatenate([kept, offset[-_NUM_LIGHT:]])
        parts = [deviation, np.tile(clip, (len(features), 1))]
        return np.concatenate(parts if looks is None else [*parts, looks], 1)

    def typical(
        self,
        landmarks: NDArray[np.float32],
        scores: NDArray[np.float32],
        colors: NDArray[np.float32],
    ) -> Typical:
        """What T frames of one person have in common, without looks; arguments as for
        :meth:`correct`."""
        return self._in_common(self.features(landmarks, scores, colors)[0], None)

    def _in_common(
        self, features: NDArray[np.float64], looks: NDArray[np.float32] | None
    ) -> Typical:
        middle = np.median(features, axis=0)
        return Typical(middle, np.median(self._predict(features, middle, looks)[1], axis=0))

    def correct(
        self,
        landmarks: NDArray[np.float32],
        scores: NDArray[np.float32],
        colors: NDArray[np.float32],
        typical: Typical | None = None,
        rigid: bool = False,
        looks: NDArray[np.float32] | None = None,
        irises_found: bool = False,
    ) -> Corrected:
        """Correct T frames of one person.

        Args:
            landmarks: MediaPipe's, [T, 478, 3] pixels.
            scores: MediaPipe's blendshape scores, [T, 52].
            colors: of :func:`face_colors`, [T, 468, 3].
            typical: of the person; by default that of these frames.
            rigid: of each frame's own error take only what a rigidly moved head explains.
            looks: what a picture reader says of the frames, [T, D], where the network
                ``reads_pictures``.
            irises_found: those of the frames are measured otherwise: here they go with the eyes.
        """
        features, frame = self.features(landmarks, scores, colors)
        person = typical or self._in_common(features, looks)
        codes, error = self._predict(features, person.features, looks)
        if rigid:
            error = person.error + self._rigid_part(error - person.error, landmarks)
        elif irises_found:
            own = error - person.error
            error[:, FACE_LANDMARKS:] = person.error[FACE_LANDMARKS:] + _with_the_eyes(own)
        shift = np.einsum("tji,tnj->tni", frame.turn, error) * frame.scale[:, None, None]
        return Corrected(
            (landmarks[..., :2] + shift).astype(np.float32),
            codes.astype(np.float32),
            self._a["deviation"].astype(np.float32),
        )

    def _rigid_part(
        self, error: NDArray[Any], landmarks: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """What a small rotation, shift and scaling of the mean head explain of errors [T, 478, 2].

        Scaled orthography, least squares over the face's landmarks. Irises go with the eyes.
        """
        frame, rows = _face_frame(self._a["mean"], landmarks)
        rotation = _upright_rotation(frame, rows)
        x, y, z = np.moveaxis(self._a["mean"] @ rotation.transpose(0, 2, 1), 2, 0)
        one, none = np.ones_like(x), np.zeros_like(x)
        directions = ((one, none), (none, one), (x, y), (-y, x), (z, none), (none, z))
        modes = np.stack([np.stack(mode, -1).reshape(len(x), -1) for mode in directions], -1)
        seen = error[:, :FACE_LANDMARKS].reshape(len(x), -1, 1)
        turned = modes.transpose(0, 2, 1)
        explained = modes @ np.linalg.solve(turned @ modes, turned @ seen)
        explained = explained.reshape(len(x), FACE_LANDMARKS, 2)
        return np.concatenate([explained, _with_the_eyes(explained)], 1)

    def _predict(
        self,
        features: NDArray[np.float64],
        typical: NDArray[np.float64],
        looks: NDArray[np.float32] | None,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Codes [T, 52] and errors of the landmarks [T, 478, 2] in the frames of the faces."""
        value: NDArray[Any] = self.inputs(features, typical, looks)
        for layer in (0, 1):
            value = value @ self._a[f"weight{layer}"].T + self._a[f"bias{layer}"]
            value = value / (1.0 + np.exp(-value))
        value = value @ self._a["weight2"].T + self._a["bias2"]
        codes = np.clip(value[:, : len(self._a["deviation"])], 0.0, 1.0)
        error = value[:, codes.shape[1] :] @ self._a["error_basis"] + self._a["error_mean"]
        return codes, error.reshape(len(value), NUM_LANDMARKS, 2)

    def save(self, path: Path) -> None:
        """Write one safetensors file; the networks' numbers as float16."""
        header = {
            "format": _FORMAT, "version": 1, "head_model": self.head_model,
            "protocol": self.protocol,
        }  # fmt: skip
        tensors = {}
        for name, stored in self._stored.items():
            value = np.asarray(stored)
            exact = name in ("skin", "typical", "mean", "centre")
            kind = np.int32 if name in ("skin", "typical") else np.float32 if exact else np.float16
            tensors[name] = np.ascontiguousarray(value.astype(kind))
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"cag_avatar": json.dumps(header)})

    @classmethod
    def load(cls, path: Path) -> LandmarkCorrection:
        """Read a file that :meth:`save` wrote. Raises InputError naming it when it is not one."""
        try:
            with safe_open(path, "np") as handle:
                header = json.loads((handle.metadata() or {}).get("cag_avatar", "{}"))
                arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError) as error:
            raise InputError(f"{path}: not a landmark correction ({error})") from error
        if header.get("format") != _FORMAT or header.get("version") != 1:
            raise InputError(
                f"{path}: not a landmark correction of version 1; run 'cag-avatar train-correction'"
            )
        missing = [name for name in cls.NAMES if name not in arrays]
        if missing:
            raise InputError(f"{path}: lacks {', '.join(missing)}; train it again")
        return cls(header["head_model"], arrays, header.get("protocol"))


def _with_the_eyes(moved: NDArray[Any]) -> NDArray[np.float64]:
    """What the corners of the eyes do, for the ten landmarks of the irises, [T, 10, 2]."""
    return np.repeat(moved[:, _EYE_CORNERS].mean(2), 5, axis=1)


def correction_path(head_model: str, pictures: bool = False) -> Path:
    """Where the bundled correction for a head model lies, if there is one.

    ``pictures``: the one that also reads pictures.
    """
    kind = "picture" if pictures else "landmark"
    return Path(str(files("cag_avatar") / "data" / f"{head_model}_{kind}_correction.safetensors"))


@lru_cache(maxsize=4)
def load_landmark_correction(head_model: str, pictures: bool = False) -> LandmarkCorrection | None:
    """The bundled correction for a head model, ``pictures`` as above; None where there is none."""
    path = correction_path(head_model, pictures)
    return LandmarkCorrection.load(path) if path.is_file() else None
