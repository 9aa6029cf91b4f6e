"""Labels of drawn faces whose parts are known exactly."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from cag_avatar_training.matting import MatteConfig, make_parser
from cag_avatar_training.matting.parsing import (
    EYE_LEFT,
    EYE_RIGHT,
    INNER_LIP,
    OUTER_LIP,
    FaceParser,
    fill_contour,
    survey_teeth,
)
from cag_avatar_training.parts import PARSING_LABELS
from onnx import TensorProto, helper, numpy_helper

from cag_avatar.errors import InputError
from cag_avatar.head_models.base import REGIONS

WIDTH, HEIGHT = 200, 220
MOUTH, LEFT, RIGHT = (100.0, 150.0), (135.0, 80.0), (65.0, 80.0)
SKIN, LIP, DARK, TOOTH = (200, 150, 130), (170, 80, 85), (60, 25, 25), (215, 205, 190)
TONGUE = (235, 125, 125)  # as bright as a tooth in the shade, but red


def ellipse(contour, centre, radii) -> dict[int, tuple[float, float]]:
    """Landmarks around an ellipse, the first at its left end, as MediaPipe's contours begin."""
    angle = np.linspace(np.pi, -np.pi, len(contour), endpoint=False)
    return {
        index: (centre[0] + radii[0] * np.cos(a), centre[1] + radii[1] * np.sin(a))
        for index, a in zip(contour, angle, strict=True)
    }


def landmarks(opening=9.0, eye=7.0, shift=(0.0, 0.0)) -> np.ndarray:
    points = np.full((478, 3), 100.0, np.float32)
    for index in (50, 280, 205, 425, 36, 266, 101, 330):
        points[index, :2] = (60 if index % 2 else 140, 115)  # on the cheeks
    parts = {
        **ellipse(OUTER_LIP, MOUTH, (32, 10 + opening)),
        **ellipse(INNER_LIP, MOUTH, (24, opening)),
        **ellipse(EYE_LEFT, LEFT, (18, eye)),
        **ellipse(EYE_RIGHT, RIGHT, (18, eye)),
    }
    for index, place in parts.items():
        points[index, :2] = place
    points[:, :2] += np.float32(shift)
    return points


def draw(points: np.ndarray, teeth: bool, light: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(picture, where its teeth are)."""
    picture = np.full((HEIGHT, WIDTH, 3), SKIN, np.float32)
    picture[fill_contour(points[list(OUTER_LIP), :2], WIDTH, HEIGHT)] = LIP
    inside = fill_contour(points[list(INNER_LIP), :2], WIDTH, HEIGHT)
    picture[inside] = DARK
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    picture[inside & (rows > MOUTH[1] + 2) & (abs(columns - 100) < 8)] = TONGUE
    row = inside & (rows < MOUTH[1] - 2) & (abs(columns - 100) < 16) & teeth
    picture[row] = TOOTH
    picture += np.random.default_rng(1).normal(0, 2, picture.shape)
    return np.clip(picture * light, 0, 255).astype(np.uint8), row


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def part(plane: np.ndarray, name: str) -> np.ndarray:
    return plane == PARSING_LABELS.index(name)


ALPHA = np.full((HEIGHT, WIDTH), 255, np.uint8)


@pytest.fixture(scope="module")
def clip():
    """Six frames, the mouth shut, half open or open, under changing light."""
    points = np.stack([landmarks(opening) for opening in (0.5, 9, 5, 12, 0.5, 8)])
    pictures = [
        draw(p, teeth=True, light=light)[0]
        for p, light in zip(points, (1, 0.9, 1, 0.8, 1.05, 1), strict=True)
    ]
    return points, pictures


@pytest.mark.parametrize("light", [1.0, 0.75])
def test_labels_match_the_drawing(clip, light):
    points, pictures = clip
    parser = make_parser(pictures.__getitem__, points)
    face = landmarks(10.0)
    picture, teeth = draw(face, teeth=True, light=light)
    plane = parser.parse(picture, ALPHA, face)
    assert plane.dtype == np.uint8
    assert iou(part(plane, "teeth"), teeth) > 0.9
    inside = fill_contour(face[list(INNER_LIP), :2], WIDTH, HEIGHT)
    np.testing.assert_array_equal(part(plane, "teeth") | part(plane, "mouth_interior"), inside)
    mouth = fill_contour(face[list(OUTER_LIP), :2], WIDTH, HEIGHT)
    np.testing.assert_array_equal(part(plane, "lips"), mouth & ~inside)
    for name, centre in (("eye_left", LEFT), ("eye_right", RIGHT)):
        rows, columns = np.nonzero(part(plane, name))
        assert abs(columns.mean() + 0.5 - centre[0]) < 0.6
        assert abs(rows.mean() + 0.5 - centre[1]) < 0.6
        assert 0.75 < len(rows) / (np.pi * 18 * 7) < 1


def test_what_is_shut_has_no_inside(clip):
    points, pictures = clip
    parser = make_parser(pictures.__getitem__, points)
    face = landmarks(opening=0.5, eye=0.6)
    plane = parser.parse(draw(face, teeth=False)[0], ALPHA, face)
    assert set(np.unique(plane)) == {1, PARSING_LABELS.index("lips")}


def test_no_teeth_are_seen_in_a_clip_without():
    points = np.stack([landmarks(opening) for opening in (9, 5, 12)])
    assert survey_teeth(lambda i: draw(points[i], teeth=False)[0], points) is None
    shut = np.stack([landmarks(0.2)] * 3)
    assert survey_teeth(lambda i: draw(shut[i], teeth=False)[0], shut) is None


def test_background_is_where_the_matte_is_not():
    face = landmarks()
    alpha = ALPHA.copy()
    alpha[:, :40] = 100
    plane = FaceParser(None).parse(draw(face, False)[0], alpha, face)
    np.testing.assert_array_equal(plane[:, :40] == 0, True)
    assert (plane[:, 40:] > 0).all()


def test_lips_follow_the_fitted_head_only_near_the_landmarks():
    face = landmarks()
    head = np.full((HEIGHT, WIDTH), REGIONS.index("face_skin"))
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    head[(abs(columns - 100) < 28) & (rows > 150) & (rows < 200)] = REGIONS.index("lips")
    picture = draw(face, False)[0]
    alone = FaceParser(None).parse(picture, ALPHA, face)
    near = FaceParser(None, mouth_margin=0.06).parse(picture, ALPHA, face, head)
    none = FaceParser(None, mouth_margin=0.0).parse(picture, ALPHA, face, head)
    np.testing.assert_array_equal(none, alone)
    more = part(near, "lips") & ~part(alone, "lips")
    assert more.sum() > 60
    distance = cv2.distanceTransform((~part(alone, "lips")).astype(np.uint8), cv2.DIST_L2, 5)
    assert distance[more].max() < 0.06 * 64 + 1.5
    assert (part(alone, "lips") & ~part(near, "lips")).sum() == 0


def test_bad_input_is_named():
    face, picture = landmarks(), draw(landmarks(), False)[0]
    parser = FaceParser(None)
    with pytest.raises(InputError, match="shape"):
        parser.parse(picture, ALPHA, np.zeros((68, 2)))
    broken = face.copy()
    broken[61] = np.nan
    with pytest.raises(InputError, match="not finite"):
        parser.parse(picture, ALPHA, broken)
    with pytest.raises(InputError, match="differ in size"):
        parser.parse(picture[:-1], ALPHA, face)
    with pytest.raises(InputError, match="mouth_margin"):
        FaceParser(None, mouth_margin=-0.1)
    away = landmarks(shift=(-900.0, 0.0))
    assert (parser.parse(picture, ALPHA, away) == 1).all()


def write_bisenet(path: Path, classes: int = 19, size: int = 512, kind: int = TensorProto.FLOAT):
    """A network whose class is 4 in red, 5 in green, 11 in blue places and 12 in dark ones."""
    weights = np.zeros((classes, 3, 1, 1), np.float32)
    for label, colour in ((4, (1, -1, -1)), (5, (-1, 1, -1)), (11, (-1, -1, 1))):
        weights[label, :, 0, 0] = colour
    bias = np.full(classes, -100, np.float32)
    bias[[4, 5, 11]] = 0
    bias[12] = 4.0
    image = helper.make_tensor_value_info("picture", kind, [1, 3, size, size])
    logits = helper.make_tensor_value_info("logits", kind, [1, classes, size, size])
    graph = helper.make_graph(
        [helper.make_node("Conv", ["picture", "w", "b"], ["logits"])],
        "parser",
        [image],
        [logits],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


def test_a_network_may_label(tmp_path, clip):
    points, pictures = clip
    file = write_bisenet(tmp_path / "bisenet.onnx")
    parser = make_parser(pictures.__getitem__, points, MatteConfig(bisenet=file), workers=1)
    face = landmarks(10.0)
    # Both eyes in the network's colour of one eye: the landmarks tell them apart.
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for centre in (LEFT, RIGHT):
        cv2.circle(picture, (int(centre[0]), int(centre[1])), 9, (255, 0, 0), -1)
    cv2.circle(picture, (100, 150), 12, (0, 0, 255), -1)
    plane = parser.parse(picture, ALPHA, face)
    assert (plane[picture.any(-1) == 0] == PARSING_LABELS.index("lips")).mean() > 0.98
    assert iou(part(plane, "mouth_interior"), picture[..., 2] > 0) > 0.95
    red = picture[..., 0] > 0
    assert iou(part(plane, "eye_left"), red & (np.arange(WIDTH) > 100)) > 0.95
    assert iou(part(plane, "eye_right"), red & (np.arange(WIDTH) < 100)) > 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 11 + 2}, r"output 'logits' is tensor\(float\) \[1, 13, 512, 512\], expected"),
        ({"size": 256}, r"input 'picture' is tensor\(float\) \[1, 3, 256, 256\], expected float"),
    ],
)
def test_a_parser_of_another_kind_is_refused(tmp_path, change, message):
    file = write_bisenet(tmp_path / "other.onnx", **change)
    with pytest.raises(InputError, match=message) as caught:
        make_parser(
            lambda i: np.zeros((HEIGHT, WIDTH, 3), np.uint8), landmarks()[None],
            MatteConfig(bisenet=file),
        )  # fmt: skip
    assert str(file) in str(caught.value)
    assert "matte.bisenet" in str(caught.value)
