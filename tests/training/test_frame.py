from __future__ import annotations

import numpy as np
import pytest
import torch
from cag_avatar_training.frame import Frame, FrameArrays

from cag_avatar.camera import PinholeCamera


@pytest.fixture
def frame() -> Frame:
    """2 x 2 pixels: outside, half, lips, teeth."""
    image = np.array([[[9, 9, 9], [200, 100, 0]], [[51, 0, 255], [255, 255, 255]]], np.uint8)
    alpha = np.array([[0, 128], [255, 255]], np.uint8)
    parsing = np.array([[0, 1], [4, 6]], np.uint8)
    mouth = (parsing >= 4).astype(np.uint8) * np.uint8(255)
    return Frame(FrameArrays(image, alpha, mouth, parsing), PinholeCamera(2, 2, 3.0, 3.0, 1.0, 1.0))


def test_target_is_composited(frame: Frame) -> None:
    background = torch.tensor([0.0, 0.5, 1.0])
    target = frame.target(background)
    torch.testing.assert_close(target[0, 0], background)
    torch.testing.assert_close(target[1, 0], torch.tensor([0.2, 0.0, 1.0]))
    share = 128 / 255
    half = torch.tensor([200.0, 100.0, 0.0]) / 255 * share + background * (1 - share)
    torch.testing.assert_close(target[0, 1], half)


def test_planes_are_fractions_and_labels(frame: Frame) -> None:
    torch.testing.assert_close(frame.alpha, torch.tensor([[0.0, 128 / 255], [1.0, 1.0]]))
    assert frame.mouth.tolist() == [[0, 0], [1, 1]]
    assert frame.parsing.dtype == torch.uint8
    assert frame.nbytes == 12 + 3 * 4


def test_masks_join_the_named_parts(frame: Frame) -> None:
    assert frame.mask("lips").tolist() == [[False, False], [True, False]]
    assert frame.mask("lips", "teeth").tolist() == [[False, False], [True, True]]
    with pytest.raises(KeyError, match="no part 'nose'"):
        frame.mask("nose")
