from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
import torch
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.initialization import (
    initialize_colors,
    labelled_color,
    observed_colors,
)
from cag_avatar_training.motion import Motion
from cag_avatar_training.parts import PARSING_LABELS

from cag_avatar.head_models import REGIONS
from cag_avatar.rendering.spherical_harmonics import SH_CONSTANT
from tests.conftest import make_avatar


def test_faces_towards_the_camera_get_the_paint_of_the_picture(tiny_dataset):
    """The tiny dataset paints each region in one colour: the face must get the face's."""
    avatar = make_avatar()
    motion = Motion.tracked(tiny_dataset.tracking)
    colors, weight = observed_colors(avatar, tiny_dataset, [0, 4, 8], motion, torch.ones(3))
    face = (avatar.sample_region == REGIONS.index("face_skin")) & (weight > 1.5)
    assert face.sum() > 20
    paint = torch.linspace(0.1, 0.9, len(REGIONS))[0] * torch.tensor([1.0, 0.7, 0.5])
    assert (colors[face].median(0).values - paint).abs().max() < 0.05


def _starting_colors(dataset):
    avatar = make_avatar()
    avatar.attributes.color_base.zero_()
    motion = Motion.tracked(dataset.tracking)
    initialize_colors(avatar, dataset, list(range(12)), motion, torch.ones(3))
    return avatar, 0.5 + SH_CONSTANT * avatar.attributes.color_base[:, 0]


def test_what_nothing_tells_the_colour_of_stays_grey(tiny_dataset):
    avatar, start = _starting_colors(tiny_dataset)
    assert (start[avatar.sample_region == REGIONS.index("teeth_upper")] == 0.5).all()


def test_the_back_of_the_head_starts_in_the_colour_of_its_front(tiny_dataset):
    avatar, start = _starting_colors(tiny_dataset)
    normals = avatar.binding.normals(avatar.rest)
    scalp = avatar.sample_region == REGIONS.index("scalp")
    back, front = scalp & (normals[:, 2] < -0.5), scalp & (normals[:, 2] > 0.5)
    assert (start[back] != 0.5).any(1).all()
    low, high = start[front].amin(0) - 1e-6, start[front].amax(0) + 1e-6
    assert ((start[back] >= low) & (start[back] <= high)).all()


#: RGB of enamel and of the gaps between teeth in the pictures below.
_ENAMEL, _GAP = (204, 200, 180), (40, 20, 20)


@pytest.fixture
def toothy(tiny_dataset_path, tmp_path):
    """The tiny dataset with a stripe labelled teeth in frame 4, one part in three of it gaps."""
    path = tmp_path / "toothy.dataset"
    shutil.copytree(tiny_dataset_path, path)
    image, label = path / "images" / "00004.png", path / "parsing" / "00004.png"
    picture, parsing = cv2.imread(str(image)), cv2.imread(str(label), cv2.IMREAD_GRAYSCALE)
    parsing[30:36, 20:50] = PARSING_LABELS.index("teeth")
    picture[30:36, 20:40], picture[30:36, 40:50] = _ENAMEL[::-1], _GAP[::-1]
    alpha = path / "alpha" / "00004.png"
    matte = cv2.imread(str(alpha), cv2.IMREAD_GRAYSCALE)
    matte[30:36, 20:50] = 255
    for file, plane in ((image, picture), (label, parsing), (alpha, matte)):
        cv2.imwrite(str(file), plane)
    return Dataset.open(path)


def test_a_part_has_the_colour_of_its_labelled_pixels(toothy):
    color = labelled_color(toothy, range(12), "teeth", torch.ones(3))
    assert color is not None
    assert (color - torch.tensor(_ENAMEL) / 255).abs().max() < 0.01


def test_a_part_that_hardly_any_pixel_shows_has_no_colour(toothy):
    few = np.flatnonzero([not toothy.frame(i).mask("teeth").any() for i in range(12)])
    assert len(few) >= 8
    assert labelled_color(toothy, few.tolist(), "teeth", torch.ones(3)) is None


def test_teeth_start_with_the_colour_of_teeth(toothy):
    avatar, start = _starting_colors(toothy)
    for name in ("teeth_upper", "teeth_lower"):
        teeth = start[avatar.sample_region == REGIONS.index(name)]
        assert (teeth - torch.tensor(_ENAMEL) / 255).abs().max() < 0.01
