"""What an avatar keeps of the motion it was trained on."""

from __future__ import annotations

import numpy as np
from cag_avatar_training.capture import capture_record
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.motion import Motion

from cag_avatar.avatar.driver import CodeLayout, resting_code
from cag_avatar.head_models import ARKIT_INDEX, load_head_model


def test_the_distribution_is_that_of_the_training_frames(tiny_dataset: Dataset) -> None:
    head = load_head_model("anny")
    frames, held_out = tiny_dataset.split("last")
    motion = Motion.tracked(tiny_dataset.tracking)
    motion.codes[held_out] = 1.0  # must not matter
    record = capture_record(tiny_dataset, motion, frames, (1.0, 1.0, 1.0), head)
    space = record.distribution
    assert space is not None
    codes = tiny_dataset.tracking.codes[frames].astype(np.float64)
    np.testing.assert_allclose(space.mean, codes.mean(0), atol=1e-6)
    np.testing.assert_allclose(space.rest, resting_code(codes, CodeLayout.of(head)))
    # Only the jaw moves in this clip.
    assert space.basis.shape == (1, 52)
    assert abs(space.basis[0, ARKIT_INDEX["jawOpen"]]) > 0.999
    np.testing.assert_allclose(space.deviation, codes[:, ARKIT_INDEX["jawOpen"]].std(), rtol=1e-4)
