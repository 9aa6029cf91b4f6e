"""The person's texture: every painter's layers on one atlas, packed for the shader."""

from __future__ import annotations

import numpy as np
from cag_avatar_training.synthetic.atlas import bake_atlas
from cag_avatar_training.synthetic.clothing import paint_shirt
from cag_avatar_training.synthetic.creases import crease_heights
from cag_avatar_training.synthetic.eyes import paint_eye
from cag_avatar_training.synthetic.hair import Hairdo
from cag_avatar_training.synthetic.identity import Traits, srgb_to_linear
from cag_avatar_training.synthetic.mouth import paint_lining, paint_teeth, paint_tongue
from cag_avatar_training.synthetic.paint import Layers
from cag_avatar_training.synthetic.skin import paint_brows, paint_lids, paint_lips, paint_skin
from numpy.typing import NDArray

from cag_avatar.head_models import REGIONS, HeadModel

__all__ = ["CHANNELS", "SLOPE_SCALE", "paint_texture"]

#: Layout of a packed texel: square root of linear albedo (3), slope of the fixed relief (3), then
#: slope (3) and depth (1) of crease patterns 0 and 1, gloss, sharpness.
CHANNELS = 16

#: A stored slope of 1 / SLOPE_SCALE is one step of the byte; 128 is level ground.
SLOPE_SCALE = 60.0


def paint_texture(
    model: HeadModel,
    traits: Traits,
    hair: Hairdo,
    margins: tuple[NDArray[np.float32], NDArray[np.float32]],
    size: int,
    seed: int,
) -> NDArray[np.uint8]:
    """Paint a person.

    Args:
        model: the head the atlas belongs to.
        traits: who it is.
        hair: where hair grows, for the roots painted under it.
        margins: points of the upper and lower lid margins on the mean rest head, [N, 3], [M, 3].
        size: width and height of the texture.
        seed: of the blemishes.

    Returns:
        [size, size, CHANNELS] uint8, see CHANNELS; row 0 is v = 1.
    """
    atlas = bake_atlas(model, size)
    layers = Layers.blank(len(atlas.index))
    creases = np.zeros((len(atlas.index), 2), np.float32)

    def texels(*names: str) -> NDArray[np.int64]:
        return np.flatnonzero(np.isin(atlas.region, [REGIONS.index(n) for n in names]))

    outside = texels("face_skin", "lips", "ears", "scalp", "neck", "shoulders")
    points = atlas.position[outside]
    paint_skin(layers, outside, points, traits, seed)
    face = texels("face_skin", "lips")
    points = atlas.position[face]
    paint_brows(layers, face, points, traits, hair.streaks)
    paint_lips(layers, face, points, traits, seed + 11)
    paint_lids(layers, face, points, margins, traits)
    creases[face] = traits.wrinkles * crease_heights(points, seed + 13)
    scalp = texels("face_skin", "scalp", "neck")
    hair.paint_roots(layers, scalp, atlas.position[scalp], traits)
    body = texels("neck", "shoulders")
    paint_shirt(layers, body, atlas.position[body], traits, seed + 17)

    lining = texels("mouth_cavity")
    paint_lining(layers, lining, atlas.position[lining])
    tongue = texels("tongue")
    paint_tongue(layers, tongue, atlas.position[tongue], seed + 19)
    for name, upper in (("teeth_upper", True), ("teeth_lower", False)):
        where = texels(name)
        paint_teeth(layers, where, atlas.position[where], traits, upper, seed + 23 + upper)
    for name, centre in zip(("eye_left", "eye_right"), model.eye_centres(model.vertices).numpy(),
                            strict=True):  # fmt: skip
        where = texels(name)
        paint_eye(layers, where, atlas.position[where], centre, traits, seed + 29)

    packed = np.zeros((size * size, CHANNELS), np.uint8)
    packed[:, 3:12] = 128
    packed[:, 9] = packed[:, 13] = 0
    texel = np.zeros((len(atlas.index), CHANNELS), np.uint8)
    texel[:, 0:3] = _byte(255 * np.sqrt(srgb_to_linear(layers.albedo)))
    slopes = atlas.slopes(np.column_stack([layers.height, creases]))
    texel[:, 3:6] = _slope_bytes(slopes[0])
    for pattern, first in enumerate((6, 10)):
        texel[:, first : first + 3] = _slope_bytes(slopes[1 + pattern])
        texel[:, first + 3] = _byte(255 * np.clip(-creases[:, pattern] / 0.0016, 0, 1))
    texel[:, 14] = _byte(255 * layers.gloss)
    texel[:, 15] = _byte(255 * layers.sharpness)
    packed[atlas.index] = texel
    return packed.reshape(size, size, CHANNELS)


def _byte(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def _slope_bytes(slope: NDArray[np.float32]) -> NDArray[np.uint8]:
    return _byte(128 + SLOPE_SCALE * slope)
