"""Every check of the doctor, with the fault planted that it is for."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cag_avatar.errors import InputError
from cag_avatar_cli import doctor as command_module
from cag_avatar_cli.main import main
from cag_avatar_node import doctor
from cag_avatar_node.camera_devices import CameraDevice
from cag_avatar_node.doctor import Finding

GIB = 2**30


def installed(*names: str) -> Any:
    return lambda name: object() if name in names else None


def assert_bad(finding: Finding, level: str, detail: str, fix: str) -> None:
    assert finding.level == level
    assert detail in finding.detail
    assert fix in finding.fix, "the fix does not help"
    assert "\n" not in finding.detail + finding.fix


def test_ros() -> None:
    assert doctor.check_ros({"ROS_DISTRO": "jazzy"}, installed("rclpy")).level == "ok"
    assert "wheels" in doctor.check_ros({}, installed("rclpy")).detail
    assert_bad(doctor.check_ros({}, installed()), "problem", "no rclpy", "setup.bash")
    sourced = doctor.check_ros({"ROS_DISTRO": "jazzy"}, installed())
    assert_bad(sourced, "problem", "jazzy is sourced", "setup.bash")
    old = doctor.check_ros({"ROS_DISTRO": "humble"}, installed("rclpy"))
    assert_bad(old, "warning", "humble is older", "jazzy")


def test_rmw() -> None:
    cyclone = {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}
    assert doctor.check_rmw({}, lambda: "rmw_fastrtps_cpp").level == "ok"
    assert doctor.check_rmw(cyclone, lambda: "rmw_cyclonedds_cpp").level == "ok"
    other = doctor.check_rmw(cyclone, lambda: "rmw_fastrtps_cpp")
    assert_bad(other, "problem", "rmw_fastrtps_cpp is loaded", "install rmw_cyclonedds_cpp")

    def fail() -> str:
        raise RuntimeError("failed to load shared library\nsecond line")

    assert_bad(doctor.check_rmw(cyclone, fail), "problem", "failed to load", "rmw-cyclonedds-cpp")
    assert_bad(doctor.check_rmw({}, fail), "problem", "failed to load", "setup.bash")


def message_package(fields: list[str], *, later: bool = True) -> Any:
    def load(name: str) -> Any:
        if name == "msg/FaceExpression":
            return SimpleNamespace(get_fields_and_field_types=lambda: dict.fromkeys(fields, ""))
        if not later:
            raise AttributeError(name)
        return object()

    return load


def test_messages() -> None:
    fields = doctor._field_names(doctor.face_expression_definition())
    assert fields[0] == "header"
    assert fields[-1] == "sequence"
    assert "ARKIT_52" not in fields
    assert doctor.check_messages(message_package(fields)).level == "ok"

    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'cag_avatar_msgs'")

    assert_bad(doctor.check_messages(missing), "problem", "not built", "colcon build")
    stale = doctor.check_messages(message_package(fields[:-1]))
    assert_bad(stale, "problem", "another version: sequence", "colcon build")
    older = doctor.check_messages(message_package(fields, later=False))
    assert_bad(older, "problem", "no msg/StageLatency", "colcon build")


def test_fields_of_this_version_are_those_of_the_built_message() -> None:
    module = pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")
    built = list(module.FaceExpression.get_fields_and_field_types())
    assert doctor._field_names(doctor.face_expression_definition()) == built


def test_mediapipe(tmp_path: Path) -> None:
    there = doctor.check_mediapipe(installed("mediapipe"), lambda: tmp_path / "model.task")
    assert (there.level, there.detail) == ("ok", str(tmp_path / "model.task"))
    none = doctor.check_mediapipe(installed(), lambda: tmp_path)
    assert_bad(none, "problem", "not installed", "cag_avatar[tracking]")

    def missing() -> Path:
        raise InputError("face_landmarker.task was not found: put it at /somewhere")

    no_model = doctor.check_mediapipe(installed("mediapipe"), missing)
    assert_bad(no_model, "problem", "was not found", "put it at /somewhere")


def test_system_libraries() -> None:
    assert doctor.check_system_libraries(lambda name: "lib").level == "ok"
    no_egl = doctor.check_system_libraries(lambda name: None if name == "EGL" else "lib")
    assert_bad(no_egl, "problem", "libEGL not found", "apt-get install libegl1")
    assert "libgles2" not in no_egl.fix


def test_gpu(tmp_path: Path) -> None:
    none, there = tmp_path / "none", tmp_path / "nvidia0"
    there.write_text("")
    assert doctor.check_gpu(lambda: None, installed(), none).level == "ok"
    whole = doctor.check_gpu(lambda: "H200", installed("gsplat"), there)
    assert whole.level == "ok"
    assert "H200" in whole.detail
    no_gsplat = doctor.check_gpu(lambda: "H200", installed(), there)
    assert_bad(no_gsplat, "warning", "no gsplat", "cag_avatar[cuda]")
    unseen = doctor.check_gpu(lambda: None, installed("gsplat"), there)
    assert_bad(unseen, "warning", "PyTorch does not see it", "nvidia-smi")


def test_cameras() -> None:
    good = CameraDevice("/dev/video0", "Mine", ("YUYV", "MJPG"))
    found = doctor.check_cameras(lambda: [good])
    assert (found.level, found.detail) == ("ok", "/dev/video0 Mine: YUYV MJPG")
    assert_bad(doctor.check_cameras(list), "warning", "no /dev/video", "--device")
    denied = CameraDevice("/dev/video0", error="Permission denied", denied=True)
    finding = doctor.check_cameras(lambda: [good, denied])
    assert_bad(finding, "problem", "Permission denied", "usermod -aG video")
    busy = CameraDevice("/dev/video0", error="Device or resource busy")
    assert_bad(doctor.check_cameras(lambda: [busy]), "warning", "busy", "")


def test_network_buffers(tmp_path: Path) -> None:
    def settings(receive: str, fragments: str) -> Path:
        (tmp_path / "core").mkdir(exist_ok=True)
        (tmp_path / "ipv4").mkdir(exist_ok=True)
        (tmp_path / "core" / "rmem_max").write_text(receive)
        (tmp_path / "ipv4" / "ipfrag_time").write_text(fragments)
        return tmp_path

    assert doctor.check_network_buffers(settings("2147483647\n", "3\n")).level == "ok"
    small = doctor.check_network_buffers(settings("212992", "3"))
    assert_bad(small, "warning", "rmem_max 212992", "sysctl -w net.core.rmem_max=")
    assert "ipfrag" not in small.fix
    slow = doctor.check_network_buffers(settings("2147483647", "30"))
    assert_bad(slow, "warning", "ipfrag_time 30 s", "net.ipv4.ipfrag_time=3")
    unknown = doctor.check_network_buffers(tmp_path / "none")
    assert (unknown.level, "not checked" in unknown.detail) == ("ok", True)


def test_shared_memory(tmp_path: Path) -> None:
    assert doctor.check_shared_memory(tmp_path, lambda p: GIB).level == "ok"
    assert doctor.check_shared_memory(tmp_path / "none").level == "ok"
    full = doctor.check_shared_memory(tmp_path, lambda p: 2**20)
    assert_bad(full, "warning", "1 MiB free, 48 needed", "--shm-size")


def test_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert_bad(doctor.check_port(port), "problem", str(port), "--port")
    assert doctor.check_port(port).level == "ok"


def test_disk(tmp_path: Path) -> None:
    inside = tmp_path / "new" / "folder"
    assert doctor.check_disk([inside], lambda p: 2 * GIB).level == "ok"
    assert not inside.exists(), "the doctor changed something"
    full = doctor.check_disk([inside], lambda p: 2**20)
    assert_bad(full, "warning", "1 MiB free", "make room")
    (tmp_path / "file").write_text("")
    blocked = doctor.check_disk([tmp_path / "file" / "cache"], lambda p: 2 * GIB)
    assert_bad(blocked, "problem", "cannot be written", "XDG_CACHE_HOME")


def test_optional_libraries_are_named_with_their_use() -> None:
    none = doctor.check_optional(installed())
    assert none.level == "ok"
    assert "hri_msgs (REP-155 topics)" in none.detail
    some = doctor.check_optional(installed("rosbags", "hri_msgs", "tf2_ros", "launch_ros"))
    assert (some.detail, some.fix) == ("all there", "")


def test_a_check_that_fails_itself_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Finding:
        raise RuntimeError("the check broke")

    monkeypatch.setattr(doctor, "check_gpu", broken)
    findings = {finding.check: finding for finding in doctor.diagnose(0)}
    assert len(findings) == 12
    assert_bad(findings["GPU"], "problem", "the check broke", "report")


FINDINGS = [
    Finding("ROS", "ok", "jazzy"),
    Finding("disk", "warning", "full [of things]", "make room"),
]


@pytest.mark.parametrize(("problems", "code"), [(0, 0), (1, 1)])
def test_exit_code_table_and_json(
    problems: int,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = FINDINGS + [Finding("port", "problem", "taken", "choose another")] * problems
    ports: list[int] = []
    monkeypatch.setattr(command_module, "diagnose", lambda port: ports.append(port) or found)
    assert main(["doctor", "--port", "8123"]) == code
    text = capsys.readouterr().out
    assert "full [of things]" in text
    assert "make room" in text
    assert ports == [8123]
    assert main(["doctor", "--json"]) == code
    listed = json.loads(capsys.readouterr().out)
    assert [entry["level"] for entry in listed] == ["ok", "warning", "problem"][: 2 + problems]
    assert listed[1] == {
        "check": "disk", "level": "warning", "detail": "full [of things]", "fix": "make room",
    }  # fmt: skip
