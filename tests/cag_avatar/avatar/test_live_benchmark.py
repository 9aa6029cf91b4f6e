from __future__ import annotations

import numpy as np
import pytest

from cag_avatar.avatar.benchmark import bench_live, cost_exponent, resampled, time_frames
from cag_avatar.avatar.distillation import fit_offset_basis
from cag_avatar.avatar.fidelity import measure_fidelity
from cag_avatar.avatar.file import save_avatar
from cag_avatar.errors import InputError
from cag_avatar.insight.cost_curves import draw_cost_curves
from cag_avatar.native.library import NativeUnavailableError, load_library
from tests.conftest import make_avatar

try:
    load_library("frame")
except NativeUnavailableError as error:
    pytest.skip(f"no compiled renderer: {error}", allow_module_level=True)


def test_fidelity_grows_with_the_rank_and_is_highest_without_a_basis():
    avatar = make_avatar()
    found = [measure_fidelity(avatar, 4, size=128)]
    for rank in (32, 4):
        avatar.live_basis = fit_offset_basis(avatar, rank)
        found.append(measure_fidelity(avatar, 4, size=128))
    means = [f.whole.mean() for f in found]
    assert means[0] > means[1] > means[2]
    assert means[0] > 50
    for f in found:
        assert f.whole.shape == f.head.shape == (4,)
    assert found[2].head.mean() < found[2].whole.mean()  # the background is always right


def test_exponent_of_a_power_law():
    counts = [10, 100, 1000]
    assert cost_exponent(counts, [3 * n**0.7 for n in counts]) == pytest.approx(0.7)


def test_resampling_keeps_the_look():
    avatar = make_avatar()
    dense = resampled(avatar, 48)
    assert dense.num_gaussians > 3 * avatar.num_gaussians
    area = [float((a.attributes.log_scale.exp() ** 2).sum()) for a in (avatar, dense)]
    assert area[1] == pytest.approx(area[0], rel=0.2)
    same = resampled(avatar, avatar.config.uv_resolution)
    assert np.allclose(same.attributes.color_base, avatar.attributes.color_base)


def test_a_resampled_basis_gives_the_same_offsets():
    avatar = make_avatar()
    avatar.live_basis = fit_offset_basis(avatar, 6)
    same = resampled(avatar, avatar.config.uv_resolution).live_basis
    weights = np.random.default_rng(0).normal(size=6)
    count = avatar.num_gaussians
    np.testing.assert_allclose(
        same.offsets(weights)[:, :count], avatar.live_basis.offsets(weights)[:, :count], atol=1e-5
    )
    assert np.array_equal(same.rows, avatar.live_basis.rows)


def test_stages_add_up():
    avatar = make_avatar()
    times = time_frames(avatar, avatar.record.camera, 5, threads=1)
    assert len(times.whole) == 5
    total = np.sum(list(times.stages.values()), axis=0)
    np.testing.assert_allclose(total, times.whole, rtol=1e-6)
    assert times.summary()["fps"] == pytest.approx(1e3 / np.median(times.whole))


def test_all_figures_and_their_picture(tmp_path):
    avatar = make_avatar()
    avatar.live_basis = fit_offset_basis(avatar, 4)
    path = tmp_path / "a.cag"
    save_avatar(path, avatar)
    figures = bench_live(avatar, path, 64, 4, resolutions=(16, 32), sizes=(32, 64))
    keys = {"fps", "ratio_to_plain", "rss_mb", "first_frame_s", "stages_ms", "cost_exponent"}
    assert keys <= set(figures)
    assert figures["ratio_to_plain"] > 0
    assert 50 < figures["rss_mb"] < 5000
    assert [c["size"] for c in figures["by_size"]] == [32, 64]
    assert figures["cost_exponent"] is None  # neither count lies in its range
    draw_cost_curves(figures, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_that_cannot_be_drawn_is_named(tmp_path):
    from cag_avatar.avatar.benchmark import first_frame

    with pytest.raises(InputError, match=r"none\.cag"):
        first_frame(tmp_path / "none.cag", 64)
