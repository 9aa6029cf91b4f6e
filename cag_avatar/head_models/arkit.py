"""The 52 ARKit blend shape names, the layout of the expression code."""

from __future__ import annotations

__all__ = ["ARKIT_INDEX", "ARKIT_NAMES"]

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
