from __future__ import annotations

import pytest
import torch

from cag_avatar.fusion.offsets import OffsetNetwork
from cag_avatar.fusion.sampled_backward import sampled_network, sampling_probabilities

N = 300


def network() -> OffsetNetwork:
    torch.manual_seed(0)
    made = OffsetNetwork(51, 20, 16, 3)
    torch.nn.init.normal_(made.last.weight, std=0.3)
    return made


def gradients(run, context):
    """Gradients of a weighted sum of outputs, weights spread over four decades."""
    made = network()
    torch.manual_seed(1)
    encoding = torch.randn(N, 51)
    weight = torch.randn(N, 12) * 10 ** (4 * torch.rand(N, 1) - 4)
    leaf = context.clone().requires_grad_()
    raw = run(made, encoding, leaf)
    (raw * weight).sum().backward()
    return raw.detach(), [leaf.grad, *(p.grad for p in made.parameters())]


@pytest.mark.parametrize("rows", [1, N])
def test_a_fraction_of_one_is_exact(rows):
    context = torch.randn(rows, 20)
    raw, exact = gradients(lambda n, e, c: n(e, c), context)
    value, found = gradients(lambda n, e, c: sampled_network(n, e, c, 1.0, 0), context)
    torch.testing.assert_close(value, raw)
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_sampled_gradients_are_right_on_average():
    context = torch.randn(N, 20)
    _, exact = gradients(lambda n, e, c: n(e, c), context)
    runs = [
        gradients(lambda n, e, c, s=seed: sampled_network(n, e, c, 0.3, s), context)[1]
        for seed in range(200)
    ]
    for index, truth in enumerate(exact):
        every = torch.stack([run[index] for run in runs])
        assert (every.mean(0) - truth).norm() < 0.05 * truth.norm()
    one = torch.cat([g.flatten() for g in runs[0][1:]])
    whole = torch.cat([g.flatten() for g in exact[1:]])
    assert 0 < (one - whole).norm() < 0.5 * whole.norm()


def test_equal_seeds_give_equal_gradients():
    context = torch.randn(N, 20)
    first, again, other = (
        gradients(lambda n, e, c, s=s: sampled_network(n, e, c, 0.3, s), context)[1][1]
        for s in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_probabilities():
    size = torch.tensor([0.0, 1.0, 1.0, 100.0])
    p = sampling_probabilities(size, 0.5)
    torch.testing.assert_close(p, torch.tensor([0.0, 0.5, 0.5, 1.0]), atol=0.02, rtol=0)
    assert (sampling_probabilities(size, 1.0) == 1).all()
    assert (sampling_probabilities(torch.zeros(3), 0.5) == 1).all()
