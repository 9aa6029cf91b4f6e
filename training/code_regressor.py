"""Learning one person's code from MediaPipe's landmarks and scores; see cag_avatar's
tracking/code_regressor.py for what comes out.

A clip of seconds does not show all that a face can do. So beside the training frames the network
sees made-up faces: the person's head with other codes, its landmarks off by what they are off by in
a training frame. How much these count is chosen by cross-validation within the training frames.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from cag_avatar_training.dataset import Dataset
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor, nn

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.head_models import ARKIT_INDEX, ARKIT_NAMES, HeadModel, load_head_model
from cag_avatar.tracking.code_regressor import (
    INPUT,
    NUM_FEATURES,
    OUTPUT,
    CodeRegressor,
    regressor_features,
    typical_landmarks,
)
from cag_avatar.tracking.face_landmarker import FACE_LANDMARKS, NUM_LANDMARKS, FaceLandmarker
from cag_avatar.tracking.landmark_correction import head_rotations
from cag_avatar.tracking.landmark_embedding import load_landmark_embedding

__all__ = [
    "Readings",
    "RegressorConfig",
    "code_errors",
    "made_up_codes",
    "read_faces",
    "regressor_of_training",
    "train_regressor",
]

_LOG = logging.getLogger(__name__)
#: Version of the ONNX operators: they have not changed since.
_OPSET, _IR_VERSION = 13, 8
#: Brings principal components to a size of about one.
_WHITEN = 0.25
#: Pixels per metre, and the middle, of made-up pictures: the features do not depend on them.
_SCALE, _MIDDLE = 1000.0, 500.0
#: Meshes that are in memory together.
_CHUNK = 64
_GAZE = ("Up", "Down", "In", "Out")


@dataclass(frozen=True)
class RegressorConfig:
    """Settings of the training; seconds on a CPU."""

    components: int = 120
    """Principal components of the input."""
    hidden: int = 256
    """Units of each of the two hidden layers."""
    steps: int = 1000
    """Steps of AdamW."""
    batch: int = 128
    """Faces a step."""
    rate: float = 3e-3
    """Learning rate."""
    weight_decay: float = 0.1
    """Of AdamW."""
    noise: float = 0.03
    """Standard deviation of the noise on the components."""
    made_up: int = 3000
    """Made-up faces."""
    score_noise: float = 0.1
    """Standard deviation of the noise on a made-up face's scores: they are hardly more than a
    guess."""
    shares: tuple[float, ...] = (0.3, 0.6, 0.85)
    """Shares of made-up faces in a batch, of which cross-validation takes the best."""
    folds: int = 3
    """Parts of the training frames, each a stretch of time, for the cross-validation."""
    trial: float = 0.25
    """Length of a trial of the cross-validation, as a share of ``steps``."""
    seed: int = 0
    """Of all random numbers."""

    def __post_init__(self) -> None:
        for name in ("components", "hidden", "steps", "batch", "made_up"):
            if getattr(self, name) < 1:
                raise InputError(f"regressor: {name} must be at least 1")
        if self.folds < 2:
            raise InputError(f"regressor: folds {self.folds} must be at least 2")
        if not self.shares or not all(0 <= share < 1 for share in self.shares):
            raise InputError(f"regressor: shares {self.shares} must lie in [0, 1)")
        if not 0 < self.trial <= 1:
            raise InputError(f"regressor: trial {self.trial} must lie in (0, 1]")


@dataclass(frozen=True)
class Readings:
    """What MediaPipe says of some frames of a dataset."""

    frames: NDArray[np.int64]
    """Their numbers in the dataset, ascending, [N]."""
    landmarks: NDArray[np.float32]
    """Pixels, [N, 478, 3]."""
    scores: NDArray[np.float32]
    """[N, 52]."""

    def of(self, frames: Sequence[int]) -> Readings:
        """Those of some frames, as far as there are any."""
        kept = np.isin(self.frames, np.asarray(frames))
        return Readings(self.frames[kept], self.landmarks[kept], self.scores[kept])


def read_faces(
    dataset: Dataset,
    frames: Sequence[int] | None = None,
    show: Callable[[int, int], None] | None = None,
) -> Readings:
    """Landmarks and scores of a dataset's frames: from the dataset; those it lacks by running
    MediaPipe over its images, each by itself as preprocessing does (frames without a face are left
    out).

    Args:
        dataset: the dataset.
        frames: of interest; None: all.
        show: called with (frames done, frames) while images are looked at.

    Raises:
        InputError: MediaPipe cannot run here, or finds no face.
    """
    numbers = sorted(range(len(dataset)) if frames is None else frames)
    tracking = dataset.tracking
    if tracking.scores is not None and tracking.landmarks is not None:
        index = np.array(numbers, np.int64)
        return Readings(index, tracking.landmarks[index], tracking.scores[index])
    _LOG.info("%s: keeps no scores, its images are looked at", dataset.path)
    found = []
    with FaceLandmarker() as landmarker:
        for done, number in enumerate(numbers):
            faces = landmarker.detect(dataset.image(number))
            if faces:
                found.append((number, faces[0].landmarks, faces[0].scores))
            if show is not None:
                show(done + 1, len(numbers))
    if not found:
        raise InputError(f"{dataset.path}: no face is found in its images")
    kept, landmarks, scores = zip(*found, strict=True)
    index = np.array(kept, np.int64)
    own = tracking.landmarks
    return Readings(index, np.stack(landmarks) if own is None else own[index], np.stack(scores))


def code_errors(
    regressor: CodeRegressor | None,
    readings: Readings,
    codes: NDArray[np.floating],
    head: HeadModel,
) -> dict[str, float | int | None]:
    """Mean absolute error of MediaPipe's raw scores and of a regressor against codes [N, E]."""
    raw = head.arkit_to_code(torch.from_numpy(readings.scores)).numpy()
    result: dict[str, float | int | None] = {
        "raw_scores": round(float(np.abs(raw - codes).mean()), 5),
        "regressor": None,
        "frames": len(codes),
    }
    if regressor is not None:
        own = regressor.codes(readings.landmarks, readings.scores)
        result["regressor"] = round(float(np.abs(own - codes).mean()), 5)
    return result


def regressor_of_training(
    dataset: Dataset, frames: Sequence[int], codes: NDArray[np.floating]
) -> CodeRegressor | None:
    """The regressor of an avatar that was just trained on ``frames`` with their codes [N, E].

    None, and the log says why, where the dataset keeps no scores, or it cannot be made.
    """
    if dataset.tracking.scores is None or dataset.tracking.landmarks is None:
        _LOG.info(
            "%s: keeps no scores, so the avatar gets no regressor of its own; "
            "'cag-avatar train-regressor' makes one from the images",
            dataset.path,
        )
        return None
    order = np.argsort(np.asarray(frames))
    try:
        readings = read_faces(dataset, frames)
        return train_regressor(dataset, readings, np.asarray(codes)[order])
    except InputError as error:
        _LOG.warning("the avatar gets no regressor of its own: %s", error)
        return None


def train_regressor(
    dataset: Dataset,
    readings: Readings,
    codes: NDArray[np.floating],
    config: RegressorConfig | None = None,
    show: Callable[[int, int], None] | None = None,
) -> CodeRegressor:
    """Learn the codes of some frames from what MediaPipe says of them.

    Args:
        dataset: whose person it is; no other frame of it is looked at.
        readings: of the N training frames.
        codes: their fitted codes, [N, E].
        config: settings.
        show: called with (trainings done, trainings).

    Raises:
        InputError: too few frames, or the head model has no landmarks.
        MissingDependencyError: ``onnx`` is not installed.
    """
    config = config or RegressorConfig()
    _check_onnx()
    if len(codes) != len(readings.frames) or len(codes) < 4 * config.folds:
        raise InputError(
            f"{dataset.path}: {len(readings.frames)} training frames with a face are too few for "
            f"a regressor, at least {4 * config.folds} are needed"
        )
    head = load_head_model(dataset.info.head_model)
    embedding = load_landmark_embedding(head)
    tracking = dataset.tracking
    rest = head.rest_vertices(
        torch.from_numpy(tracking.identity), torch.from_numpy(tracking.vertex_offsets)
    )
    mean = embedding.points(rest, head.faces)[:FACE_LANDMARKS].numpy()
    wanted = np.asarray(codes, np.float32)
    features = regressor_features(mean, readings.landmarks, readings.scores)
    seen = _Faces(features, wanted)
    maker = _Maker(head, rest, mean, readings, wanted, seen) if _is_arkit(head) else None
    # Faces of other models cannot be made up: what their code would be in scores is not known.
    shares = config.shares if maker is not None else (0.0,)
    errors: dict[float, list[float]] = {share: [] for share in shares}
    folds = np.array_split(np.arange(len(seen.codes)), config.folds)
    total, done = (len(folds) * len(shares) if len(shares) > 1 else 0) + 1, 0
    steps = max(1, round(config.steps * config.trial))
    if len(shares) > 1:
        for fold in folds:
            train = np.setdiff1d(np.arange(len(seen.codes)), fold)
            made = (
                None
                if maker is None
                else maker.make(train, config.made_up // 3, config.score_noise, config.seed)
            )
            for share in shares:
                network = _Network.fit(seen.part(train), made, share, head, config, steps)
                errors[share].append(network.error(seen.part(fold)))
                done += 1
                if show is not None:
                    show(done, total)
    share = min(shares, key=lambda s: float(np.mean(errors[s] or [0.0])))
    everything = np.arange(len(seen.codes))
    made = (
        None
        if maker is None
        else maker.make(everything, config.made_up, config.score_noise, config.seed)
    )
    network = _Network.fit(seen, made, share, head, config, config.steps)
    if show is not None:
        show(total, total)
    protocol: dict[str, Any] = {
        "training_frames": len(codes),
        "share_of_made_up_faces": share,
        "cross_validation_error": {
            str(s): round(float(np.mean(e)), 5) for s, e in errors.items() if e
        },
        "training_error": round(network.error(seen), 5),
        "raw_scores_error_of_training_frames": code_errors(None, readings, wanted, head)[
            "raw_scores"
        ],
        "seed": config.seed,
    }
    _LOG.info(
        "regressor: %d frames, mean error %.4f (raw scores: %.4f), made-up faces count %.0f %%",
        len(codes), protocol["training_error"],
        protocol["raw_scores_error_of_training_frames"], 100 * share,
    )  # fmt: skip
    typical = typical_landmarks(mean, readings.landmarks)
    return CodeRegressor(network.graph(), mean, typical, protocol)


def _is_arkit(head: HeadModel) -> bool:
    return head.expression_names == ARKIT_NAMES


def _check_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("onnx", "training the regressor", "training") from error


@dataclass(frozen=True)
class _Faces:
    features: NDArray[np.float32]  # [N, 1486]
    codes: NDArray[np.float32]  # [N, E]

    def part(self, index: NDArray[np.int64]) -> _Faces:
        return _Faces(self.features[index], self.codes[index])


class _Maker:
    """Makes faces up from training frames."""

    def __init__(
        self,
        head: HeadModel,
        rest: Tensor,
        mean: NDArray[np.float32],
        readings: Readings,
        codes: NDArray[np.float32],
        seen: _Faces,
    ) -> None:
        self._head, self._rest, self._mean = head, rest, mean
        self._embedding = load_landmark_embedding(head)
        self._codes = codes
        self._rotations = head_rotations(mean.astype(np.float64), readings.landmarks)
        self._scores = readings.scores
        none = np.zeros_like(readings.scores)
        # What the landmarks of each frame are off by: the person, the view, the landmarker.
        self._landmark_errors = seen.features - self._features(codes, self._rotations, none)

    def make(self, frames: NDArray[np.int64], count: int, score_noise: float, seed: int) -> _Faces:
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
        return _Faces(features, codes)

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


class _Network:
    """Principal components, then two hidden layers."""

    def __init__(self, project: nn.Linear, layers: nn.Sequential, head: HeadModel) -> None:
        self._project = project
        self._layers = layers
        self._low, self._high = head.code_low, head.code_high

    @classmethod
    def fit(
        cls,
        seen: _Faces,
        made: _Faces | None,
        share: float,
        head: HeadModel,
        config: RegressorConfig,
        steps: int,
    ) -> _Network:
        """Train; made-up faces are ``share`` of each batch."""
        parts, weights = [seen], [np.full(len(seen.codes), (1 - share) / len(seen.codes))]
        if made is not None and share > 0:
            parts.append(made)
            weights.append(np.full(len(made.codes), share / len(made.codes)))
        features = np.concatenate([part.features for part in parts]).astype(np.float64)
        weight = np.concatenate(weights)
        weight /= weight.sum()
        mean = weight @ features
        weighted = (features - mean) * np.sqrt(weight)[:, None]
        # Eigenvectors of the covariance: three times quicker than a singular value decomposition.
        first = NUM_FEATURES - min(config.components, len(features))
        _, directions = eigh(weighted.T @ weighted, subset_by_index=(first, NUM_FEATURES - 1))
        basis = directions.T * _WHITEN
        project = nn.Linear(NUM_FEATURES, len(basis))
        project.weight.data = torch.from_numpy(basis).float()
        project.bias.data = torch.from_numpy(-(basis @ mean)).float()
        inputs = torch.from_numpy((features - mean) @ basis.T).float()
        codes = torch.from_numpy(np.concatenate([part.codes for part in parts]))
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(config.seed)
            layers = nn.Sequential(
                nn.Linear(len(basis), config.hidden), nn.SiLU(),
                nn.Linear(config.hidden, config.hidden), nn.SiLU(),
                nn.Linear(config.hidden, codes.shape[1]),
            )  # fmt: skip
            optimizer = torch.optim.AdamW(
                layers.parameters(), config.rate, weight_decay=config.weight_decay
            )
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, config.rate, total_steps=max(steps, 2)
            )
            chance = torch.from_numpy(weight)
            for _ in range(steps):
                batch = torch.multinomial(chance, config.batch, replacement=True)
                noisy = inputs[batch] + config.noise * torch.randn(config.batch, len(basis))
                loss = nn.functional.smooth_l1_loss(layers(noisy), codes[batch], beta=0.03)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        return cls(project, layers, head)

    @torch.no_grad()
    def error(self, faces: _Faces) -> float:
        """Mean absolute error of the codes."""
        value = self._layers(self._project(torch.from_numpy(faces.features)))
        held = value.clamp(self._low, self._high)
        return float((held - torch.from_numpy(faces.codes)).abs().mean())

    def graph(self) -> bytes:
        """The network as an ONNX model."""
        from onnx import TensorProto, checker, helper, numpy_helper

        nodes, values, before = [], [], INPUT
        linear = [m for m in (self._project, *self._layers) if isinstance(m, nn.Linear)]
        for number, layer in enumerate(linear):
            for name, tensor in (("w", layer.weight), ("b", layer.bias)):
                array = np.ascontiguousarray(tensor.detach().numpy(), np.float32)
                values.append(numpy_helper.from_array(array, f"{name}{number}"))
            after = f"linear{number}"
            nodes.append(
                helper.make_node("Gemm", [before, f"w{number}", f"b{number}"], [after], transB=1)
            )
            before = after
            if 0 < number < len(linear) - 1:
                nodes.append(helper.make_node("Sigmoid", [before], [f"gate{number}"]))
                nodes.append(helper.make_node("Mul", [before, f"gate{number}"], [f"on{number}"]))
                before = f"on{number}"
        largest = float(np.finfo(np.float32).max)
        for name, bound in (("low", self._low), ("high", self._high)):
            finite = np.clip(bound.numpy(), -largest, largest).astype(np.float32)
            values.append(numpy_helper.from_array(finite, name))
        nodes.append(helper.make_node("Max", [before, "low"], ["above"]))
        nodes.append(helper.make_node("Min", ["above", "high"], [OUTPUT]))
        size = linear[-1].out_features
        graph = helper.make_graph(
            nodes,
            "code_regressor",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["T", NUM_FEATURES])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["T", size])],
            values,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="cag_avatar",
        )
        checker.check_model(model)
        return bytes(model.SerializeToString())
