from __future__ import annotations

import pytest
from cag_avatar_training.split import split_frames

from cag_avatar.errors import InputError


def test_splits() -> None:
    train, held_out = split_frames(464, "last")
    assert held_out == list(range(371, 464))
    assert train == list(range(371))
    train, held_out = split_frames(92, "blocks")
    assert held_out == [*range(37, 46), *range(83, 92)]
    assert sorted(train + held_out) == list(range(92))
    with pytest.raises(InputError, match="too few"):
        split_frames(20, "blocks")
    with pytest.raises(InputError, match="unknown 'first'"):
        split_frames(20, "first")
    assert split_frames(4, "source", [3, 1]) == ([0, 2], [1, 3])
    with pytest.raises(InputError, match="names no held-out frames"):
        split_frames(4, "source")
