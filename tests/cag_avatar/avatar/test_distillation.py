from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.avatar.code_distribution import CodeDistribution
from cag_avatar.avatar.distillation import fit_offset_basis, sample_driving
from cag_avatar.avatar.file import load_avatar, save_avatar
from cag_avatar.avatar.model import Avatar
from cag_avatar.avatar.offset_basis import BLOCK, OffsetBasis
from cag_avatar.errors import InputError
from tests.conftest import facing_pose, make_avatar


class RowNetwork:
    """The offsets of some Gaussians only, as the avatar's network gives them: in torch what frame.c
    does.

    Args:
        avatar: frozen.
        rows: Gaussians meant, [M].
    """

    @torch.no_grad()
    def __init__(self, avatar: Avatar, rows: NDArray[np.integer]) -> None:
        self._avatar = avatar
        self._rows = torch.from_numpy(rows.astype(np.int64))
        self._static = avatar.attention(self._rows)
        self._first = avatar.network.static(avatar.encoding[self._rows])
        self._limits = avatar.offset_limits[self._rows]

    @torch.inference_mode()
    def __call__(self, tokens: Tensor) -> NDArray[np.float32]:
        """Bounded offsets [M, 12] of driving values psi [D]."""
        own = self._avatar
        context = own.fusion.context(self._static, tokens)
        raw = own.decode(own.network, self._first, context, self._rows)
        return (torch.tanh(raw) * self._limits).numpy()


def exact_offsets(avatar, code, pose):
    raw = avatar.raw_offsets(code, pose, facing_pose())
    return (torch.tanh(raw) * avatar.offset_limits).numpy()


def basis_offsets(avatar, basis, code, pose):
    known = RowNetwork(avatar, basis.rows)(avatar.tokens(code, pose, facing_pose()))
    return basis.offsets(basis.weights(known))[:, : avatar.num_gaussians].T


@pytest.mark.parametrize("fusion", ["cross-attention", "concat"])
def test_stands_for_the_network_on_codes_it_never_saw(fusion):
    avatar = make_avatar(fusion=fusion)
    codes, poses = sample_driving(avatar.record, 6, np.random.default_rng(9))
    errors = []
    for rank in (4, 48):
        basis = fit_offset_basis(avatar, rank)
        assert basis.rank == rank
        assert len(basis.rows) == 4 * rank
        error, signal = [], []
        for code, pose in zip(torch.from_numpy(codes), torch.from_numpy(poses), strict=True):
            exact = exact_offsets(avatar, code, pose)
            error.append(basis_offsets(avatar, basis, code, pose) - exact)
            signal.append(exact - exact_offsets(avatar, torch.zeros(52), facing_pose()))
        errors.append(np.sqrt(np.mean(np.square(error)) / np.mean(np.square(signal))))
    assert errors[1] < 0.12
    assert errors[1] < 0.5 * errors[0]


def test_a_linear_network_is_met_up_to_eight_bits():
    """Offsets that are linear in the code have exactly as many directions as the code moves."""
    avatar = make_avatar(fusion="concat", neck_tokens=False, local_size=52)
    for parameter in avatar.network.last.parameters():
        parameter.data.zero_()
    avatar.local.weight.data *= 0.02  # where tanh is the identity
    basis = fit_offset_basis(avatar, 60)
    assert 50 <= basis.rank <= 60
    codes, poses = sample_driving(avatar.record, 3, np.random.default_rng(5))
    for code, pose in zip(torch.from_numpy(codes), torch.from_numpy(poses), strict=True):
        exact = exact_offsets(avatar, code, pose)
        found = basis_offsets(avatar, basis, code, pose)
        assert np.abs(found - exact).max() < 0.03 * np.abs(exact).max()


def test_a_row_network_gives_the_rows_of_the_whole():
    avatar = make_avatar()
    rows = np.array([5, 2, 77], np.int32)
    code, pose = torch.rand(52), facing_pose()
    some = RowNetwork(avatar, rows)(avatar.tokens(code, pose, pose))
    np.testing.assert_allclose(some, exact_offsets(avatar, code, pose)[rows], atol=1e-6)


def test_samples_stay_in_the_ranges_of_training():
    avatar = make_avatar()
    rng = np.random.default_rng(0)
    codes, poses = sample_driving(avatar.record, 50, rng)
    assert codes.min() >= 0
    assert codes.max() <= 0.8 + 1e-6
    assert codes.std(0).min() > 0.1
    shift = poses[:, :3, 3] - avatar.record.neutral_head_pose[:3, 3]
    assert np.abs(shift).max() <= 0.2 + 1e-6
    seen = CodeDistribution.of(rng.random((200, 52)) * [1] + [0] * 52, np.zeros(52))
    object.__setattr__(avatar.record, "distribution", seen)
    codes, _ = sample_driving(avatar.record, 50, rng)
    assert codes.min() >= -1e-6
    assert codes.max() <= 1 + 1e-6


def test_same_seed_same_basis():
    avatar = make_avatar()
    first, second = fit_offset_basis(avatar, 5), fit_offset_basis(avatar, 5)
    assert np.array_equal(first.levels, second.levels)
    assert np.array_equal(first.solve, second.solve)
    assert first.protocol == {"rank": 5, "samples": 20, "seed": 0}


def test_nonsense_is_refused():
    avatar = make_avatar()
    with pytest.raises(InputError, match="rank"):
        fit_offset_basis(avatar, 0)
    with pytest.raises(InputError, match="samples"):
        fit_offset_basis(avatar, 10, samples=10)
    avatar.record = None
    with pytest.raises(InputError, match="record"):
        fit_offset_basis(avatar)


def test_travels_in_the_avatar_file(tmp_path):
    avatar = make_avatar()
    avatar.live_basis = fit_offset_basis(avatar, 5)
    save_avatar(tmp_path / "a.cag", avatar)
    found = load_avatar(tmp_path / "a.cag").live_basis
    assert isinstance(found, OffsetBasis)
    for name, array in avatar.live_basis.tensors().items():
        assert np.array_equal(getattr(found, name), array)
    assert found.protocol == avatar.live_basis.protocol
    assert found.mean.shape[1] % BLOCK == 0


@pytest.mark.parametrize("name", ["mean", "levels", "step", "rows", "solve"])
def test_a_damaged_basis_is_named(name):
    avatar = make_avatar()
    tensors = fit_offset_basis(avatar, 5).tensors()
    missing = {key: value for key, value in tensors.items() if key != name}
    with pytest.raises(InputError, match=f"a.cag.*{name if name != 'levels' else ''}"):
        OffsetBasis.of_tensors(missing, avatar.num_gaussians, {}, "a.cag")
    bad = dict(tensors)
    bad[name] = bad[name][:-1]
    with pytest.raises(InputError, match=r"a\.cag.*cag-avatar compile"):
        OffsetBasis.of_tensors(bad, avatar.num_gaussians, {}, "a.cag")


def test_rows_that_are_not_there_and_nan_are_refused():
    avatar = make_avatar()
    tensors = fit_offset_basis(avatar, 5).tensors()
    with pytest.raises(InputError, match="rows"):
        OffsetBasis.of_tensors(
            {**tensors, "rows": tensors["rows"] + 100_000}, avatar.num_gaussians, {}, "a.cag"
        )
    with pytest.raises(InputError, match="solve"):
        OffsetBasis.of_tensors(
            {**tensors, "solve": tensors["solve"] * np.float32(np.nan)},
            avatar.num_gaussians, {}, "a.cag",
        )  # fmt: skip
