from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cag_avatar.avatar.distillation import fit_offset_basis, sample_driving
from cag_avatar.avatar.frame_module import FrameModule
from cag_avatar.avatar.model import Avatar, compose
from cag_avatar.errors import InputError
from cag_avatar.fusion.offsets import Offsets
from cag_avatar.head_models.flame_file import load_flame
from tests.cag_avatar.head_models.flame_files import flame_arrays, write_flame_pickle
from tests.conftest import facing_pose, make_avatar, tiny_config

FIELDS = ("means", "quaternions", "scales", "opacities", "colors")


@pytest.fixture(scope="module")
def flame_avatars(tmp_path_factory):
    """Two persons on a head model that does its own posing and groups its tokens."""
    arrays = flame_arrays(rows=12, columns=16)
    head = load_flame(write_flame_pickle(tmp_path_factory.mktemp("flame") / "f.pkl", arrays), "egg")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        avatars = [
            Avatar(tiny_config(), head, head.rest_vertices(torch.randn(300))) for _ in range(2)
        ]
        for avatar in avatars:
            avatar.attributes.color_base.data.uniform_(-1.5, 1.5)
            avatar.network.last.weight.data.normal_(std=0.3)
    return [avatar.eval().requires_grad_(False) for avatar in avatars]


def driving(avatar, count, seed=3):
    codes, poses = sample_driving(avatar.record, count, np.random.default_rng(seed))
    return (
        torch.from_numpy(codes),
        torch.from_numpy(poses),
        facing_pose(0.62).expand(count, 4, 4),
    )


def assert_same(actual, expected, tolerance=2e-6):
    """Gaussians of one frame; the sign of quaternions is arbitrary."""
    sign = (actual.quaternions * expected.quaternions).sum(-1, keepdim=True).sign()
    torch.testing.assert_close(actual.quaternions * sign, expected.quaternions, atol=1e-5, rtol=0)
    for name in ("means", "opacities", "colors"):
        torch.testing.assert_close(
            getattr(actual, name), getattr(expected, name), atol=tolerance, rtol=0
        )
    torch.testing.assert_close(actual.scales, expected.scales, atol=0, rtol=1e-5)


def frame(gaussians, index):
    return type(gaussians)(*(getattr(gaussians, name)[index] for name in FIELDS))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention": "softmax", "local_size": 0},
        {"fusion": "concat", "local_size": 8},
        {"fusion": "one-token"},
        {"sh_degree": 0, "neck_tokens": False},
        {"sh_degree": 2, "depth": 1},
    ],
)
def test_equals_the_training_time_forward(changes):
    avatar = make_avatar(**changes)
    codes, heads, torsos = driving(avatar, 3)
    heads[1] = torsos[1]  # no bend at all
    module = FrameModule([avatar])
    with torch.no_grad():
        found = module(codes, heads, torsos)
        for i in range(3):
            assert_same(frame(found, i), avatar.gaussians(codes[i], heads[i], torsos[i]))
            single = module(codes[i : i + 1], heads[i : i + 1], torsos[i : i + 1])
            assert_same(frame(found, i), frame(single, 0))


def test_several_avatars_two_frames_each():
    avatars = [make_avatar(seed) for seed in (0, 1, 2)]
    for k, avatar in enumerate(avatars):  # other persons
        other = torch.randn(avatar.rest.shape, generator=torch.Generator().manual_seed(k))
        changed = type(avatar)(avatar.config, avatar.head, avatar.rest + 1e-3 * other)
        changed.load_state_dict({**avatar.state_dict(), "rest": changed.rest}, strict=True)
        avatars[k] = changed.eval().requires_grad_(False)
    codes, heads, torsos = driving(make_avatar(), 6)
    with torch.no_grad():
        found = FrameModule(avatars)(codes, heads, torsos)
        for i in range(6):
            expected = avatars[i // 2].gaussians(codes[i], heads[i], torsos[i])
            assert_same(frame(found, i), expected)


def test_other_head_models(flame_avatars):
    _, heads, torsos = driving(make_avatar(), 4)
    code = flame_avatars[0].neutral_code + 0.05 * torch.randn(
        4, len(flame_avatars[0].neutral_code), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        found = FrameModule(flame_avatars)(code, heads, torsos)
        for i in range(4):
            expected = flame_avatars[i // 2].gaussians(code[i], heads[i], torsos[i])
            assert_same(frame(found, i), expected)


def test_live_basis():
    avatars = [make_avatar(seed) for seed in (0, 1)]
    bases = [fit_offset_basis(avatar, 6) for avatar in avatars]
    codes, heads, torsos = driving(avatars[0], 4)
    n = avatars[0].num_gaussians
    module = FrameModule(avatars, bases)
    with torch.no_grad():
        found = module(codes, heads, torsos)
        for i in range(4):
            avatar, basis = avatars[i // 2], bases[i // 2]
            raw = avatar.raw_offsets(codes[i], heads[i], torsos[i])
            known = (torch.tanh(raw) * avatar.offset_limits)[basis.rows.astype(np.int64)]
            offsets = torch.from_numpy(basis.offsets(basis.weights(known.numpy()))[:, :n].T)
            offsets = offsets.clamp(-avatar.offset_limits, avatar.offset_limits)
            expected = compose(
                avatar.binding, avatar.posed_vertices(codes[i], heads[i], torsos[i]),
                Offsets(*offsets.split(3, 1)), avatar.attributes.rotation,
                avatar.attributes.log_scale, avatar.attributes.opacity_logit.sigmoid(),
                lambda points, i=i, avatar=avatar: avatar.base_colors(points, heads[i]),
            )  # fmt: skip
            assert_same(frame(found, i), expected, 1e-5)
    bases[1] = fit_offset_basis(avatars[1], 5)
    with pytest.raises(InputError, match="bases of one rank"):
        FrameModule(avatars, bases)


def test_half_precision_is_near():
    avatar = make_avatar()
    given = driving(avatar, 2)
    with torch.no_grad():
        exact = FrameModule([avatar]).offsets(*given)
        half = FrameModule([avatar], dtype=torch.float16).offsets(*given)
    assert half.dtype == torch.float32
    error = (half - exact).abs()[..., :3].max()
    assert 0 < error < 1e-4


def test_avatars_must_be_alike():
    first = make_avatar()
    cases = [
        (make_avatar(uv_resolution=32), "Gaussians, the first has"),
        (make_avatar(width=16), "width is 16"),
        (make_avatar(fusion="concat"), "fusion is concat"),
    ]
    for other, message in cases:
        with pytest.raises(InputError, match=message):
            FrameModule([first, other])
    other = make_avatar()
    other.sample_barycentric.add_(0.1)
    with pytest.raises(InputError, match="elsewhere on the mesh"):
        FrameModule([first, other])
    other = make_avatar()
    other.skinning.mul_(0.5)
    with pytest.raises(InputError, match="head model"):
        FrameModule([first, other])


class _Watch(TorchDispatchMode):
    """Notes tensors that come from the host's numbers, and reads of values."""

    FORBIDDEN = ("lift_fresh", "_local_scalar_dense", "nonzero", "_to_copy", "masked_select",
                 "unique", "equal.default", "item", "index_add", "index_put")  # fmt: skip

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in self.FORBIDDEN):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["linear", "flame"])
def test_nothing_depends_on_values_or_comes_from_the_host(kind, flame_avatars):
    avatars = flame_avatars if kind == "flame" else [make_avatar()]
    module = FrameModule(avatars)
    codes, heads, torsos = driving(make_avatar(), 4)
    codes = avatars[0].neutral_code.expand(4, -1).contiguous()
    with torch.no_grad(), _Watch() as watch:
        module(codes, heads, torsos)
    assert watch.seen == []


@pytest.mark.parametrize("kind", ["linear", "flame"])
def test_every_tensor_is_on_the_device(kind, flame_avatars):
    """On a device that is only imagined: a tensor left on the CPU would be refused."""
    avatars = flame_avatars if kind == "flame" else [make_avatar()]
    module = FrameModule(avatars)
    codes, heads, torsos = driving(make_avatar(), 4)
    codes = avatars[0].neutral_code.expand(4, -1)
    mode = FakeTensorMode()

    def imagined(value):
        shape = torch.empty(value.shape, dtype=value.dtype, device="meta")
        return FakeTensor(mode, shape, torch.device("meta"))

    for part in module.modules():
        for name, value in part._buffers.items():
            part._buffers[name] = None if value is None else imagined(value)
        for name, value in part._parameters.items():
            part._parameters[name] = None if value is None else imagined(value)
    with torch.no_grad(), mode:
        found = module(*(imagined(v) for v in (codes, heads, torsos)))
    for name in FIELDS:
        assert getattr(found, name).device.type == "meta"
    assert found.means.shape == (4, avatars[0].num_gaussians, 3)
