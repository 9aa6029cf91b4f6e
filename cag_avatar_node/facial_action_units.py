"""ARKit coefficients and MediaPipe landmarks in the numbering of hri_msgs.

Action units have no sides and no asymmetry there: the stronger side counts. Only units that a
coefficient stands for are given; an emotion is not guessed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cag_avatar.head_models.arkit import ARKIT_INDEX

__all__ = ["ACTION_UNITS", "LANDMARKS", "action_units"]

#: Unit of the Facial Action Coding System: the coefficients whose largest it is.
ACTION_UNITS: dict[int, tuple[str, ...]] = {
    1: ("browInnerUp",),
    2: ("browOuterUpLeft", "browOuterUpRight"),
    4: ("browDownLeft", "browDownRight"),
    5: ("eyeWideLeft", "eyeWideRight"),
    6: ("cheekSquintLeft", "cheekSquintRight"),
    7: ("eyeSquintLeft", "eyeSquintRight"),
    9: ("noseSneerLeft", "noseSneerRight"),
    10: ("mouthUpperUpLeft", "mouthUpperUpRight"),
    12: ("mouthSmileLeft", "mouthSmileRight"),
    14: ("mouthDimpleLeft", "mouthDimpleRight"),
    15: ("mouthFrownLeft", "mouthFrownRight"),
    16: ("mouthLowerDownLeft", "mouthLowerDownRight"),
    17: ("mouthShrugLower",),
    18: ("mouthPucker",),
    20: ("mouthStretchLeft", "mouthStretchRight"),
    22: ("mouthFunnel",),
    24: ("mouthPressLeft", "mouthPressRight"),
    26: ("jawOpen",),
    28: ("mouthRollLower", "mouthRollUpper"),
    29: ("jawForward",),
    30: ("jawLeft", "jawRight"),
    45: ("eyeBlinkLeft", "eyeBlinkRight"),
    61: ("eyeLookOutLeft", "eyeLookInRight"),
    62: ("eyeLookInLeft", "eyeLookOutRight"),
    63: ("eyeLookUpLeft", "eyeLookUpRight"),
    64: ("eyeLookDownLeft", "eyeLookDownRight"),
}
_EYES = (5, 7, 45, 61, 62, 63, 64)
#: MediaPipe's landmark for each of hri_msgs/FacialLandmarks' 70: jaw line from the subject's right
#: to left, brows, nose, eyes, outer and inner lips, pupils.
LANDMARKS: tuple[int, ...] = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    *(78, 82, 13, 312, 308, 317, 14, 87),
    *(468, 473),
)


def action_units(
    code: NDArray[np.floating], confidence: float, eyes_valid: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Intensity [99] and confidence [99] of the action units of an ARKit code [52].

    The confidence of units that are not estimated is 0, as is that of the eyes' when they are not
    valid.
    """
    intensity, trust = np.zeros(99, np.float32), np.zeros(99, np.float32)
    for unit, names in ACTION_UNITS.items():
        intensity[unit] = max(float(code[ARKIT_INDEX[name]]) for name in names)
        trust[unit] = confidence if eyes_valid or unit not in _EYES else 0.0
    return intensity, trust
