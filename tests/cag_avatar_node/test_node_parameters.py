"""Parameters of all nodes: described, bounded and guarded."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")

from rclpy.exceptions import InvalidParameterValueException
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from cag_avatar_node import avatar_display, avatar_renderer, expression_estimator, video_source
from cag_avatar_node.node_parameters import NodeParameter

ALL: list[NodeParameter] = [
    *avatar_display.PARAMETERS,
    *avatar_renderer.PARAMETERS,
    *expression_estimator.PARAMETERS,
    *video_source.PARAMETERS,
]


@pytest.mark.parametrize("parameter", ALL, ids=lambda parameter: parameter.name)
def test_described_and_bounded(parameter: NodeParameter) -> None:
    assert parameter.description.endswith(".")
    if isinstance(parameter.default, (int, float)) and not isinstance(parameter.default, bool):
        assert parameter.minimum is not None
        assert parameter.maximum is not None
        assert parameter.minimum <= parameter.default <= parameter.maximum
    if parameter.choices:
        assert parameter.default in parameter.choices


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("encoding", "jpeg", "not one of: bgr8, rgb8"), ("max_size", 99999, "max_size")],
)
def test_bad_start_value_is_refused(world: Any, name: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidParameterValueException, match=words):
        world.add(video_source.VideoSource, **{name: value})


def test_only_dynamic_parameters_change_while_configured(world: Any, numbered_video: Any) -> None:
    node = world.start(video_source.VideoSource, video=str(numbered_video))

    def change(name: str, value: Any) -> Any:
        return node.set_parameters([Parameter(name, value=value)])[0]

    assert change("loop", False).successful
    refused = change("frame_id", "other")
    assert not refused.successful
    assert "deactivate and clean up the node" in refused.reason
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert not change("frame_id", "other").successful
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert change("frame_id", "other").successful
    assert not change("encoding", "mono8").successful


@pytest.mark.parametrize(("given", "taken"), [(True, "on"), (False, "off"), ("on", "on")])
def test_on_and_off_may_be_truth_values(world: Any, given: Any, taken: str) -> None:
    """As YAML and ``-p regressor:=on`` make of them."""
    estimator = expression_estimator.ExpressionEstimatorNode
    node = world.add(estimator, regressor=given)
    assert node.value("regressor") == taken
    assert node.value("smoothing") == "on"
    assert node.set_parameters([Parameter("smoothing", value=given)])[0].successful
    assert node.value("smoothing") == taken
    for wrong in (1, "maybe"):
        assert not node.set_parameters([Parameter("smoothing", value=wrong)])[0].successful
    assert node.value("smoothing") == taken
