"""The launch file and its parameters against the nodes that they start."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILE = ROOT / "launch" / "cag_avatar.launch.py"
PARAMETER_FILE = ROOT / "config" / "default.yaml"
NODES = ("video_source", "expression_estimator", "avatar_renderer", "avatar_display")


def calls(name: str) -> list[ast.Call]:
    """Calls of a function in the launch file."""
    tree = ast.parse(LAUNCH_FILE.read_text())
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]


def declared(node: str) -> dict[str, Any]:
    """Defaults of the parameters that a node declares."""
    pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
    pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")
    module = importlib.import_module(f"cag_avatar_node.{node}")
    return {parameter.name: parameter.default for parameter in module.PARAMETERS}


def test_every_argument_is_described() -> None:
    arguments = calls("DeclareLaunchArgument")
    assert len(arguments) >= 8
    for argument in arguments:
        described = {keyword.arg for keyword in argument.keywords}
        assert "description" in described, ast.unparse(argument)


def test_every_argument_is_used() -> None:
    names = {ast.literal_eval(call.args[0]) for call in calls("DeclareLaunchArgument")}
    used = {
        ast.literal_eval(call.args[0])
        for function in ("LaunchConfiguration", "text", "number")
        for call in calls(function)
        if isinstance(call.args[0], ast.Constant)
    }
    assert names == used


def test_starts_the_four_nodes_with_parameters_that_they_have() -> None:
    started = {ast.literal_eval(call.args[0]): call.args[1] for call in calls("node")}
    assert set(started) == set(NODES)
    for name, parameters in started.items():
        assert isinstance(parameters, ast.Dict)
        keys = {ast.literal_eval(key) for key in parameters.keys if key is not None}
        assert keys <= set(declared(name))
        assert hasattr(importlib.import_module(f"cag_avatar_node.{name}"), "main")


def test_parameter_file_names_declared_parameters_of_the_right_type() -> None:
    content = yaml.safe_load(PARAMETER_FILE.read_text())
    assert {key.removeprefix("/**/") for key in content} == set(NODES)
    for key, section in content.items():
        defaults = declared(key.removeprefix("/**/"))
        for name, value in section["ros__parameters"].items():
            assert value == defaults[name], f"{key} {name}"
            assert type(value) is type(defaults[name]), f"{key} {name}"


def test_rcl_reads_the_parameter_file(world: Any) -> None:
    import rclpy

    from cag_avatar_node.expression_estimator import ExpressionEstimatorNode

    context = rclpy.Context()
    rclpy.init(
        args=["--ros-args", "--params-file", str(PARAMETER_FILE), "-p", "face_id:=x"],
        context=context,
        domain_id=world.domain_id,
    )
    try:
        node = ExpressionEstimatorNode(context=context, namespace="robot")
        assert node.value("input_timeout") == 5.0
        assert node.value("face_id") == "x"
        node.destroy_node()
    finally:
        context.try_shutdown()


def test_describes_the_launch() -> None:
    pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed")
    spec = importlib.util.spec_from_file_location("cag_avatar_launch", LAUNCH_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description = module.generate_launch_description()
    assert len(description.entities) >= len(NODES)
