"""Pictures of synthetic subjects, and what the face landmarker finds in them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from cag_avatar_training.landmark_correction.config import CorrectionConfig
from cag_avatar_training.landmark_correction.data import SubjectPictures
from cag_avatar_training.landmark_correction.mirroring import mirror_codes
from cag_avatar_training.synthetic import SynthesisConfig
from cag_avatar_training.synthetic.motion import perform
from cag_avatar_training.synthetic.render import create_subject, default_camera
from numpy.typing import NDArray

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.head_models import ARKIT_INDEX, ARKIT_NAMES, HeadModel
from cag_avatar.tracking.face_landmarker import FACE_LANDMARKS, NUM_LANDMARKS, FaceLandmarker
from cag_avatar.tracking.face_pictures import FacePlanes, face_planes, upright_picture
from cag_avatar.tracking.landmark_correction import face_colors, upright_frame
from cag_avatar.tracking.landmark_embedding import load_landmark_embedding

__all__ = ["render_subject", "render_subjects"]

_LOG = logging.getLogger(__name__)

#: Subjects perform that slowly, so that few pictures hold many expressions. Frames per second.
_FPS = 3.0
#: Finer than a small picture shows, but not by much: texels, loose hairs.
_TEXTURE, _STRANDS = 1024, 1500
#: Distance from the camera at which subjects perform, and the nearest and farthest over it.
_DISTANCE = 0.86
_NEAREST, _FARTHEST = 0.5, 2.0
#: Every other picture shows a random mixture, so that coefficients are seen apart; every fourth one
#: of those that shape the lips, which look alike.
_MIXED_EVERY, _LIPS_EVERY = 2, 4
_LIPS = (
    "jawOpen", "mouthPucker", "mouthFunnel", "mouthClose", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper",
)  # fmt: skip
#: Share of them in such a picture, and the largest coefficient.
_LIPS_SHARE, _LIPS_MOST = 0.3, 0.9
_UNPAIRED = ("eyeLook", "jaw", "mouthLeft", "mouthRight")
#: Standard deviation of the sensor's noise, 8-bit levels; sizes of the blur of every other picture,
#: pixels.
_NOISE = 1.5
_BLUR = (0.4, 1.2)


def render_subjects(
    folder: Path,
    model: HeadModel,
    config: CorrectionConfig,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, SubjectPictures]:
    """All subjects, by seed; those that lie in FOLDER/subjects already are read.

    Args:
        folder: for one file a subject, subjects/SEED.npz.
        model: head model of the subjects.
        config: of the subjects.
        progress: called with subjects done and their number.

    Raises:
        InputError: a file is damaged or was rendered at another size.
    """
    data: dict[int, SubjectPictures] = {}
    landmarker: FaceLandmarker | None = None
    try:
        for done, seed in enumerate(config.seeds):
            if progress is not None:
                progress(done, config.subjects)
            path = Path(folder) / "subjects" / f"{seed}.npz"
            if path.is_file():
                subject = SubjectPictures.load(path)
                if int(subject.width) != config.size:
                    raise InputError(
                        f"{path}: its pictures are {int(subject.width)} pixels wide, not "
                        f"{config.size}; delete it or choose another folder"
                    )
            else:
                landmarker = landmarker or FaceLandmarker()
                subject = render_subject(seed, model, landmarker, config)
                subject.save(path)
            if len(subject.codes):
                data[seed] = subject
            else:
                _LOG.warning("subject %d is left out: no face was found in its pictures", seed)
    finally:
        if landmarker is not None:
            landmarker.close()
    if progress is not None:
        progress(config.subjects, config.subjects)
    return data


def render_subject(
    seed: int,
    model: HeadModel,
    landmarker: FaceLandmarker,
    config: CorrectionConfig,
) -> SubjectPictures:
    """Render and detect one subject; pictures without a found face are left out.

    Args:
        seed: decides everything.
        model: head model.
        landmarker: of single images.
        config: of the subjects.
    """
    rng = np.random.default_rng([seed, 77])
    motion = perform(
        SynthesisConfig(
            seed=seed, seconds=config.frames / _FPS, fps=_FPS, size=config.size,
            motion="talk" if rng.random() < 0.6 else "expressions",
            head_turns=float(rng.uniform(0.8, 1.35)),
        )
    )  # fmt: skip
    codes = _mixed(motion.codes, rng)
    subject = create_subject(
        seed, _TEXTURE, _STRANDS, model, config.identity_spread, config.identity_limit
    )
    distance = _DISTANCE * float(np.clip(rng.lognormal(0, 0.35), _NEAREST, _FARTHEST))
    focal = default_camera(config.size).fx * distance / _DISTANCE * float(rng.uniform(0.75, 1.15))
    middle = config.size / 2
    camera = PinholeCamera(config.size, config.size, focal, focal, middle, middle)
    move = np.array([0, 0, distance - _DISTANCE], np.float32)
    head, torso = motion.head_pose.copy(), motion.torso_pose.copy()
    head[:, :3, 3] += move
    torso[:, :3, 3] += move
    found: list[int] = []
    landmarks, scores, colors, planes = [], [], [], []
    embedding = load_landmark_embedding(model)
    mean = embedding.points(model.vertices, model.faces)[:FACE_LANDMARKS].numpy().astype(np.float64)
    for t in range(len(codes)):
        noise = (rng.standard_normal((config.size, config.size, 3)) * _NOISE).astype(np.float32)
        image = subject.photograph(camera, codes[t], head[t], torso[t], 1, noise).image
        if rng.random() < 0.5:
            blurred = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(*_BLUR)))
            image = np.asarray(blurred, np.uint8)
        faces = landmarker.detect(image)
        if faces:
            found.append(t)
            landmarks.append(faces[0].landmarks)
            scores.append(faces[0].scores)
            colors.append(face_colors(image, faces[0].landmarks))
            frame = upright_frame(mean, faces[0].landmarks[None])
            planes.append(face_planes(upright_picture(image, frame)))
    count = len(found)
    shown = FacePlanes.stack(planes) if planes else FacePlanes.none()
    return SubjectPictures(
        landmarks=np.reshape(np.array(landmarks, np.float32), (count, NUM_LANDMARKS, 3)),
        scores=np.reshape(np.array(scores, np.float32), (count, len(ARKIT_NAMES))),
        colors=np.reshape(np.array(colors, np.float32), (count, FACE_LANDMARKS, 3)),
        codes=codes[found],
        rest=subject.rest.numpy(),
        head_pose=head[found],
        torso_pose=torso[found],
        focal=np.array(focal, np.float32),
        width=np.array(config.size, np.float32),
        face=shown.face,
        mouth=shown.mouth,
    )


def _mixed(codes: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Some frames of a performance, faded, with up to five other coefficients on top, [T, 52]."""
    out = codes.copy()
    other_side = mirror_codes()
    look = [i for name, i in ARKIT_INDEX.items() if name.startswith("eyeLook")]
    for t in range(0, len(out), _MIXED_EVERY):
        count = int(rng.integers(1, 6))
        extra = np.zeros(len(ARKIT_NAMES), np.float32)
        extra[rng.choice(len(extra), count, replace=False)] = rng.uniform(0.1, 1, count)
        if rng.random() < 0.5:  # both sides alike
            for i in np.flatnonzero(extra):
                if not ARKIT_NAMES[i].startswith(_UNPAIRED):
                    extra[other_side[i]] = extra[i]
        extra[look] = 0
        extra[ARKIT_INDEX["tongueOut"]] = 0
        gaze = out[t, look]
        out[t] = np.clip(out[t] * rng.uniform(0, 0.8) + extra, 0, 1)
        out[t, look] = gaze
    for t in range(0, len(out), _LIPS_EVERY):
        for name in _LIPS:
            if rng.random() < _LIPS_SHARE:
                out[t, ARKIT_INDEX[name]] = rng.uniform(0, _LIPS_MOST)
    return out
