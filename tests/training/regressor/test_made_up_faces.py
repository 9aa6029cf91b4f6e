"""Faces that a person never made."""

from __future__ import annotations

import numpy as np
from cag_avatar_training.regressor.made_up_faces import made_up_codes

from cag_avatar.head_models import ARKIT_INDEX


def test_made_up_codes_are_faces() -> None:
    codes = made_up_codes(np.zeros((4, 52), np.float32), 300, np.random.default_rng(0))
    assert codes.min() >= 0
    assert codes.max() <= 1
    both = codes[:, [ARKIT_INDEX["eyeLookUpLeft"], ARKIT_INDEX["eyeLookDownLeft"]]]
    assert (both.min(1) == 0).all()
    assert ((codes > 0).sum(1) >= 1).all()
    used = (codes > 0).any(0)
    assert used.sum() == 51  # all but the tongue
    out, inward = ARKIT_INDEX["eyeLookOutLeft"], ARKIT_INDEX["eyeLookInRight"]
    np.testing.assert_allclose(codes[:, out], codes[:, inward])  # the eyes turn together
