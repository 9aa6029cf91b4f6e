"""The operator's face for other programs: REP-155 topics (hri_msgs) and TF frames (tf2_ros).

Both libraries are optional. Pictures of the face (``cropped``, ``aligned``) are not published: they
stay in the estimator.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Header

from cag_avatar_node.facial_action_units import LANDMARKS, action_units
from cag_avatar_node.gaze_frame import gaze_pose
from cag_avatar_node.head_pose_conversion import head_pose_to_face_pose

if TYPE_CHECKING:
    from cag_avatar.tracking.face_landmarker import DetectedFace

__all__ = ["FaceFrames", "HumanMirror", "SeenFace", "human_id", "import_optional"]

TRACKED_TOPIC = "/humans/faces/tracked"


@dataclass(frozen=True)
class SeenFace:
    """The operator's face in one image."""

    face: DetectedFace
    """As detected."""
    size: tuple[int, int]
    """Width and height of the image, pixels."""
    code: NDArray[np.float32]
    """As sent, [52]."""
    head_pose: NDArray[np.float64]
    """As sent: canonical to camera, metres, [4, 4]."""
    confidence: float
    """0 to 1."""
    eyes_valid: bool
    """Whether blinks and gaze can be trusted."""


def human_id(face_id: str, operator: int) -> str:
    """Identifier for topics and frames: letters, digits and underscores; another one for each
    operator, as REP-155 wants it."""
    name = re.sub(r"\W", "_", face_id, flags=re.ASCII) or "operator"
    return name if operator == 0 else f"{name}_{operator}"


def import_optional(
    name: str, wanted: bool, parameter: str, tell: Callable[[str], object]
) -> Any | None:
    """A module, or None when it is not wanted or not installed, which is told once."""
    if not wanted:
        return None
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.split(".")[0]
        tell(f"{parameter}: {package} is not installed, so this is left out")
        return None


class HumanMirror:
    """``/humans/faces/tracked`` and ``/humans/faces/<id>/roi``, ``landmarks`` and ``facs``.

    Args:
        node: the publishing node.
        messages: the module ``hri_msgs.msg``.
        qos: of all topics.
    """

    def __init__(self, node: Node, messages: Any, qos: QoSProfile) -> None:
        self._node = node
        self._messages = messages
        self._qos = qos
        self._tracked = node.create_publisher(messages.IdsList, TRACKED_TOPIC, qos)
        self._face: dict[str, Any] = {}
        self._name = ""

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody listens to any of the topics."""
        publishers = (self._tracked, *self._face.values())
        return any(publisher.get_subscription_count() for publisher in publishers)

    def publish(self, header: Header, name: str, seen: SeenFace | None) -> None:
        """Publish one image's face; None: there is none.

        Args:
            header: of the image.
            name: identifier of the face; see human_id().
            seen: the face.
        """
        ids = [] if seen is None else [name]
        self._tracked.publish(self._messages.IdsList(header=header, ids=ids))
        if seen is None:
            return
        if name != self._name:
            self._advertise(name)
        makers = {"roi": self._region, "landmarks": self._landmarks, "facs": self._units}
        for topic, make in makers.items():
            publisher = self._face[topic]
            if publisher.get_subscription_count():
                publisher.publish(make(header, seen))

    def destroy(self) -> None:
        """Destroy the publishers."""
        for publisher in (self._tracked, *self._face.values()):
            self._node.destroy_publisher(publisher)
        self._face = {}

    def _advertise(self, name: str) -> None:
        for publisher in self._face.values():
            self._node.destroy_publisher(publisher)
        kinds = {
            "roi": self._messages.NormalizedRegionOfInterest2D,
            "landmarks": self._messages.FacialLandmarks,
            "facs": self._messages.FacialActionUnits,
        }
        self._face = {
            topic: self._node.create_publisher(kind, f"/humans/faces/{name}/{topic}", self._qos)
            for topic, kind in kinds.items()
        }
        self._name = name

    def _region(self, header: Header, seen: SeenFace) -> Any:
        width, height = seen.size
        left, top, right, bottom = seen.face.box()
        low = np.clip([left / width, top / height], 0, 1)
        high = np.clip([right / width, bottom / height], 0, 1)
        return self._messages.NormalizedRegionOfInterest2D(
            header=header,
            xmin=float(low[0]),
            ymin=float(low[1]),
            xmax=float(high[0]),
            ymax=float(high[1]),
            c=float(seen.confidence),
        )

    def _landmarks(self, header: Header, seen: SeenFace) -> Any:
        width, height = seen.size
        points = seen.face.landmarks[list(LANDMARKS), :2] / [width, height]
        inside = np.logical_and(points >= 0, points <= 1).min(1).tolist()
        message = self._messages.FacialLandmarks(header=header, width=width, height=height)
        message.landmarks = [
            self._messages.NormalizedPointOfInterest2D(
                x=float(np.clip(x, 0, 1)), y=float(np.clip(y, 0, 1)),
                c=float(seen.confidence) if within else 0.0,
            )
            for (x, y), within in zip(points, inside, strict=True)
        ]  # fmt: skip
        return message

    def _units(self, header: Header, seen: SeenFace) -> Any:
        intensity, confidence = action_units(seen.code, seen.confidence, seen.eyes_valid)
        return self._messages.FacialActionUnits(
            header=header, intensity=intensity.tolist(), confidence=confidence.tolist()
        )


class FaceFrames:
    """The frames ``face_<id>`` and ``gaze_<id>`` of REP-155, children of the camera's frame.

    Args:
        node: the publishing node.
        tf2_ros: the module.
    """

    def __init__(self, node: Node, tf2_ros: Any) -> None:
        self._broadcaster = tf2_ros.TransformBroadcaster(node)

    def publish(self, header: Header, name: str, seen: SeenFace) -> None:
        """Broadcast both frames; the gaze is straight ahead while the eyes are not valid."""
        code = seen.code if seen.eyes_valid else np.zeros_like(seen.code)
        poses = {
            "face": head_pose_to_face_pose(seen.head_pose),
            "gaze": gaze_pose(seen.head_pose, code),
        }
        transforms = []
        for kind, (position, orientation) in poses.items():
            transform = TransformStamped(header=header, child_frame_id=f"{kind}_{name}")
            place, turn = transform.transform.translation, transform.transform.rotation
            place.x, place.y, place.z = (float(value) for value in position)
            turn.x, turn.y, turn.z, turn.w = (float(value) for value in orientation)
            transforms.append(transform)
        self._broadcaster.sendTransform(transforms)
