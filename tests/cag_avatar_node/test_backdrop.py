"""Pictures behind the avatar and instead of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cag_avatar.errors import InputError
from cag_avatar_node.backdrop import check_color, compose, load_backdrop, plain


def test_an_image_covers_the_square_uncut_in_its_shorter_side(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    picture = np.zeros((40, 120, 3), np.uint8)
    picture[:, 40:80] = (255, 0, 0)  # blue, for OpenCV
    cv2.imwrite(str(path), picture)
    for size in (20, 64):
        loaded = load_backdrop(str(path), size, "placard_image")
        assert loaded.shape == (size, size, 3)
        assert loaded.dtype == np.uint8
        assert (loaded[:, 2:-2] == (0, 0, 255)).all()


def test_bad_files_and_colours_name_the_parameter(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"parameter placard_image: .*none\.png does not exist"):
        load_backdrop(str(tmp_path / "none.png"), 8, "placard_image")
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises(InputError, match="is not an image"):
        load_backdrop(str(text), 8, "background_image")
    for bad in ([1, 2], [0, 0, 256]):
        with pytest.raises(InputError, match="parameter placard_color"):
            check_color(bad, "placard_color")
    assert (plain(check_color([1, 2, 3], "x"), 4) == (1, 2, 3)).all()


def test_composition_follows_alpha() -> None:
    random = np.random.default_rng(0)
    rgba = random.integers(0, 256, (16, 16, 4), dtype=np.uint8)
    back = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    alpha = rgba[..., 3:].astype(float) / 255
    expected = alpha * rgba[..., :3] + (1 - alpha) * back
    np.testing.assert_allclose(compose(rgba, back), expected, atol=1.0)
