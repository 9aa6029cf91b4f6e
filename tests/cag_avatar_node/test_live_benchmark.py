"""The measurement of the whole live path."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cag_avatar.errors import InputError
from cag_avatar_node import live_benchmark
from cag_avatar_node.live import LiveConfig
from cag_avatar_node.live_benchmark import LiveBenchmarkConfig, bench_live_path

NODES = ["avatar_renderer", "expression_estimator", "avatar_display", "video_source"]


def test_import_needs_no_ros_and_no_psutil() -> None:
    code = (
        "import sys, cag_avatar_node.live_benchmark; "
        "bad = {'rclpy', 'torch', 'mediapipe', 'cv2', 'psutil'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_bad_settings_are_named(dummy: Path) -> None:
    live = LiveConfig(avatar=dummy, video=dummy)
    with pytest.raises(InputError, match="give a video"):
        LiveBenchmarkConfig(LiveConfig(avatar=dummy, camera="0"))
    with pytest.raises(InputError, match="processes of their own"):
        LiveBenchmarkConfig(LiveConfig(avatar=dummy, video=dummy, one_process=True))
    with pytest.raises(InputError, match=r"seconds 39.0 must be at least 40"):
        LiveBenchmarkConfig(live, seconds=39.0)
    with pytest.raises(InputError, match="seconds nan"):
        LiveBenchmarkConfig(live, seconds=float("nan"))
    with pytest.raises(InputError, match="restarts -1"):
        LiveBenchmarkConfig(live, restarts=-1)


def test_every_node_is_measured_killed_and_back(
    tiny_avatar_path: Path, face_video_path: Path, domain_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
    pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")
    pytest.importorskip("psutil", reason="psutil is not installed: run make setup")
    spans = (("WINDOW", 1.0), ("SETTLING", 1.0), ("DEAD_FOR", 2.5), ("BREATH", 1.0))
    for name, seconds in (*spans, ("IDLE_SPAN", 1.0)):
        monkeypatch.setattr(live_benchmark, name, seconds)
    live = LiveConfig(
        avatar=tiny_avatar_path, video=face_video_path, size=64, port=0, domain_id=domain_id
    )
    said: list[tuple[str, float]] = []
    figures = bench_live_path(
        LiveBenchmarkConfig(live, seconds=5.0),
        lambda what, share: said.append((what, share)),
    )
    assert json.loads(json.dumps(figures)) == figures
    assert figures["start_s"] > 0.5
    # Of 15 a second; over so short a window the page's rate is rough.
    assert 5 < figures["worst"]["fps"] <= figures["fps"] <= 20
    assert 0 < figures["latency_ms_p50"] <= figures["latency_ms_p95"]
    assert figures["latency_ms_p95"] <= figures["worst"]["latency_ms_p95"]
    for name in NODES:
        assert all(20 < mebibytes < 2000 for mebibytes in figures["memory_mb"][name])
        assert 0 < figures["cpu_percent"][name] < 200
        assert 0 <= figures["idle_cpu_percent"][name] < 100
    restarts = figures["restarts"]
    assert [event["node"] for event in restarts] == NODES
    assert all(event["others_up"] for event in restarts)
    assert all(event["back_s"] is not None and event["back_s"] > 0.2 for event in restarts)
    # The picture stops; nobody is seen; the page is gone; nobody is seen.
    shown = {event["node"]: event["page"] for event in restarts}
    assert shown["avatar_renderer"] == "lost"
    assert shown["avatar_display"] is None
    assert shown["expression_estimator"] in ("idle", "decay", "hold")
    assert shown["video_source"] in ("idle", "decay", "hold")
    assert said[0][0] == "starting"
    assert {what for what, _ in said} == {"starting", "steady run", "restarts", "nobody looks"}
    assert all(0 <= share <= 1 for _, share in said)
