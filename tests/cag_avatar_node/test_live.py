"""The whole live path in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from cag_avatar.errors import InputError
from cag_avatar_node.live import LiveConfig, run_live


def test_import_needs_no_ros() -> None:
    code = (
        "import sys, cag_avatar_node.live; "
        "bad = {'rclpy', 'torch', 'mediapipe', 'cv2'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_bad_settings_are_named(dummy: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(InputError, match="exactly one of video and camera"):
        LiveConfig(avatar=dummy)
    with pytest.raises(InputError, match="exactly one of video and camera"):
        LiveConfig(avatar=dummy, video=dummy, camera="0")
    with pytest.raises(InputError, match=r"avatar .*missing does not exist"):
        LiveConfig(avatar=missing, video=dummy)
    with pytest.raises(InputError, match=r"video .*missing does not exist"):
        LiveConfig(avatar=dummy, video=missing)
    with pytest.raises(InputError, match="duration_s"):
        LiveConfig(avatar=dummy, video=dummy, duration_s=0.0)
    with pytest.raises(InputError, match="port 70000"):
        LiveConfig(avatar=dummy, video=dummy, port=70000)
    with pytest.raises(InputError, match="domain_id"):
        LiveConfig(avatar=dummy, video=dummy, domain_id=500)
    with pytest.raises(InputError, match="head_motion"):
        LiveConfig(avatar=dummy, video=dummy, head_motion="wild")


def running_nodes(domain_id: int) -> list[int]:
    """Processes in a ROS domain, other than this one."""
    wanted = f"ROS_DOMAIN_ID={domain_id}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("one_process", [False, True])
def test_a_node_that_refuses_its_input_is_quoted_and_nothing_stays(
    dummy: Path, numbered_video: Path, domain_id: int, one_process: bool
) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
    pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")
    config = LiveConfig(
        avatar=dummy, video=numbered_video, port=0, domain_id=domain_id, one_process=one_process
    )
    # Both nodes that take the avatar refuse it; either may be the first.
    words = r"(avatar_renderer|expression_estimator): cannot configure: .*dummy"
    with pytest.raises(InputError, match=words) as caught:
        run_live(config)
    assert "\n" not in str(caught.value)
    assert running_nodes(domain_id) == []


@pytest.mark.parametrize("one_process", [False, True])
def test_video_to_page(
    tiny_avatar_path: Path, face_video_path: Path, tmp_path: Path, domain_id: int, one_process: bool
) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
    pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")
    said: list[str] = []
    frame_path = tmp_path / "out" / "live.png"
    config = LiveConfig(
        avatar=tiny_avatar_path,
        video=face_video_path,
        size=128,
        port=0,
        duration_s=3.0,
        frame_path=frame_path,
        domain_id=domain_id,
        one_process=one_process,
    )
    result = run_live(config, said.append)
    assert said == [f"live on {result.url}"]
    assert result.frames >= 3
    assert result.live_fps > 0
    assert result.latency_ms_p50 is not None
    assert result.latency_ms_p95 is not None
    assert 0 < result.latency_ms_p50 <= result.latency_ms_p95
    frame = cv2.imread(str(frame_path))
    assert frame is not None
    assert frame.shape == (128, 128, 3)
    assert frame.std() > 5
    assert running_nodes(domain_id) == []
