from __future__ import annotations

import json

import pytest
import torch
from rich.console import Console

from cag_avatar.avatar import cuda_benchmark
from cag_avatar.avatar.cuda_avatar import CudaAvatar
from cag_avatar.avatar.cuda_benchmark import bench_cuda, time_stream
from cag_avatar.avatar.frame_program import STAGES
from cag_avatar.insight.cost_curves import draw_cost_curves
from cag_avatar_cli.bench import _print_live
from tests.cag_avatar.rendering import tile_reference
from tests.conftest import make_avatar


@pytest.fixture(autouse=True)
def _imagined_device(monkeypatch):
    """The CPU; what only a CUDA device can time gets fixed figures."""
    tile_reference.install(monkeypatch)

    class OnCpu(CudaAvatar):
        def __init__(self, *arguments):
            super().__init__(*arguments, device=torch.device("cpu"))

    monkeypatch.setattr(cuda_benchmark, "CudaAvatar", OnCpu)
    monkeypatch.setattr(cuda_benchmark, "time_stages", lambda live, n: {s: [1.0] for s in STAGES})
    monkeypatch.setattr(cuda_benchmark, "_time_plain", lambda avatar, camera, n: [7.0])
    monkeypatch.setattr(
        cuda_benchmark,
        "first_frame",
        lambda path, size, backend: {"first_frame_s": 1.0, "rss_mb": 100.0, "asked": backend},
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "imagined card")


def test_figures_their_picture_and_their_table(tmp_path, capsys):
    avatar = make_avatar()
    figures = bench_cuda(
        avatar, tmp_path / "a.cag", 32, 2, resolutions=(12, 16), sizes=(16, 32), batch=2
    )
    keys = {"fps", "ratio_to_plain", "rss_mb", "first_frame_s", "stages_ms", "cost_exponent"}
    assert keys <= set(figures)
    assert figures["asked"] == "cuda"
    assert set(figures["batch"]) == {"size", "views_per_s", "avatars_per_s"}
    assert figures["ratio_to_plain"] == pytest.approx(7.0 / figures["frame_ms"]["median"])
    assert json.loads(json.dumps(figures)) == figures
    draw_cost_curves(figures, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    _print_live(Console(width=200), figures)
    text = capsys.readouterr().out
    assert "imagined card" in text
    assert "2 together" in text
    assert "draw: blend" in text


def test_a_stream_counts_its_pictures():
    avatar = make_avatar()
    live = cuda_benchmark.CudaAvatar(avatar, avatar.record.camera.resized(32, 32))
    calls = []
    live.render_batch(*next(iter(cuda_benchmark._frames(avatar, 3, 1))))
    original = live.stream

    def counted(frames):
        for picture in original(frames):
            calls.append(len(picture))
            yield picture

    live.stream = counted
    assert time_stream(live, 3, 2) > 0
    assert calls == [3] * 5
