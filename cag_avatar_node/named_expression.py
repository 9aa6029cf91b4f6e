"""Named expressions, and valence with arousal, as ARKit coefficients.

The names are those of hri_msgs/Expression (REP 155). The six basic ones follow the action units
that Ekman and Friesen's EMFACS gives for them (happy 6 + 12, sad 1 + 4 + 15, surprised 1 + 2 + 5 +
26, scared 1 + 2 + 4 + 5 + 20, angry 4 + 5 + 7 + 23, disgusted 9 + 15), written as the ARKit
coefficients that move the same muscles; the others are set beside them by judgement.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_INDEX, ARKIT_NAMES

__all__ = ["EXPRESSION_NAMES", "named_expression", "valence_arousal_expression"]

#: Coefficients of each name; one without Left or Right means both sides.
_NAMED: dict[str, dict[str, float]] = {
    "neutral": {},
    "angry": {"browDown": 0.8, "eyeSquint": 0.4, "eyeWide": 0.2, "noseSneer": 0.3,
              "mouthPress": 0.5, "mouthFrown": 0.3},
    "sad": {"browInnerUp": 0.7, "mouthFrown": 0.7, "mouthShrugLower": 0.3, "eyeSquint": 0.2},
    "happy": {"mouthSmile": 0.75, "cheekSquint": 0.5, "eyeSquint": 0.3, "mouthDimple": 0.2},
    "surprised": {"browInnerUp": 0.7, "browOuterUp": 0.7, "eyeWide": 0.7, "jawOpen": 0.35},
    "disgusted": {"noseSneer": 0.8, "mouthUpperUp": 0.4, "browDown": 0.4, "mouthFrown": 0.4,
                  "eyeSquint": 0.3},
    "scared": {"browInnerUp": 0.8, "browOuterUp": 0.4, "eyeWide": 0.7, "mouthStretch": 0.5,
               "jawOpen": 0.15},
    "pleading": {"browInnerUp": 0.8, "eyeWide": 0.3, "mouthPucker": 0.1, "mouthFrown": 0.2},
    "vulnerable": {"browInnerUp": 0.6, "mouthFrown": 0.3, "mouthRollLower": 0.2},
    "despaired": {"browInnerUp": 0.9, "mouthFrown": 0.8, "eyeSquint": 0.4, "jawOpen": 0.15},
    "guilty": {"browInnerUp": 0.5, "mouthFrown": 0.3, "mouthPress": 0.3, "eyeLookDown": 0.5},
    "disappointed": {"browInnerUp": 0.4, "mouthFrown": 0.5, "mouthPress": 0.2,
                     "eyeLookDown": 0.2},
    "embarrassed": {"mouthSmile": 0.3, "mouthPress": 0.4, "browInnerUp": 0.4,
                    "eyeLookDown": 0.4},
    "horrified": {"browInnerUp": 0.9, "browOuterUp": 0.6, "eyeWide": 0.9, "mouthStretch": 0.5,
                  "jawOpen": 0.45},
    "skeptical": {"browOuterUpLeft": 0.7, "browDownRight": 0.5, "mouthPress": 0.3,
                  "eyeSquintRight": 0.4},
    "annoyed": {"browDown": 0.5, "mouthPress": 0.5, "eyeSquint": 0.3},
    "furious": {"browDown": 1.0, "eyeWide": 0.4, "noseSneer": 0.6, "mouthPress": 0.7,
                "mouthFrown": 0.4},
    "suspicious": {"browDown": 0.4, "eyeSquint": 0.7, "mouthPress": 0.3},
    "rejected": {"browInnerUp": 0.6, "mouthFrown": 0.6, "eyeLookDown": 0.3},
    "bored": {"eyeBlink": 0.3, "mouthFrown": 0.2, "mouthPress": 0.2},
    "tired": {"eyeBlink": 0.5, "browInnerUp": 0.2, "mouthFrown": 0.2, "jawOpen": 0.05},
    "asleep": {"eyeBlink": 1.0, "jawOpen": 0.05},
    "confused": {"browDownLeft": 0.5, "browOuterUpRight": 0.6, "browInnerUp": 0.2,
                 "mouthPress": 0.2, "mouthLeft": 0.2},
    "amazed": {"browInnerUp": 0.6, "browOuterUp": 0.6, "eyeWide": 0.6, "jawOpen": 0.3,
               "mouthSmile": 0.4},
    "excited": {"mouthSmile": 0.85, "cheekSquint": 0.4, "browOuterUp": 0.4, "browInnerUp": 0.3,
                "eyeWide": 0.3, "jawOpen": 0.2},
}  # fmt: skip

#: Names that :func:`named_expression` knows.
EXPRESSION_NAMES: tuple[str, ...] = tuple(_NAMED)


def _code(coefficients: dict[str, float]) -> NDArray[np.float32]:
    code = np.zeros(len(ARKIT_NAMES), np.float32)
    for name, value in coefficients.items():
        names = (name,) if name in ARKIT_INDEX else (f"{name}Left", f"{name}Right")
        for side in names:
            code[ARKIT_INDEX[side]] = value
    return code


def named_expression(name: str) -> NDArray[np.float32]:
    """ARKit coefficients float32 [52], in [0, 1], of a name; case does not matter.

    Raises:
        InputError: an unknown name.
    """
    found = _NAMED.get(name.strip().lower())
    if found is None:
        raise InputError(f"expression {name[:40]!r} is unknown: {', '.join(EXPRESSION_NAMES)}")
    return _code(found)


def valence_arousal_expression(valence: float, arousal: float) -> NDArray[np.float32]:
    """ARKit coefficients float32 [52], in [0, 1], of a place in the circumplex (Russell, 1980).

    The four corners are excited (+, +), a quiet smile (+, -), angry and scared half each (-, +) and
    sad (-, -); between them the corners are mixed bilinearly, so that the middle is neutral.

    Args:
        valence: from -1 (unpleasant) to 1 (pleasant); clamped.
        arousal: from -1 (sleepy) to 1 (excited); clamped.

    Raises:
        InputError: NaN or infinity.
    """
    if not (np.isfinite(valence) and np.isfinite(arousal)):
        raise InputError(f"valence {valence} and arousal {arousal} must be finite: from -1 to 1")
    v, a = (float(np.clip(value, -1.0, 1.0)) for value in (valence, arousal))
    calm_smile = _code({"mouthSmile": 0.5, "eyeBlink": 0.15, "cheekSquint": 0.3})
    tense = 0.5 * (named_expression("angry") + named_expression("scared"))
    pleasant = (1 + a) / 2 * named_expression("excited") + (1 - a) / 2 * calm_smile
    unpleasant = (1 + a) / 2 * tense + (1 - a) / 2 * named_expression("sad")
    code = max(v, 0.0) * pleasant + max(-v, 0.0) * unpleasant
    # Without valence, arousal opens or closes the eyes.
    left = 1 - abs(v)
    code = code + left * max(a, 0.0) * _code({"eyeWide": 0.5, "browOuterUp": 0.4})
    code = code + left * max(-a, 0.0) * named_expression("tired")
    return np.clip(code, 0.0, 1.0).astype(np.float32)
