"""Faces that a person never made, for the regressor to learn from."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from cag_avatar_training.regressor.readings import Readings
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.head_models import ARKIT_INDEX, HeadModel
from cag_avatar.tracking.code_regressor import regressor_features
from cag_avatar.tracking.face_landmarker import NUM_LANDMARKS
from cag_avatar.tracking.landmark_correction import head_rotations
from cag_avatar.tracking.landmark_embedding import load_landmark_embedding

__all__ = ["FaceMaker", "Faces", "made_up_codes"]

#: Pixels per metre, and the middle, of made-up pictures: the features do not depend on them.
_SCALE, _MIDDLE = 1000.0, 500.0
#: Meshes that are in memory together.
_CHUNK = 64
_GAZE = ("Up", "Down", "In", "Out")


@dataclass(frozen=True)
class Faces:
    """What the regressor is told, and what it should say."""

    features: NDArray[np.float32]
    """See regressor_features(), [N, 1486]."""
    codes: NDArray[np.float32]
    """[N, E]."""

    def part(self, index: NDArray[np.int64]) -> Faces:
        """Those at ``index`` [M]."""
        return Faces(self.features[index], self.codes[index])


class FaceMaker:
    """Makes faces up from training frames.

    Args:
        head: whose code is ARKit's.
        rest: the person's mesh, [V, 3].
        mean: its landmarks, [468, 3].
        readings: of the N training frames.
        codes: theirs, [N, 52].
        seen: the same as the regressor sees them.
    """

    def __init__(
        self,
        head: HeadModel,
        rest: Tensor,
        mean: NDArray[np.float32],
        readings: Readings,
        codes: NDArray[np.float32],
        seen: Faces,
    ) -> None:
        self._head, self._rest, self._mean = head, rest, mean
        self._embedding = load_landmark_embedding(head)
        self._codes = codes
        self._rotations = head_rotations(mean.astype(np.float64), readings.landmarks)
        self._scores = readings.scores
        none = np.zeros_like(readings.scores)
        # What the landmarks of each frame are off by: the person, the view, the landmarker.
        self._landmark_errors = seen.features - self._features(codes, self._rotations, none)

    def make(self, frames: NDArray[np.int64], count: int, score_noise: float, seed: int) -> Faces:
        """``count`` faces from some of the training frames."""
        generator = np.random.default_rng([seed, 2])
        codes = made_up_codes(self._codes[frames], count, generator)
        like = frames[generator.integers(len(frames), size=count)]
        noise = score_noise * generator.standard_normal(codes.shape).astype(np.float32)
        guess = np.clip(codes + (self._scores - self._codes)[like], 0.0, 1.0)
        scores = np.clip(guess + noise, 0.0, 1.0)
        features = self._features(codes, self._rotations[like], scores)
        landmarks = 3 * NUM_LANDMARKS
        features[:, :landmarks] += self._landmark_errors[like, :landmarks]
        return Faces(features, codes)

    def _features(
        self,
        codes: NDArray[np.float32],
        rotations: NDArray[np.float64],
        scores: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        points = []
        for chunk in torch.from_numpy(codes).split(_CHUNK):
            still = torch.eye(4).expand(len(chunk), 4, 4)
            with torch.no_grad():
                posed = self._head.posed_vertices(self._rest, chunk, still, still)
                points.append(self._embedding.points(posed, self._head.faces).numpy())
        turned = np.einsum("tij,tnj->tni", rotations, np.concatenate(points))
        return regressor_features(self._mean, turned * _SCALE + _MIDDLE, scores)


def made_up_codes(
    codes: NDArray[np.float32], count: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    """ARKit codes [count, 52] around codes [N, 52] that were seen.

    A seen code, mostly weakened, in which one to four movements (both sides together, more often
    than not) and in half of the cases the gaze are replaced by random ones.
    """
    sided = [
        (index, ARKIT_INDEX[name[:-4] + "Right"])
        for name, index in ARKIT_INDEX.items()
        if name.endswith("Left") and not name.startswith(("eyeLook", "jaw")) and name != "mouthLeft"
    ]
    taken = set(itertools.chain.from_iterable(sided))
    single = [
        (index,)
        for name, index in ARKIT_INDEX.items()
        if index not in taken and not name.startswith("eyeLook") and name != "tongueOut"
    ]
    movements: list[tuple[int, ...]] = [*sided, *single]
    result = codes[generator.integers(len(codes), size=count)].copy()
    weaken = np.where(generator.random(count) < 0.3, 1.0, generator.random(count))
    result *= weaken[:, None].astype(np.float32)
    for row in result:
        chosen = generator.choice(len(movements), size=generator.integers(1, 5), replace=False)
        for movement in chosen:
            index = list(movements[movement])
            row[index] = generator.random()
            if len(index) == 2 and generator.random() < 0.3:
                row[index[generator.integers(2)]] = generator.random()
        if generator.random() < 0.5:
            yaw, pitch = generator.uniform(-0.8, 0.8, size=2)
            for side, outward in (("Left", yaw), ("Right", -yaw)):
                amounts = (pitch, -pitch, -outward, outward)
                for direction, amount in zip(_GAZE, amounts, strict=True):
                    row[ARKIT_INDEX[f"eyeLook{direction}{side}"]] = max(0.0, amount)
    return result
