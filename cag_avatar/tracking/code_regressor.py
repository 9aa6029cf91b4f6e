"""One person's expression code straight from MediaPipe's landmarks and scores.

A small network in ONNX, trained on the frames that the person's avatar was trained on: so its codes
mean what that avatar has learned. For other people it means nothing; :meth:`CodeRegressor.distance`
tells how much a face is that person's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.tracking.face_landmarker import FACE_LANDMARKS, NUM_LANDMARKS
from cag_avatar.tracking.landmark_correction import frontal_landmarks

__all__ = [
    "INPUT",
    "NUM_FEATURES",
    "NUM_SCORES",
    "OUTPUT",
    "OWN_DISTANCE",
    "CodeRegressor",
    "regressor_features",
    "typical_distance",
    "typical_landmarks",
]

NUM_SCORES = 52
#: Length of a feature vector: three coordinates of each landmark, then the scores.
NUM_FEATURES = 3 * NUM_LANDMARKS + NUM_SCORES
#: Names of the graph's input [T, NUM_FEATURES] and output [T, E], float32.
INPUT, OUTPUT = "features", "code"
#: Scales that bring metres and scores to a like size.
_CENTIMETRE, _SCORE = 0.01, 4.0
#: Landmarks of the oval, the nose and the eyes' corners move least with the expression: they tell
#: persons apart.
_STILL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 127, 162, 21, 54, 103, 67, 109, 234, 93,
    168, 6, 197, 195, 5, 4, 1, 33, 133, 362, 263,
)  # fmt: skip
#: Distance (metres) up to which a face counts as the person's own. MediaPipe places the landmarks
#: of one person 0.4 to 0.8 mm apart in two stretches of a clip, those of two persons 0.7 to 3.5 mm.
OWN_DISTANCE = 0.0009
#: Only faces that look so far (radians) past the camera at most are compared, and at least so many.
_FACING, _COMPARED = 0.2, 10


def regressor_features(
    mean: NDArray[np.floating],
    landmarks: NDArray[np.floating],
    scores: NDArray[np.floating],
) -> NDArray[np.float32]:
    """The network's input, [T, 1486]: landmarks freed of the head's pose, and scores.

    Args:
        mean: landmarks of the person's rest head, canonical space, metres, [468, 3].
        landmarks: MediaPipe's, pixels, [T, 478, 3].
        scores: MediaPipe's, [T, 52].
    """
    points, _ = frontal_landmarks(np.asarray(mean, np.float64), landmarks)
    parts = [points.reshape(len(points), -1) / _CENTIMETRE, np.asarray(scores) * _SCORE]
    return np.concatenate(parts, 1).astype(np.float32)


def typical_landmarks(
    mean: NDArray[np.floating], landmarks: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Median of pose-free landmarks [478, 3] (metres) over the frames that face the camera, or over
    all where those are too few; arguments as for :func:`regressor_features`."""
    found, away = frontal_landmarks(np.asarray(mean, np.float64), landmarks)
    facing = away < _FACING
    enough = np.count_nonzero(facing) >= _COMPARED
    return np.asarray(np.median(found[facing] if enough else found, axis=0), np.float32)


def typical_distance(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Distance of two typical faces [478, 3], metres: see CodeRegressor.distance()."""
    still = list(_STILL)
    offset = np.asarray(one[still, :2] - other[still, :2], np.float64)
    return float(np.sqrt(np.square(offset - offset.mean(0)).sum(1).mean()))


@dataclass(frozen=True)
class CodeRegressor:
    """The network of one avatar; not for several threads at once."""

    graph: bytes
    """ONNX model: ``features`` [T, 1486] float32 -> ``code`` [T, E] float32."""
    mean: NDArray[np.float32]
    """Landmarks of the person's rest head, canonical space, metres, [468, 3]."""
    typical: NDArray[np.float32]
    """The person's face in the training frames, as of typical_landmarks(), [478, 3]."""
    protocol: dict[str, Any] = field(default_factory=dict)
    """How it was trained and how well it did, as plain JSON values."""
    _sessions: list[Any] = field(default_factory=list, repr=False, compare=False)

    def codes(
        self, landmarks: NDArray[np.floating], scores: NDArray[np.floating]
    ) -> NDArray[np.float32]:
        """Codes [T, E] of landmarks [T, 478, 3] (pixels) and scores [T, 52].

        Raises:
            MissingDependencyError: onnxruntime is not installed.
            InputError: the graph is damaged.
        """
        features = regressor_features(self.mean, landmarks, scores)
        result = self._session().run([OUTPUT], {INPUT: features})[0]
        return np.asarray(result, np.float32)

    def distance(self, landmarks: NDArray[np.floating]) -> float:
        """How far the typical face of frames [T, 478, 3] (pixels) is from this person's, metres.

        Root mean square over landmarks that move little with the expression, of medians over the
        frames that face the camera; infinity if those are fewer than 10. A hint, not a proof.
        """
        found, away = frontal_landmarks(self.mean.astype(np.float64), landmarks)
        facing = away < _FACING
        if np.count_nonzero(facing) < _COMPARED:
            return float("inf")
        return typical_distance(np.median(found[facing], axis=0), self.typical)

    def is_own(self, landmarks: NDArray[np.floating]) -> bool:
        """Whether frames [T, 478, 3] (pixels) seem to show the person it was trained for."""
        return self.distance(landmarks) <= OWN_DISTANCE

    @property
    def irises_in_pictures(self) -> bool:
        """Whether it learned from irises found in the pictures instead of the landmarker's."""
        return bool(self.protocol.get("irises_in_pictures", False))

    @property
    def coefficients(self) -> int:
        """Number of coefficients E. Raises as :meth:`codes`."""
        return int(self._session().get_outputs()[0].shape[-1])

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Its arrays, for a file."""
        return {
            "graph": np.frombuffer(self.graph, np.uint8).copy(),
            "mean": np.ascontiguousarray(self.mean, np.float32),
            "typical": np.ascontiguousarray(self.typical, np.float32),
        }

    @classmethod
    def of_tensors(
        cls, arrays: Mapping[str, NDArray[Any]], protocol: Mapping[str, Any], where: str
    ) -> CodeRegressor:
        """Inverse of :meth:`tensors`. Raises InputError naming ``where`` and the tensor.

        The graph is not looked into before it is used.
        """
        shapes: dict[str, tuple[type, tuple[int, ...]]] = {
            "graph": (np.uint8, (-1,)),
            "mean": (np.float32, (FACE_LANDMARKS, 3)),
            "typical": (np.float32, (NUM_LANDMARKS, 3)),
        }
        for name in sorted(arrays.keys() - shapes.keys()):
            raise InputError(f"{where}: unexpected tensor 'regressor.{name}'")
        for name, (dtype, shape) in shapes.items():
            if name not in arrays:
                raise InputError(f"{where}: tensor 'regressor.{name}' is missing")
            array = arrays[name]
            fits = array.ndim == len(shape) and (shape[0] < 0 or array.shape == shape)
            if array.dtype != dtype or not fits or not array.size:
                raise InputError(
                    f"{where}: tensor 'regressor.{name}' is {array.dtype} {list(array.shape)}"
                )
            if not np.isfinite(array).all():
                raise InputError(f"{where}: tensor 'regressor.{name}' holds NaN or infinity")
        return cls(arrays["graph"].tobytes(), arrays["mean"], arrays["typical"], dict(protocol))

    def __deepcopy__(self, memo: dict[int, Any]) -> CodeRegressor:
        return self  # nothing in it changes, and sessions cannot be copied

    def _session(self) -> Any:
        if not self._sessions:
            try:
                import onnxruntime
            except ImportError as error:
                raise MissingDependencyError(
                    "onnxruntime", "the avatar's own regressor", "tracking"
                ) from error
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1  # it is smaller than the cost of waking threads
            options.log_severity_level = 3
            try:
                session = onnxruntime.InferenceSession(
                    self.graph, options, providers=["CPUExecutionProvider"]
                )
                inputs = [(i.name, i.shape[-1]) for i in session.get_inputs()]
                outputs = [o.name for o in session.get_outputs()]
            except Exception as error:  # its exceptions have no common base
                raise InputError(f"regressor: the graph is damaged ({error})") from error
            if inputs != [(INPUT, NUM_FEATURES)] or outputs != [OUTPUT]:
                raise InputError(
                    f"regressor: the graph maps {inputs} to {outputs}, not "
                    f"{[(INPUT, NUM_FEATURES)]} to {[OUTPUT]}; train it again"
                )
            self._sessions.append(session)
        return self._sessions[0]
