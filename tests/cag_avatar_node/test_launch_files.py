"""The launch files and parameter files against the nodes that they start, and the README."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cag_avatar_node.core_share import renderer_environment
from cag_avatar_node.launch_parts import ARGUMENTS
from cag_avatar_node.transport import PROFILE_VARIABLE, profile_path
from tests.cag_avatar_node.launch_fakes import PACKAGE, Launch, load

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.py"))
PARAMETER_FILES = sorted((ROOT / "config").glob("*.yaml"))
NODES = ("video_source", "expression_estimator", "avatar_renderer", "avatar_display")
DRIVERS = ("usb_cam", "v4l2_camera")
#: What must be given for a file to be launched, with a value.
NEEDED = {"avatar": "me.cag"}


def launch(name: str, **given: str) -> Launch:
    """A launch file by scenario."""
    return Launch(ROOT / "launch" / f"{name}_launch.py", **given)


def declared(node: str) -> dict[str, Any]:
    """The parameters that a node declares, by name."""
    pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
    pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")
    module = importlib.import_module(f"cag_avatar_node.{node}")
    return {parameter.name: parameter for parameter in module.PARAMETERS}


def check_value(parameter: Any, value: Any, where: str) -> Any:
    """Fail unless a value is one that the parameter takes; returns it as the node sees it."""
    if isinstance(value, bool) and set(parameter.choices) >= {"on", "off"}:
        value = "on" if value else "off"  # as YAML reads these words
    assert type(value) is type(parameter.default), where
    if parameter.choices:
        assert value in parameter.choices, where
    if parameter.minimum is not None:
        assert parameter.minimum <= value <= parameter.maximum, where
    return value


def test_scenarios() -> None:
    names = {path.name for path in LAUNCH_FILES}
    assert names == {
        "demo_launch.py",
        "operator_launch.py",
        "robot_launch.py",
        "vehicle_launch.py",
    }


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.stem)
def test_arguments_are_described_and_used(path: Path) -> None:
    found = Launch(path, **NEEDED)
    for name, options in found.arguments.items():
        assert options["description"] == ARGUMENTS[name].description
        assert options["description"].endswith(".")
        default = options.get("default_value")
        if "choices" in options:
            assert default in options["choices"], name
    # An argument that nothing uses raises no error by itself: take each away in turn.
    used = set()
    for name in found.arguments:
        values = dict(found.values)
        found.values.pop(name, None)
        try:
            for node in found.nodes:
                for key in ("condition", "namespace", "respawn"):
                    found.value(node.options.get(key))
                for entry in node.options["parameters"]:
                    for value in entry.values() if isinstance(entry, dict) else [entry]:
                        found.value(value)
                for pair in node.options.get("remappings", ()):
                    found.value(pair[1])
        except KeyError:
            used.add(name)
        found.values = values
    assert used == set(found.arguments)


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.stem)
def test_only_the_avatar_must_be_given(path: Path) -> None:
    found = Launch(path)
    needed = {name for name, options in found.arguments.items() if "default_value" not in options}
    assert needed == (set() if path.stem == "operator_launch" else {"avatar"})
    default = found.values["params_file"]
    assert default.startswith(PACKAGE + "/config/")
    assert (ROOT / "config" / default.rsplit("/", 1)[1]).is_file()


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.stem)
def test_nodes_have_the_parameters_that_they_are_given(path: Path) -> None:
    found = Launch(path, **NEEDED)
    for name, node in found.started().items():
        assert name in NODES
        assert node.options["package"] == "cag_avatar"
        assert node.options["executable"] == name
        assert hasattr(importlib.import_module(f"cag_avatar_node.{name}"), "main")
        assert node.options["parameters"][0] is not node.options["parameters"][-1]
        known = declared(name)
        for key, value in found.parameters(name).items():
            if key in ("use_sim_time", "autostart"):  # every node has these
                assert isinstance(value, bool)
            else:
                assert key in known, f"{path.name}: {name} has no parameter {key}"
                check_value(known[key], value, f"{path.name}: {name} {key}")
    for name, options in found.arguments.items():
        for node_name in found.started():
            parameter = declared(node_name).get(name)
            if parameter is not None and parameter.choices and "choices" in options:
                assert set(options["choices"]) == set(parameter.choices), name


def test_demo() -> None:
    found = launch("demo", avatar="me.cag", video="drive.mp4", port="9000")
    assert set(found.started()) == set(NODES)
    assert found.parameters("video_source")["video"] == "drive.mp4"
    assert found.parameters("avatar_display")["port"] == 9000
    (renderer,) = [node for node in found.nodes if node.options["executable"] == "avatar_renderer"]
    assert renderer.options["additional_env"] == renderer_environment()
    less = launch("demo", avatar="a.cag", start_source="false", start_display="false")
    assert set(less.started()) == {"avatar_renderer", "expression_estimator"}


def test_nodes_announce_themselves_more_often_only_where_all_are_on_one_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(PROFILE_VARIABLE)
    for name in ("demo", "operator", "robot", "vehicle"):
        given = {} if name == "operator" else {"avatar": "me.cag"}
        environment = launch(name, **given).environment
        assert environment == {PROFILE_VARIABLE: profile_path(one_host=name == "demo")}


def test_operator_with_each_camera() -> None:
    found = launch("operator")
    assert set(found.started()) == {"video_source", "expression_estimator"}
    assert found.parameters("video_source")["camera"] == "/dev/video0"
    assert set(launch("operator", camera_driver="none").started()) == {"expression_estimator"}
    for driver, executable in zip(DRIVERS, ("usb_cam_node_exe", "v4l2_camera_node"), strict=True):
        found = launch(
            "operator", camera_driver=driver, camera="/dev/video4", image_topic="front/image"
        )
        node = found.started()[driver]
        assert set(found.started()) == {driver, "expression_estimator"}
        assert (node.options["package"], node.options["executable"]) == (driver, executable)
        assert found.parameters(driver)["video_device"] == "/dev/video4"
        assert "autostart" not in found.parameters(driver)
        # What the driver publishes is what the estimator subscribes.
        assert found.remappings(driver)["image_raw"] == "front/image"
        assert found.remappings("expression_estimator") == {
            "camera/image_raw": "front/image",
            "camera/image_raw/compressed": "front/image/compressed",
        }


def test_robot_and_vehicle() -> None:
    found = launch("robot", avatar="me.cag", shape="round", host="0.0.0.0", token="a-good-token")
    assert set(found.started()) == {"avatar_renderer", "avatar_display"}
    page = found.parameters("avatar_display")
    assert (page["shape"], page["host"], page["token"]) == ("round", "0.0.0.0", "a-good-token")
    assert found.value(found.nodes[0].options["respawn"]) == "true"
    found = launch("vehicle", avatar="me.cag")
    assert found.parameters("avatar_renderer")["driving_policy"] == "hide"
    vehicle = yaml.safe_load((ROOT / "config" / "vehicle.yaml").read_text())
    assert vehicle["/**/avatar_display"]["ros__parameters"]["require_state"] is True


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda path: path.stem)
def test_parameter_files_set_declared_parameters(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    nodes = {key.removeprefix("/**/") for key in content}
    assert nodes <= {*NODES, *DRIVERS}
    for node in nodes & set(NODES):
        known = declared(node)
        for name, value in content[f"/**/{node}"]["ros__parameters"].items():
            assert name in known, f"{node} has no parameter {name}"
            taken = check_value(known[name], value, f"{node} {name}")
            if path.stem == "demo":
                assert taken == known[name].default, f"{node} {name}"


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda path: path.stem)
def test_rcl_reads_the_parameter_files(path: Path, world: Any) -> None:
    import rclpy

    from cag_avatar_node.avatar_display import AvatarDisplay

    expected = yaml.safe_load(path.read_text()).get("/**/avatar_display")
    if expected is None:
        expected = {"ros__parameters": {"stale_s": 1.0}}
    context = rclpy.Context()
    rclpy.init(
        args=["--ros-args", "--params-file", str(path), "-p", "port:=0"],
        context=context,
        domain_id=world.domain_id,
    )
    try:
        node = AvatarDisplay(context=context, namespace="robot")
        for name, value in expected["ros__parameters"].items():
            assert node.value(name) == value
        assert node.value("port") == 0
        node.destroy_node()
    finally:
        context.try_shutdown()


def test_all_files_are_installed() -> None:
    program = "import setuptools; setuptools.setup = lambda **o: print(dict(o['data_files']))\n"
    program += "exec(open('setup.py').read())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    installed = {name for names in eval(done.stdout).values() for name in names}
    for path in (*LAUNCH_FILES, *PARAMETER_FILES):
        assert path.relative_to(ROOT).as_posix() in installed


def test_readme_lists_every_argument() -> None:
    text = (ROOT / "README.md").read_text()
    table = text[text.index("| Launch argument ") :].split("\n\n")[0]
    rows = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in table.splitlines()]
    listed: dict[str, set[str]] = {}
    for row in rows[2:]:
        for name in re.findall(r"`(\w+)`", row[0]):
            scenarios = row[1].replace("all", "demo, operator, robot, vehicle")
            listed[name] = set(re.split(r",\s*", scenarios))
    actual: dict[str, set[str]] = {}
    for path in LAUNCH_FILES:
        for name in Launch(path).arguments:
            actual.setdefault(name, set()).add(path.stem.removesuffix("_launch"))
        assert path.name in text
    assert listed == actual


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.stem)
def test_launch_itself_describes_it(path: Path) -> None:
    pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed")
    description = load(path).generate_launch_description()
    assert len(description.entities) >= 2


def test_launched_nodes_start_and_end(domain_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real thing, where there is one: the estimator of operator_launch.py, not configured."""
    pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed")
    packages = pytest.importorskip("ament_index_python.packages")
    try:
        packages.get_package_prefix("cag_avatar")
    except packages.PackageNotFoundError:
        pytest.skip(
            "the workspace is not sourced: colcon build in ros2_ws, source install/setup.sh"
        )
    from launch.actions import (
        EmitEvent,
        IncludeLaunchDescription,
        RegisterEventHandler,
        TimerAction,
    )
    from launch.event_handlers import OnProcessExit
    from launch.events import Shutdown
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    from launch import LaunchDescription, LaunchService

    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain_id))
    codes: list[int] = []
    arguments = {"camera_driver": "none", "autostart": "false"}
    source = PythonLaunchDescriptionSource(str(ROOT / "launch" / "operator_launch.py"))
    ended = OnProcessExit(on_exit=lambda event, context: codes.append(event.returncode))
    service = LaunchService()
    service.include_launch_description(
        LaunchDescription(
            [
                RegisterEventHandler(ended),
                IncludeLaunchDescription(source, launch_arguments=arguments.items()),
                TimerAction(period=8.0, actions=[EmitEvent(event=Shutdown(reason="seen enough"))]),
            ]
        )
    )
    assert service.run() == 0
    assert codes == [0]
