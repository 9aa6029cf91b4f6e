"""Names, valence and arousal as ARKit coefficients."""

from __future__ import annotations

import numpy as np
import pytest

from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_INDEX
from cag_avatar_node.named_expression import (
    EXPRESSION_NAMES,
    named_expression,
    valence_arousal_expression,
)

#: The string constants of hri_msgs/Expression.
HRI_NAMES = [
    "neutral", "angry", "sad", "happy", "surprised", "disgusted", "scared", "pleading",
    "vulnerable", "despaired", "guilty", "disappointed", "embarrassed", "horrified", "skeptical",
    "annoyed", "furious", "suspicious", "rejected", "bored", "tired", "asleep", "confused",
    "amazed", "excited",
]  # fmt: skip


def of(code: np.ndarray, name: str) -> float:
    return float(code[ARKIT_INDEX[name]])


def test_every_name_of_the_message_is_a_face_of_its_own() -> None:
    assert sorted(EXPRESSION_NAMES) == sorted(HRI_NAMES)
    codes = np.stack([named_expression(name) for name in HRI_NAMES])
    assert codes.shape == (25, 52)
    assert codes.dtype == np.float32
    assert codes.min() >= 0
    assert codes.max() <= 1
    distances = np.abs(codes[:, None] - codes[None]).max(-1)
    assert distances[~np.eye(25, dtype=bool)].min() > 0.1
    assert not named_expression("neutral").any()


def test_some_faces() -> None:
    happy = named_expression(" Happy ")
    assert of(happy, "mouthSmileLeft") == of(happy, "mouthSmileRight") > 0.5
    assert of(happy, "mouthFrownLeft") == 0
    assert of(named_expression("asleep"), "eyeBlinkRight") == 1
    assert of(named_expression("skeptical"), "browOuterUpLeft") > 0
    assert of(named_expression("skeptical"), "browOuterUpRight") == 0
    with pytest.raises(InputError, match="'merry' is unknown: neutral, angry"):
        named_expression("merry")


def test_the_circumplex() -> None:
    assert not valence_arousal_expression(0.0, 0.0).any()
    np.testing.assert_allclose(valence_arousal_expression(1, 1), named_expression("excited"))
    np.testing.assert_allclose(valence_arousal_expression(-9, -9), named_expression("sad"))
    half = valence_arousal_expression(0.5, 0.0)
    assert 0 < of(half, "mouthSmileLeft") < of(valence_arousal_expression(1, 0), "mouthSmileLeft")
    assert of(valence_arousal_expression(0, 1), "eyeWideLeft") > 0.3
    assert of(valence_arousal_expression(0, -1), "eyeBlinkLeft") > 0.3
    for bad in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="must be finite"):
            valence_arousal_expression(bad, 0.0)


def test_it_changes_smoothly() -> None:
    grid = np.linspace(-1, 1, 41)
    codes = np.stack([[valence_arousal_expression(v, a) for a in grid] for v in grid])
    assert np.abs(np.diff(codes, axis=0)).max() < 0.06
    assert np.abs(np.diff(codes, axis=1)).max() < 0.06
