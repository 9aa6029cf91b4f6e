"""The 52 ARKit blend shape names, the layout of the expression code."""

from __future__ import annotations

import math

__all__ = ["ARKIT_INDEX", "ARKIT_NAMES", "MAX_GAZE_PITCH", "MAX_GAZE_YAW", "arkit_source"]

_EYE = ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")
_MOUTH_PAIRS = ("Smile", "Frown", "Dimple", "Stretch")
_MOUTH_VERTICAL = ("Press", "LowerDown", "UpperUp")

#: Order of Apple's ARFaceAnchor.BlendShapeLocation documentation.
ARKIT_NAMES: tuple[str, ...] = (
    *(f"eye{n}Left" for n in _EYE),
    *(f"eye{n}Right" for n in _EYE),
    "jawForward", "jawLeft", "jawRight", "jawOpen",
    "mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight",
    *(f"mouth{n}{side}" for n in _MOUTH_PAIRS for side in ("Left", "Right")),
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    *(f"mouth{n}{side}" for n in _MOUTH_VERTICAL for side in ("Left", "Right")),
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight",
    "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip

#: Position of each name in the code.
ARKIT_INDEX: dict[str, int] = {name: i for i, name in enumerate(ARKIT_NAMES)}

#: Eyeball rotation, radians, that an eyeLook* coefficient of 1 stands for.
MAX_GAZE_YAW = math.radians(30.0)
MAX_GAZE_PITCH = math.radians(22.0)


def arkit_source(name: str) -> str | None:
    """The ARKit coefficient that drives one with this name; None if there is none.

    Takes ARKit's names and those with _L and _R (``browDown_L`` is browDownLeft; ``browInnerUp_L``
    is half of browInnerUp, which ARKit does not split).
    """
    candidates = [name]
    for suffix, side in (("_L", "Left"), ("_R", "Right")):
        if name.endswith(suffix):
            stem = name.removesuffix(suffix)
            candidates += [stem + side, stem]
    return next((c for c in candidates if c in ARKIT_INDEX), None)
