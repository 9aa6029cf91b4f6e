"""The renderer's subscriptions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cag_avatar_msgs.msg import FaceExpression
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String

from cag_avatar.errors import InputError
from cag_avatar_node.demand import OnDemand
from cag_avatar_node.expression_validation import (
    CheckedExpression,
    ExpressionError,
    check_expression,
    check_stamp,
)
from cag_avatar_node.input_watch import InputWatch
from cag_avatar_node.joint_expression import check_joints
from cag_avatar_node.mailbox import Mailbox
from cag_avatar_node.named_expression import named_expression, valence_arousal_expression
from cag_avatar_node.qos import EXPRESSION_QOS, SIGNAL_QOS

__all__ = ["Arrival", "RendererInputs", "Signals", "check_arrival", "check_robot_expression"]

EXPRESSION_TOPIC = "operator/face/expression"
JOINTS_TOPIC = "operator/face/joint_states"
PRESENT_TOPIC = "operator/present"
CONSENT_TOPIC = "operator/consent"
DRIVING_TOPIC = "vehicle/driving_state"
PASSENGER_TOPIC = "vehicle/passenger_display"
ROBOT_TOPIC = "/robot_face/expression"
AVATAR_TOPIC = "~/avatar_name"

_POLICIES = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)


@dataclass(frozen=True)
class Arrival:
    """A message of the operator's face and when it came."""

    message: FaceExpression | JointState
    """As received."""
    seconds: float
    """The node's clock."""
    monotonic: float
    """``time.monotonic``."""


@dataclass(frozen=True)
class Signals:
    """Where the other messages go; called on the executor's thread."""

    present: Callable[[bool], None]
    """``operator/present``."""
    consent: Callable[[bool], None]
    """``operator/consent``."""
    driving: Callable[[str], None]
    """``vehicle/driving_state``."""
    passenger: Callable[[bool], None]
    """``vehicle/passenger_display``."""
    robot: Callable[[Any], None]
    """``/robot_face/expression``."""
    avatar: Callable[[str], None]
    """``~/avatar_name``."""


class RendererInputs:
    """Subscribes; expressions go to the mailbox, everything else to ``signals``.

    Expressions are subscribed to only while somebody wants something of the avatar, so that nothing
    is estimated for nobody.

    Args:
        node: that subscribes.
        mailbox: of the renderer's thread.
        signals: for the other messages.
        timeout: seconds without an expression before a warning.
        wanted: whether anybody wants anything of the avatar.
    """

    def __init__(
        self,
        node: Node,
        mailbox: Mailbox[Arrival],
        signals: Signals,
        timeout: float,
        wanted: Callable[[], bool],
    ) -> None:
        self._node = node
        self._mailbox = mailbox
        self._timeout = timeout
        self._watch: InputWatch | None = None
        self._subscriptions: list[Any] = []
        self._faces: list[Any] = []
        for kind, topic, call in (
            (Bool, PRESENT_TOPIC, signals.present),
            (Bool, CONSENT_TOPIC, signals.consent),
            (String, DRIVING_TOPIC, signals.driving),
            (Bool, PASSENGER_TOPIC, signals.passenger),
            (String, AVATAR_TOPIC, signals.avatar),
        ):
            self._subscriptions.append(self._subscribe(kind, topic, _data_to(call), SIGNAL_QOS))
        try:
            from hri_msgs.msg import Expression
        except ImportError:
            node.get_logger().info(
                f"hri_msgs is not installed: {ROBOT_TOPIC} is left out", once=True
            )
        else:
            self._subscriptions.append(
                self._subscribe(Expression, ROBOT_TOPIC, signals.robot, SIGNAL_QOS)
            )
        self._demand = OnDemand(node, wanted, self._listen, self._rest)
        self._demand.look()

    def silence(self) -> str | None:
        """Why no expression comes, if none came for long; see InputWatch.check()."""
        return None if self._watch is None else self._watch.check()

    def destroy(self) -> None:
        """End the subscriptions."""
        self._demand.destroy()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _listen(self) -> None:
        self._watch = InputWatch(self._node, EXPRESSION_TOPIC, EXPRESSION_QOS, self._timeout)
        self._faces = [
            self._subscribe(kind, topic, self._on_face, EXPRESSION_QOS)
            for kind, topic in ((FaceExpression, EXPRESSION_TOPIC), (JointState, JOINTS_TOPIC))
        ]

    def _rest(self) -> None:
        self._watch = None
        for subscription in self._faces:
            self._node.destroy_subscription(subscription)
        self._faces = []

    def _subscribe(
        self, kind: Any, topic: str, callback: Callable[[Any], None], qos: QoSProfile
    ) -> Any:
        return self._node.create_subscription(
            kind,
            topic,
            callback,
            qos,
            qos_overriding_options=QoSOverridingOptions(policy_kinds=_POLICIES),
        )

    def _on_face(self, message: FaceExpression | JointState) -> None:
        if self._watch is not None:
            self._watch.received()
        seconds = self._node.get_clock().now().nanoseconds * 1e-9
        self._mailbox.put(Arrival(message, seconds, time.monotonic()))


def _data_to(call: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda message: call(message.data)


def check_arrival(arrival: Arrival, *, with_head_pose: bool) -> CheckedExpression | None:
    """The expression of a message; None when it says that no face was seen.

    Raises:
        ExpressionError: see check_stamp(), check_expression() and check_joints().
    """
    message = arrival.message
    stamp = message.header.stamp
    check_stamp(stamp.sec, stamp.nanosec)
    if isinstance(message, JointState):
        return check_joints(message, with_head_pose=with_head_pose)
    return check_expression(message, with_head_pose=with_head_pose)


def check_robot_expression(message: Any) -> Any:
    """What an hri_msgs/Expression adds to a face at rest, float32 [52]: of its name, or without one
    of valence and arousal.

    Raises:
        ExpressionError: an unknown name, NaN or infinity.
    """
    try:
        if message.expression:
            return named_expression(message.expression)
        return valence_arousal_expression(message.valence, message.arousal)
    except InputError as error:
        raise ExpressionError("robot_expression", str(error)) from error
