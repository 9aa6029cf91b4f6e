from __future__ import annotations

import pytest
import torch
from cag_avatar_training.gradient_sampling import (
    probabilities_on_device,
    sample_rows,
    sampling_probabilities,
)

N = 300


def gradient() -> torch.Tensor:
    """Rows whose sizes are spread over four decades; some are 0."""
    torch.manual_seed(1)
    rows = torch.randn(N, 12) * 10 ** (4 * torch.rand(N, 1) - 4)
    rows[::10] = 0
    return rows


def test_a_fraction_of_one_keeps_every_row_that_is_not_zero():
    whole = gradient()
    rows, kept = sample_rows(whole, 1.0, 0)
    assert rows.tolist() == [i for i in range(N) if i % 10]
    assert torch.equal(kept, whole[rows])


def test_the_sum_is_right_on_average():
    whole = gradient()
    sums = []
    counts = []
    for seed in range(300):
        rows, kept = sample_rows(whole, 0.3, seed)
        sums.append(kept.sum(0))
        counts.append(len(rows))
    exact = whole.sum(0)
    assert (torch.stack(sums).mean(0) - exact).norm() < 0.02 * exact.norm()
    assert 0.25 * N < sum(counts) / len(counts) <= 0.3 * N
    assert 0 < (sums[0] - exact).norm() < 0.5 * exact.norm()


def test_equal_seeds_give_equal_samples():
    first, again, other = (sample_rows(gradient(), 0.3, seed)[0].tolist() for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_probabilities():
    size = torch.tensor([0.0, 1.0, 1.0, 100.0])
    p = sampling_probabilities(size, 0.5)
    torch.testing.assert_close(p, torch.tensor([0.0, 0.5, 0.5, 1.0]), atol=0.02, rtol=0)
    assert (sampling_probabilities(size, 1.0) == 1).all()
    assert (sampling_probabilities(torch.zeros(3), 0.5) == 1).all()


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.9, 1.0])
def test_a_gpu_gets_the_same_probabilities(fraction):
    size = gradient().norm(dim=1)
    for case in (size, torch.zeros(5), torch.tensor([0.0, 1.0, 1.0, 100.0])):
        expected = sampling_probabilities(case, fraction)
        torch.testing.assert_close(probabilities_on_device(case, fraction), expected)
