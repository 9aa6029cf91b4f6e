"""REP-155 topics and TF frames, with stand-ins of hri_msgs and tf2_ros where these are missing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cag_avatar.head_models.arkit import ARKIT_INDEX
from cag_avatar.tracking.face_landmarker import EYE_OUTER_CORNERS, DetectedFace
from cag_avatar_node.facial_action_units import ACTION_UNITS, LANDMARKS, action_units
from cag_avatar_node.gaze_frame import gaze_angles, gaze_pose
from cag_avatar_node.head_pose_conversion import quaternion_xyzw_to_matrix

#: A head before the camera that looks into it: canonical x (their left) is the picture's right.
FACING = np.array([[1.0, 0, 0, 0.1], [0, -1, 0, 0.2], [0, 0, -1, 0.8], [0, 0, 0, 1]])


def code_of(**values: float) -> NDArray[np.float32]:
    code = np.zeros(52, np.float32)
    for name, value in values.items():
        code[ARKIT_INDEX[name]] = value
    return code


def test_gaze_straight_ahead_is_out_of_the_face_in_optical_axes() -> None:
    position, orientation = gaze_pose(FACING, code_of())
    axes = quaternion_xyzw_to_matrix(orientation)
    np.testing.assert_allclose(axes[:, 2], [0, 0, -1], atol=1e-9)  # into the camera
    np.testing.assert_allclose(axes[:, 0], [-1, 0, 0], atol=1e-9)  # their right: picture's left
    np.testing.assert_allclose(axes[:, 1], [0, 1, 0], atol=1e-9)
    assert position[2] == pytest.approx(0.8 - 0.024)


def test_gaze_follows_both_eyes() -> None:
    yaw, pitch = gaze_angles(code_of(eyeLookOutLeft=1, eyeLookInRight=1))
    assert np.degrees(yaw) == pytest.approx(30)
    assert pitch == 0
    _, orientation = gaze_pose(FACING, code_of(eyeLookOutLeft=1, eyeLookInRight=1))
    ahead = quaternion_xyzw_to_matrix(orientation)[:, 2]
    np.testing.assert_allclose(ahead, [0.5, 0, -np.sqrt(0.75)], atol=1e-9)  # to their left
    _, orientation = gaze_pose(FACING, code_of(eyeLookUpLeft=1, eyeLookUpRight=1))
    axes = quaternion_xyzw_to_matrix(orientation)
    assert np.degrees(np.arcsin(-axes[1, 2])) == pytest.approx(22)  # up is -y
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    assert np.linalg.det(axes) == pytest.approx(1)
    crossed = gaze_angles(code_of(eyeLookInLeft=0.5, eyeLookInRight=0.5))
    assert crossed == (0.0, 0.0)


def test_action_units_take_the_stronger_side() -> None:
    code = code_of(mouthSmileLeft=0.2, mouthSmileRight=0.7, eyeBlinkLeft=0.9, jawOpen=0.4)
    intensity, confidence = action_units(code, 0.8, eyes_valid=False)
    assert intensity[12] == pytest.approx(0.7)
    assert intensity[26] == pytest.approx(0.4)
    assert intensity[45] == pytest.approx(0.9)
    assert confidence[12] == pytest.approx(0.8)
    assert confidence[45] == 0, "hidden eyes are trusted"
    assert confidence[80] == 0, "what is not estimated is trusted"
    assert all(name in ARKIT_INDEX for names in ACTION_UNITS.values() for name in names)


def test_landmarks_are_hri_msgs_seventy() -> None:
    assert len(set(LANDMARKS)) == 70
    right, left = EYE_OUTER_CORNERS
    assert LANDMARKS[36] == right
    assert LANDMARKS[45] == left


@pytest.fixture
def mirror() -> Any:
    """The module, which needs ROS messages."""
    pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
    from cag_avatar_node import human_mirror

    return human_mirror


class FakePublisher:
    """Keeps what is published."""

    def __init__(self, topic: str) -> None:
        self.topic, self.subscribers = topic, 1
        self.sent: list[Any] = []

    def publish(self, message: Any) -> None:
        self.sent.append(message)

    def get_subscription_count(self) -> int:
        return self.subscribers


class FakeNode:
    """Makes FakePublishers."""

    def __init__(self) -> None:
        self.alive: dict[str, FakePublisher] = {}

    def create_publisher(self, kind: Any, topic: str, qos: Any) -> FakePublisher:
        assert topic not in self.alive
        self.alive[topic] = FakePublisher(topic)
        return self.alive[topic]

    def destroy_publisher(self, publisher: FakePublisher) -> None:
        del self.alive[publisher.topic]


def hri_messages() -> Any:
    """hri_msgs.msg, or classes with the same fields."""
    try:
        import hri_msgs.msg
    except ImportError:
        names = (
            "IdsList", "NormalizedRegionOfInterest2D", "FacialLandmarks",
            "NormalizedPointOfInterest2D", "FacialActionUnits",
        )  # fmt: skip
        return SimpleNamespace(**{name: SimpleNamespace for name in names})
    return hri_msgs.msg


@pytest.fixture
def seen(mirror: Any) -> Any:
    """A face whose landmarks fill a box; one lies outside the picture."""
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[:, 0] = np.linspace(100, 300, 478)
    landmarks[:, 1] = np.linspace(50, 150, 478)
    landmarks[LANDMARKS[0], :2] = -10, 80
    face = DetectedFace(landmarks, np.zeros(52, np.float32))
    code = code_of(jawOpen=0.5, eyeLookOutLeft=1, eyeLookInRight=1)
    return mirror.SeenFace(face, (400, 200), code, FACING, 0.9, True)


def test_the_face_is_mirrored_while_it_is_seen(mirror: Any, seen: Any) -> None:
    from std_msgs.msg import Header

    node = FakeNode()
    humans = mirror.HumanMirror(node, hri_messages(), 1)
    header = Header(frame_id="camera")
    humans.publish(header, "me", None)
    assert list(node.alive) == ["/humans/faces/tracked"]
    assert node.alive["/humans/faces/tracked"].sent[0].ids == []
    humans.publish(header, "me", seen)
    assert node.alive["/humans/faces/tracked"].sent[1].ids == ["me"]
    region = node.alive["/humans/faces/me/roi"].sent[0]
    assert region.header is header or region.header == header
    np.testing.assert_allclose(
        [region.xmin, region.ymin, region.xmax, region.ymax], [0, 0.25, 0.75, 0.75], atol=1e-6
    )
    points = node.alive["/humans/faces/me/landmarks"].sent[0]
    assert (points.width, points.height, len(points.landmarks)) == (400, 200, 70)
    assert points.landmarks[0].c == 0, "a landmark outside the picture is trusted"
    right = points.landmarks[36]
    expected = seen.face.landmarks[33, :2] / [400, 200]
    np.testing.assert_allclose([right.x, right.y, right.c], [*expected, 0.9], atol=1e-6)
    assert node.alive["/humans/faces/me/facs"].sent[0].intensity[26] == pytest.approx(0.5)


def test_another_operator_has_topics_of_their_own(mirror: Any, seen: Any) -> None:
    from std_msgs.msg import Header

    node = FakeNode()
    humans = mirror.HumanMirror(node, hri_messages(), 1)
    humans.publish(Header(), mirror.human_id("", 0), seen)
    humans.publish(Header(), mirror.human_id("", 1), seen)
    own = {f"/humans/faces/operator_1/{topic}" for topic in ("roi", "landmarks", "facs")}
    assert set(node.alive) == {"/humans/faces/tracked", *own}
    for publisher in node.alive.values():
        publisher.subscribers = 0
    assert not humans.has_subscribers
    node.alive["/humans/faces/operator_1/facs"].subscribers = 1
    assert humans.has_subscribers
    count = len(node.alive["/humans/faces/operator_1/roi"].sent)
    humans.publish(Header(), "operator_1", seen)
    assert len(node.alive["/humans/faces/operator_1/roi"].sent) == count, "sent to nobody"
    humans.destroy()
    assert node.alive == {}


def test_frames_are_children_of_the_camera(mirror: Any, seen: Any) -> None:
    from std_msgs.msg import Header

    sent: list[Any] = []
    tf2 = SimpleNamespace(
        TransformBroadcaster=lambda node: SimpleNamespace(sendTransform=sent.extend)
    )
    frames = mirror.FaceFrames(None, tf2)
    frames.publish(Header(frame_id="camera"), "me", seen)
    face, gaze = sent
    assert (face.header.frame_id, face.child_frame_id, gaze.child_frame_id) == (
        "camera", "face_me", "gaze_me",
    )  # fmt: skip
    assert face.transform.translation == gaze.transform.translation
    assert face.transform.translation.z == pytest.approx(0.8 - 0.024)
    turn = gaze.transform.rotation
    ahead = quaternion_xyzw_to_matrix([turn.x, turn.y, turn.z, turn.w])[:, 2]
    assert ahead[0] == pytest.approx(0.5)
    hidden = mirror.SeenFace(seen.face, seen.size, seen.code, FACING, 0.9, False)
    frames.publish(Header(frame_id="camera"), "me", hidden)
    turn = sent[3].transform.rotation
    ahead = quaternion_xyzw_to_matrix([turn.x, turn.y, turn.z, turn.w])[:, 2]
    np.testing.assert_allclose(ahead, [0, 0, -1], atol=1e-9)


def test_identifiers_fit_topics_and_frames(mirror: Any) -> None:
    assert mirror.human_id("", 0) == "operator"
    assert mirror.human_id("Ann B.", 0) == "Ann_B_"
    assert mirror.human_id("me", 2) == "me_2"


def test_missing_libraries_are_told_once(mirror: Any) -> None:
    told: list[str] = []
    assert mirror.import_optional("no_such_library.msg", True, "publish_hri", told.append) is None
    assert len(told) == 1
    assert "publish_hri: no_such_library is not installed" in told[0]
    assert mirror.import_optional("json", False, "publish_hri", told.append) is None
    assert mirror.import_optional("json", True, "publish_hri", told.append) is not None
    assert len(told) == 1


def test_real_hri_messages_take_the_values(mirror: Any, seen: Any) -> None:
    messages = pytest.importorskip("hri_msgs.msg", reason="hri_msgs is not installed")
    from std_msgs.msg import Header

    node = FakeNode()
    mirror.HumanMirror(node, messages, 1).publish(Header(), "me", seen)
    kind = type(node.alive["/humans/faces/me/landmarks"].sent[0])
    assert kind is messages.FacialLandmarks
