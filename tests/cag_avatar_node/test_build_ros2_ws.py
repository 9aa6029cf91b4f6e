"""The script that builds the workspace on the ROS wheels."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "build_ros2_ws.py"


@pytest.fixture
def builder() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("build_ros2_ws", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_repair_names_this_environment_and_is_idempotent(
    builder: ModuleType, tmp_path: Path
) -> None:
    folder = tmp_path / "share" / "std_msgs" / "cmake"
    folder.mkdir(parents=True)
    broken = folder / "export.cmake"
    broken.write_text(
        "set_target_properties(x PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "
        '"/opt/python/cp311-cp311/include/python3.11;'
        '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include;other")\n'
    )
    untouched = folder / "other.cmake"
    untouched.write_text("set(x /opt/other)\n")
    assert builder.repair_cmake_files(tmp_path, "/py/include", r"/np\1/include") == 1
    assert '"/py/include;/np\\1/include;other"' in broken.read_text()
    assert untouched.read_text() == "set(x /opt/other)\n"
    assert builder.repair_cmake_files(tmp_path, "/py/include", "/np/include") == 0
    assert sorted(path.name for path in folder.iterdir()) == ["export.cmake", "other.cmake"]


def test_fingerprint_follows_the_message_sources(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rosidl_generator_py", reason="not on the ROS wheels")
    source = tmp_path / "msg" / "A.msg"
    source.parent.mkdir()
    source.write_text("bool a\n")
    monkeypatch.setattr(builder, "MESSAGES", tmp_path)
    before = builder.messages_fingerprint()
    assert builder.messages_fingerprint() == before
    source.write_text("bool b\n")
    assert builder.messages_fingerprint() != before


def test_a_foreign_ros_is_left_alone(builder: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
    with pytest.raises(builder.BuildError, match="run 'colcon build' in ros2_ws instead"):
        builder.check_prerequisites(tmp_path)


def test_a_missing_compiler_is_named(builder: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("colcon_core", reason="colcon is not installed: run make setup")
    monkeypatch.setattr(builder.shutil, "which", lambda _: None)
    with pytest.raises(builder.BuildError, match=r"apt install g\+\+"):
        builder.check_prerequisites(Path(sys.prefix))
