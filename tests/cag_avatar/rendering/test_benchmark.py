from __future__ import annotations

import pytest
import torch

from cag_avatar.rendering.benchmark import head_scene, time_rendering
from cag_avatar.rendering.rasterizer import Backend, get_rasterizer


def test_head_scene_looks_like_a_trained_avatar() -> None:
    scene = head_scene()
    assert len(scene.means) == 13_000
    alpha = get_rasterizer("cpu").render(**vars(scene)).alpha
    assert 0.5 < (alpha > 0.5).float().mean() < 0.6


def test_head_scene_is_the_same_at_every_size() -> None:
    large, small = head_scene(size=512), head_scene(size=256)
    assert torch.equal(large.means, small.means)
    rasterizer = get_rasterizer("cpu")
    coverage = [rasterizer.render(**vars(s)).alpha.mean().item() for s in (large, small)]
    assert coverage[0] == pytest.approx(coverage[1], rel=0.12)  # the blur is relatively wider


@pytest.mark.parametrize("name", ["torch", "cpu"])
def test_timings(name: Backend) -> None:
    timings = time_rendering(get_rasterizer(name), head_scene(50, 32), repetitions=3, warm_up=1)
    assert timings.repetitions == 3
    assert 0 < timings.forward_ms < 10_000
    assert 0 < timings.forward_backward_ms < 10_000
