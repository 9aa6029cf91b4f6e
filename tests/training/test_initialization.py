from __future__ import annotations

import torch
from cag_avatar_training.initialization import initialize_colors, observed_colors
from cag_avatar_training.motion import Motion

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


def test_the_back_of_the_head_and_the_teeth_stay_grey(tiny_dataset):
    avatar = make_avatar()
    avatar.attributes.color_base.zero_()
    motion = Motion.tracked(tiny_dataset.tracking)
    initialize_colors(avatar, tiny_dataset, list(range(12)), motion, torch.ones(3))
    normals = avatar.binding.normals(avatar.rest)
    start = 0.5 + SH_CONSTANT * avatar.attributes.color_base[:, 0]
    assert (start[normals[:, 2] < -0.5] == 0.5).all()
    assert (start[avatar.sample_region == REGIONS.index("teeth_upper")] == 0.5).all()
    assert (start != 0.5).any()
