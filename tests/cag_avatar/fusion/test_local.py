"""Offsets by matrices of the Gaussians' own."""

from __future__ import annotations

import torch

from cag_avatar.fusion.local import LocalOffsets


def test_each_gaussian_has_its_own_matrix() -> None:
    torch.manual_seed(0)
    local, context = LocalOffsets(4, gain := torch.rand(7, 12)), torch.rand(7, 9)
    assert not local(context).any()  # nothing before training
    with torch.no_grad():
        local.weight.normal_()
    expected = torch.stack([local.weight[i].T @ context[i, :4] for i in range(7)]) * gain
    torch.testing.assert_close(local(context), expected)
    rows = torch.tensor([5, 0])
    torch.testing.assert_close(local(context[rows], rows), expected[rows])


def test_a_context_that_all_share() -> None:
    local, context = LocalOffsets(2, torch.ones(3, 12)), torch.rand(1, 2)
    with torch.no_grad():
        local.weight.normal_()
    torch.testing.assert_close(local(context), local(context.expand(3, 2)))


def test_only_the_rows_meant_learn() -> None:
    local = LocalOffsets(2, torch.ones(4, 12))
    local(torch.ones(2, 2), torch.tensor([1, 3])).sum().backward()
    assert local.weight.grad is not None
    assert (local.weight.grad.abs().sum((1, 2)) > 0).tolist() == [False, True, False, True]
