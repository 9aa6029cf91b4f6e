"""A small dataset without faults, straight from a synthetic person's truth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cag_avatar_training.dataset import Dataset, DatasetInfo, DatasetWriter, Tracking
from cag_avatar_training.matting.parsing import FaceParser
from cag_avatar_training.synthetic import SynthesisConfig
from cag_avatar_training.synthetic.motion import perform
from cag_avatar_training.synthetic.render import create_subject, default_camera
from cag_avatar_training.validation import ValidationResult, validate
from safetensors.numpy import load_file, save_file

from cag_avatar.tracking.landmark_embedding import load_landmark_embedding

SEED, SECONDS, FPS, SIZE = 4, 2.8, 25.0, 144


@pytest.fixture(scope="session")
def clean_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a talking face; shared, so copy before damaging it."""
    path = tmp_path_factory.mktemp("validation") / "clean"
    config = SynthesisConfig(seed=SEED, seconds=SECONDS, fps=FPS, size=SIZE, head_turns=0.7)
    motion = perform(config)
    subject = create_subject(SEED, texture_size=256, strands=200)
    camera = default_camera(SIZE)
    embedding = load_landmark_embedding(subject.model)
    rng = np.random.default_rng(SEED)
    rest = subject.rest
    landmarks = np.zeros((len(motion.codes), 478, 3), np.float32)
    parser = FaceParser(None)
    with DatasetWriter.create(path) as writer:
        for t in range(len(motion.codes)):
            pose = (motion.codes[t], motion.head_pose[t], motion.torso_pose[t])
            grain = rng.normal(0, 1.2, (SIZE, SIZE, 3))
            frame = subject.photograph(camera, *pose, 1, grain)
            posed = subject.model.posed_vertices(rest, *(torch.from_numpy(x)[None] for x in pose))[
                0
            ]
            points = camera.project(embedding.points(posed, subject.model.faces)).numpy()
            # A detector is right to about half a hundredth of the eye distance.
            landmarks[t, :, :2] = points + rng.normal(0, 0.15, points.shape)
            matte = (frame.alpha * 255 + 0.5).astype(np.uint8)
            parts = parser.parse(frame.image, matte, landmarks[t])
            writer.add_frame(frame.image, matte, parts)
        count = len(landmarks)
        tracking = Tracking(
            identity=subject.traits.identity.numpy(),
            vertex_offsets=subject.offsets.numpy(),
            codes=motion.codes,
            head_pose=motion.head_pose,
            torso_pose=motion.torso_pose,
            landmarks=landmarks,
            timestamps=np.arange(count) / FPS,
        )
        writer.finish(DatasetInfo(camera=camera, fps=FPS, source="clean.mp4"), tracking)
    return path


@pytest.fixture
def clean(clean_path: Path) -> Dataset:
    """The dataset, opened."""
    return Dataset.open(clean_path)


@pytest.fixture(scope="session")
def clean_result(clean_path: Path) -> ValidationResult:
    """What the validator says of it."""
    return validate(Dataset.open(clean_path))


class Damaged:
    """A copy of the dataset that a test may damage."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def tensors(self, **change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace tensors by a function of them."""
        file = self.path / "tracking.safetensors"
        arrays = load_file(file)
        for name, function in change.items():
            arrays[name] = np.ascontiguousarray(function(arrays[name].copy()))
        save_file(arrays, file)

    def camera(self, **change: float) -> None:
        """Add to fields of the camera."""
        file = self.path / "dataset.json"
        values = json.loads(file.read_text())
        for name, extra in change.items():
            values["camera"][name] += extra
        file.write_text(json.dumps(values))

    def pictures(self, folder: str, function: Callable[[int, np.ndarray], np.ndarray]) -> None:
        """Replace pictures by a function of their number and content (BGR or grey)."""
        files = sorted((self.path / folder).glob("*.png"))
        old = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]
        for number, (file, picture) in enumerate(zip(files, old, strict=True)):
            cv2.imwrite(str(file), function(number, picture), [cv2.IMWRITE_PNG_COMPRESSION, 1])

    def reorder(self, order: np.ndarray) -> None:
        """Put pictures and mattes (not the numbers) in another order."""
        for folder in ("images", "alpha"):
            files = sorted((self.path / folder).glob("*.png"))
            data = [file.read_bytes() for file in files]
            for file, source in zip(files, order, strict=True):
                file.write_bytes(data[source])

    def open(self) -> Dataset:
        """Open it."""
        return Dataset.open(self.path)


@pytest.fixture
def damaged(clean_path: Path, tmp_path: Path) -> Damaged:
    """A fresh copy."""
    return Damaged(Path(shutil.copytree(clean_path, tmp_path / "damaged")))
