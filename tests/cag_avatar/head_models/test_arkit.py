from __future__ import annotations

from cag_avatar.head_models.arkit import ARKIT_INDEX, ARKIT_NAMES


def test_names_are_apples_52_in_apples_order() -> None:
    assert len(ARKIT_NAMES) == len(set(ARKIT_NAMES)) == 52
    # Positions in the list of ARFaceAnchor.BlendShapeLocation.
    landmarks = {
        "eyeBlinkLeft": 0, "eyeWideLeft": 6, "eyeBlinkRight": 7, "eyeWideRight": 13,
        "jawForward": 14, "jawOpen": 17, "mouthClose": 18, "mouthRight": 22, "mouthSmileLeft": 23,
        "mouthStretchRight": 30, "mouthRollLower": 31, "mouthShrugUpper": 34,
        "mouthPressLeft": 35, "mouthUpperUpRight": 40, "browDownLeft": 41, "browInnerUp": 43,
        "cheekPuff": 46, "noseSneerRight": 50, "tongueOut": 51,
    }  # fmt: skip
    assert {name: ARKIT_NAMES.index(name) for name in landmarks} == landmarks


def test_every_left_has_a_right() -> None:
    left = {n[: -len("Left")] for n in ARKIT_NAMES if n.endswith("Left")}
    right = {n[: -len("Right")] for n in ARKIT_NAMES if n.endswith("Right")}
    assert left == right


def test_index_inverts_the_names() -> None:
    assert [ARKIT_INDEX[name] for name in ARKIT_NAMES] == list(range(52))
