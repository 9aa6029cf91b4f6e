"""How a synthetic person moves: speech, expressions, blinks, gaze, head and torso."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from cag_avatar_training.synthetic.config import SynthesisConfig
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from cag_avatar.geometry import rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX, ARKIT_NAMES

__all__ = ["Motion", "perform"]

Array = NDArray[np.float64]

#: Where the canonical origin stands when nobody moves: camera axes, metres.
BASE_POSITION = (0.0, -0.012, 0.86)

#: Points about which the head and the torso turn, canonical space.
_HEAD_PIVOT = np.array([0.0, -0.085, -0.075])
_TORSO_PIVOT = np.array([0.0, -0.45, -0.08])

#: Full range of head rotation about x (pitch), y (yaw) and z (roll), degrees.
_HEAD_RANGE = np.array([15.0, 25.0, 8.0])
_TORSO_RANGE = np.array([1.6, 5.0, 2.2])

#: Eye rotation at a coefficient of 1 (as in HeadModel.gaze) and the farthest anyone looks, degrees.
_GAZE_UNIT = (35.0, 25.0)
_GAZE_LIMIT = (26.0, 15.0)

#: Mouth shapes of speech; a name without Left or Right stands for both sides.
_VISEMES: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.42, "mouthLowerDown": 0.25, "mouthUpperUp": 0.22},  # "ah"
    {"jawOpen": 0.27, "mouthStretch": 0.2, "mouthLowerDown": 0.3, "mouthUpperUp": 0.3},  # "eh"
    {"jawOpen": 0.10, "mouthSmile": 0.25, "mouthStretch": 0.3, "mouthUpperUp": 0.42,
     "mouthLowerDown": 0.4},  # "ee"
    {"jawOpen": 0.32, "mouthFunnel": 0.5, "mouthPucker": 0.15},  # "oh"
    {"jawOpen": 0.12, "mouthPucker": 0.65, "mouthFunnel": 0.25},  # "oo"
    {"mouthPress": 0.4, "mouthRollLower": 0.2, "mouthRollUpper": 0.15},  # "m", "b", "p"
    {"jawOpen": 0.07, "mouthRollLower": 0.45, "mouthUpperUp": 0.4},  # "f", "v"
    {"jawOpen": 0.20, "mouthUpperUp": 0.25, "mouthLowerDown": 0.2},  # "l", "th"
    {"jawOpen": 0.05, "mouthStretch": 0.25, "mouthUpperUp": 0.4, "mouthLowerDown": 0.4},  # "s"
    {"jawOpen": 0.13, "mouthFunnel": 0.35, "mouthShrugUpper": 0.15},  # "r", "sh"
)  # fmt: skip

_SMILE = {"mouthSmile": 0.95, "cheekSquint": 0.6, "eyeSquint": 0.35, "mouthUpperUp": 0.35,
          "mouthLowerDown": 0.18, "mouthDimple": 0.25}  # fmt: skip
_BROW_RAISE = {"browInnerUp": 0.9, "browOuterUp": 0.8, "eyeWide": 0.3}
_FROWN = {"browDown": 0.9, "eyeSquint": 0.3, "noseSneer": 0.25, "mouthFrown": 0.3}

_GASP = {"jawOpen": 0.75, "browInnerUp": 0.6, "eyeWide": 0.6, "mouthFunnel": 0.2}

#: Rarer gestures, dealt out in turn.
_OTHERS: tuple[dict[str, float], ...] = (
    {"noseSneer": 0.8, "mouthUpperUp": 0.5, "browDown": 0.4},
    {"mouthPucker": 0.85, "mouthFunnel": 0.2},
    {"mouthLeft": 0.6, "jawLeft": 0.3},
    {"mouthFrown": 0.7, "mouthShrugLower": 0.5, "browInnerUp": 0.5},
    {"mouthRight": 0.6, "jawRight": 0.3},
    {"cheekPuff": 0.8, "mouthPress": 0.4},
    {"mouthStretch": 0.6, "jawOpen": 0.25, "eyeWide": 0.5, "browInnerUp": 0.4},
    {"mouthRollLower": 0.6, "mouthRollUpper": 0.5, "mouthPress": 0.3},
    {"jawForward": 0.6, "mouthShrugUpper": 0.3, "mouthClose": 0.1},
    {"mouthSmileLeft": 0.8, "mouthDimpleLeft": 0.4, "browOuterUpRight": 0.5},
    {"mouthSmileRight": 0.8, "mouthDimpleRight": 0.4, "browOuterUpLeft": 0.5},
    _GASP,
)


@dataclass(frozen=True)
class Motion:
    """A performance of T frames."""

    codes: NDArray[np.float32]
    """ARKIT_NAMES coefficients in [0, 1], [T, 52]."""
    head_pose: NDArray[np.float32]
    """Canonical to camera space, [T, 4, 4]."""
    torso_pose: NDArray[np.float32]
    """Canonical to camera space, [T, 4, 4]."""


def perform(config: SynthesisConfig) -> Motion:
    """Move for ``config.seconds``.

    The clip is cut into at least five cycles of some seconds; every cycle holds a smile, a brow
    raise, a frown and a rarer gesture in random order, and the head crosses its range about once a
    cycle, so any fifth of the clip moves like the rest. Everything depends on the seed alone.
    """
    rng = np.random.default_rng([config.seed, 2])
    time = np.arange(config.num_frames) / config.fps
    cycle = config.seconds / max(5, round(config.seconds / 4.0))
    track = _Track(len(time), config.fps)

    lively = {"talk": 1.0, "expressions": 1.0, "still": 0.0}[config.motion]
    if config.motion == "talk":
        _speak(track, rng, config.seconds)
    if lively:
        _gesture(track, rng, cycle, config)
    _breathe(track, rng)
    codes = gaussian_filter1d(track.codes, max(0.032 * config.fps, 1e-3), axis=0, mode="nearest")

    turns = config.head_turns * (1.0 if lively else 0.12)
    rotation = _wander(rng, time, cycle, 3) * _HEAD_RANGE * turns
    if config.motion == "talk":
        rotation[:, 0] = np.clip(
            rotation[:, 0] + 1.5 * turns * _wander(rng, time, 0.9, 1)[:, 0], -15, 15
        )
    codes += _look(rng, time, rotation, lively)
    codes += _blink(rng, time, config.seconds)
    head, torso = _place(rng, time, cycle, rotation, turns)
    return Motion(np.clip(codes, 0, 1).astype(np.float32), head, torso)


class _Track:
    """Coefficients over time; gestures add up."""

    def __init__(self, frames: int, fps: float) -> None:
        self.codes = np.zeros((frames, len(ARKIT_NAMES)))
        self.time = np.arange(frames) / fps

    def add(self, shape: dict[str, float], envelope: Array) -> None:
        for name, value in shape.items():
            for full in _sides(name):
                self.codes[:, ARKIT_INDEX[full]] += value * envelope

    def soften(self, envelope: Array, prefixes: tuple[str, ...]) -> None:
        """Scale the coefficients whose names start so by ``envelope``."""
        for name, i in ARKIT_INDEX.items():
            if name.startswith(prefixes):
                self.codes[:, i] *= envelope


def _sides(name: str) -> tuple[str, ...]:
    return (name,) if name in ARKIT_INDEX else (f"{name}Left", f"{name}Right")


def _speak(track: _Track, rng: np.random.Generator, seconds: float) -> None:
    """Phrases of visemes, with pauses between."""
    t = -rng.uniform(0, 1.5)
    while t < seconds:
        end = t + rng.uniform(1.2, 3.2)
        loud = rng.uniform(0.75, 1.15)
        while t < end:
            length = rng.uniform(0.09, 0.19)
            centre, sigma = t + length / 2, length * 0.55
            envelope = np.exp(-0.5 * ((track.time - centre) / sigma) ** 2)
            track.add(_VISEMES[rng.integers(len(_VISEMES))], 0.85 * loud * envelope)
            t += length
        t = end + rng.uniform(0.25, 0.8)


def _gesture(
    track: _Track, rng: np.random.Generator, cycle: float, config: SynthesisConfig
) -> None:
    """A smile, a brow raise, a frown and a rarer gesture in every cycle."""
    # In a short clip few of the rarer gestures occur, but each of them more than once.
    cycles = round(config.seconds / cycle)
    deck = rng.permutation(len(_OTHERS))[: max(2, cycles // 3)]
    acted = config.motion == "expressions"
    slots = 6 if acted else 4
    dealt = 0
    for number in range(-1, cycles + 1):
        shapes = [_SMILE, _BROW_RAISE, _FROWN]
        if acted:
            shapes.append(_GASP)
        while len(shapes) < slots:
            shapes.append(_OTHERS[deck[dealt % len(deck)]])
            dealt += 1
        for slot, which in enumerate(rng.permutation(slots)):
            shape = shapes[which]
            start = (number + (slot + rng.uniform(-0.1, 0.25)) / slots) * cycle
            length = min(cycle / slots * rng.uniform(0.95, 1.4), 2.4)
            envelope = _swell(track.time, start, length)
            strength = rng.uniform(0.55, 1.0)
            if shape is not _BROW_RAISE:
                track.soften(1 - 0.7 * envelope, ("jaw", "mouth"))
            track.add(_lopsided(shape, rng), strength * envelope)
            if shape is _SMILE:
                jaw = rng.choice([0.03, 0.12, 0.2])
                track.add({"jawOpen": float(jaw)}, strength * envelope)


def _lopsided(shape: dict[str, float], rng: np.random.Generator) -> dict[str, float]:
    """The same gesture with one side up to 15 % weaker."""
    out = {}
    for name, value in shape.items():
        for full in _sides(name):
            out[full] = value * (rng.uniform(0.85, 1.0) if name != full else 1.0)
    return out


def _swell(time: Array, start: float, length: float) -> Array:
    """Rises over a third of ``length``, holds, and falls."""
    edge = length / 3
    up = np.clip((time - start) / edge, 0, 1)
    down = np.clip((start + length - time) / edge, 0, 1)
    t = np.minimum(up, down)
    return np.asarray(t * t * (3 - 2 * t))


def _breathe(track: _Track, rng: np.random.Generator) -> None:
    """Small drifts that keep a resting face alive."""
    for name in ("browInnerUp", "mouthSmile", "mouthPress", "eyeSquint", "mouthShrugLower"):
        drift = np.clip(0.04 + 0.05 * _wander(rng, track.time, 2.5, 1)[:, 0], 0, None)
        track.add({name: 1.0}, drift)


def _wander(rng: np.random.Generator, time: Array, period: float, channels: int) -> Array:
    """Smooth curves within [-1, 1] that cross their range about once a period, [T, channels]."""
    out = np.zeros((len(time), channels))
    for c in range(channels):
        for strength, ratio in ((0.56, 1.0), (0.28, 1.83), (0.16, 3.17)):
            rate = ratio * rng.uniform(0.85, 1.15) / max(period, 0.3)
            out[:, c] += strength * np.sin(2 * np.pi * (rate * time + rng.random()))
    return out


def _look(rng: np.random.Generator, time: Array, rotation: Array, lively: float) -> Array:
    """Saccades: mostly to the camera, against the head's turn, else somewhere near."""
    gaze = np.zeros((len(time), 2))  # yaw to the subject's left, pitch down; degrees, head frame
    t = 0.0
    while len(time) and t <= time[-1]:
        end = t + rng.uniform(0.45, 1.6)
        away = rng.random() < 0.45 * lively
        offset = rng.uniform([-22, -10], [22, 12]) if away else rng.normal(0, 1.0, 2)
        share = rng.uniform(0.35, 0.9) if away else 0.95
        span = (time >= t) & (time < end)
        gaze[span, 0] = offset[0] - share * rotation[span, 1]
        gaze[span, 1] = offset[1] - share * rotation[span, 0]
        t = end
    step = time[1] - time[0] if len(time) > 1 else 1.0
    gaze = gaussian_filter1d(gaze, max(0.018 / step, 1e-3), axis=0, mode="nearest")
    gaze = np.clip(gaze, [-_GAZE_LIMIT[0], -_GAZE_LIMIT[1]], _GAZE_LIMIT)
    codes = np.zeros((len(time), len(ARKIT_NAMES)))
    yaw, pitch = gaze[:, 0] / _GAZE_UNIT[0], gaze[:, 1] / _GAZE_UNIT[1]
    for name, value in (
        ("eyeLookOutLeft", yaw), ("eyeLookInRight", yaw), ("eyeLookInLeft", -yaw),
        ("eyeLookOutRight", -yaw), ("eyeLookDown", pitch), ("eyeLookUp", -pitch),
    ):  # fmt: skip
        for full in _sides(name):
            codes[:, ARKIT_INDEX[full]] = np.maximum(value, 0)
    return codes


def _blink(rng: np.random.Generator, time: Array, seconds: float) -> Array:
    """Blinks 2 to 5 seconds apart: shut in 80 ms, open again in 160."""
    codes = np.zeros((len(time), len(ARKIT_NAMES)))
    t = rng.uniform(0.3, 2.0)
    while t < seconds:
        closing = np.clip((time - t) / 0.08, 0, 1)
        opening = np.clip((t + 0.29 - time) / 0.16, 0, 1)
        shut = np.minimum(closing, opening)
        shut = shut * shut * (3 - 2 * shut) * rng.uniform(0.93, 1.0)
        for name in ("eyeBlinkLeft", "eyeBlinkRight"):
            codes[:, ARKIT_INDEX[name]] += shut
        t += rng.uniform(2.0, 5.0) if rng.random() > 0.12 else 0.45
    return codes


def _place(
    rng: np.random.Generator, time: Array, cycle: float, rotation: Array, turns: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Poses of head and torso: the head sits on the torso's neck and sways a little more."""
    flip = np.diag([1.0, -1.0, -1.0])
    sway = _wander(rng, time, 1.6 * cycle, 3) * [0.012, 0.004, 0.014] * turns
    torso_turn = _wander(rng, time, 1.9 * cycle, 3) * _TORSO_RANGE * turns
    torso_turn[:, 1] += 0.10 * rotation[:, 1]
    own = _wander(rng, time, 1.2 * cycle, 3) * [0.006, 0.004, 0.008] * turns
    head, torso = (np.tile(np.eye(4), (len(time), 1, 1)) for _ in range(2))
    torso[:, :3, :3] = flip @ _rotations(torso_turn)
    torso[:, :3, 3] = np.array(BASE_POSITION) + flip @ _TORSO_PIVOT + sway
    torso[:, :3, 3] -= torso[:, :3, :3] @ _TORSO_PIVOT
    head[:, :3, :3] = flip @ _rotations(rotation)
    neck = torso[:, :3, :3] @ _HEAD_PIVOT + torso[:, :3, 3]
    head[:, :3, 3] = neck + own - head[:, :3, :3] @ _HEAD_PIVOT
    return head.astype(np.float32), torso.astype(np.float32)


def _rotations(degrees: Array) -> Array:
    """Pitch about x, then yaw about y, then roll about z (canonical axes), [T, 3] -> [T, 3, 3]."""
    angles = torch.from_numpy(np.deg2rad(degrees))
    pitch, yaw, roll = (
        rotation_vector_to_matrix(angles[:, i : i + 1] * torch.eye(3, dtype=torch.float64)[i])
        for i in range(3)
    )
    return np.asarray((roll @ yaw @ pitch).numpy())
