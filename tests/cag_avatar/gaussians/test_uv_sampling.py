from __future__ import annotations

import dataclasses

import pytest
import torch

from cag_avatar.errors import InputError
from cag_avatar.gaussians.uv_sampling import sample_uv
from cag_avatar.head_models import REGIONS, load_head_model


def test_every_point_lies_in_its_triangle_at_its_texel_centre():
    head = load_head_model("anny")
    samples = sample_uv(head, 64)
    corners = head.uv[head.face_uv[samples.face]]
    uv = (corners * samples.barycentric[..., None]).sum(1)
    torch.testing.assert_close(uv, samples.uv, atol=1e-6, rtol=0)
    texel = samples.uv * 64 - 0.5
    torch.testing.assert_close(texel, texel.round(), atol=1e-3, rtol=0)
    assert (samples.barycentric >= 0).all()
    torch.testing.assert_close(samples.barycentric.sum(1), torch.ones(len(samples)))
    assert torch.equal(samples.region, head.face_region[samples.face])


def test_no_texel_is_used_twice():
    texel = (sample_uv(load_head_model("anny"), 64).uv * 64 - 0.5).round().long()
    assert len(torch.unique(texel, dim=0)) == len(texel)


def test_count_on_a_square_of_two_triangles():
    head = load_head_model("anny")
    square = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]])
    flat = dataclasses.replace(
        head,
        uv=square,
        faces=head.faces[:2],
        face_uv=torch.tensor([[0, 1, 2], [0, 2, 3]]),
        face_region=torch.tensor([0, 1]),
    )
    assert len(sample_uv(flat, 16)) == 64  # half of 16 in both directions
    dense = sample_uv(flat, 16, {REGIONS[1]: 2.0})
    counts = torch.bincount(dense.region, minlength=2)
    # A triangle covers half of the square, half the diagonal more or less.
    assert 28 <= counts[0] <= 36
    assert 4 * 28 <= counts[1] <= 4 * 36


def test_a_factor_of_zero_leaves_a_region_out():
    samples = sample_uv(load_head_model("anny"), 32, {"scalp": 0.0})
    assert not (samples.region == REGIONS.index("scalp")).any()


@pytest.mark.parametrize(
    ("resolution", "density", "word"),
    [(1, None, "uv_resolution"), (32, {"nose": 2.0}, "nose"), (32, {"lips": -1.0}, "lips")],
)
def test_bad_settings_are_named(resolution, density, word):
    with pytest.raises(InputError, match=word):
        sample_uv(load_head_model("anny"), resolution, density)
