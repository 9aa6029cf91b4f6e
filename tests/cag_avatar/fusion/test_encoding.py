from __future__ import annotations

import math

import torch

from cag_avatar.fusion.encoding import encode_positions, encoded_size


def test_closed_form():
    encoded = encode_positions(torch.tensor([[0.15, -0.3, 0.075]]), octaves=2, scale=0.15)[0]
    unit = (1.0, -2.0, 0.5)
    expected = [*unit]
    for octave in (1, 2):
        expected += [math.sin(octave * x) for x in unit] + [math.cos(octave * x) for x in unit]
    torch.testing.assert_close(encoded, torch.tensor(expected))


def test_sizes():
    assert encoded_size(8) == 51
    assert encode_positions(torch.zeros(4, 5, 3)).shape == (4, 5, 51)
    assert encode_positions(torch.ones(1, 3), octaves=0, scale=2.0).tolist() == [[0.5, 0.5, 0.5]]
