"""Areas of a face as people name them: the regions of a head model, its skin divided further.

The skin has no labels of its own; it is divided by where a point lies from the eyes and the mouth
of the person at rest, so the division needs eyeballs and lips and fits every head model that has
them. Lengths are in distances between the eyes' centres (about 5 cm), from the point midway
between them: X to either side, Y up, Z out of the face, and M is how far below the lips lie (1.1).

============ ==================================================================================
eyelids      within 0.44 (side), 0.27 (up), 0.30 (down) of an eye's centre
brows        the band 0.24 < Y < 0.58 above the eyes, X < 1.1
forehead     above the brows and beside them
nose         X < 0.38, from the brows down to Y = -0.68 M
around_mouth X < 0.62, -0.68 M > Y > -1.38 M
chin         below that: X < 0.55, Z > -0.9
jaw          lower than the lips: sides and underside
cheeks       the rest, temples included
============ ==================================================================================
"""

from __future__ import annotations

import torch
from torch import Tensor

from cag_avatar.head_models.base import REGIONS, HeadModel

__all__ = ["FACE_AREAS", "face_areas"]

#: Names of the areas, from the inside of the mouth outwards.
FACE_AREAS: tuple[str, ...] = (
    "teeth_upper",
    "teeth_lower",
    "tongue",
    "mouth_cavity",
    "lips",
    "around_mouth",
    "chin",
    "jaw",
    "nose",
    "cheeks",
    "eyes",
    "eyelids",
    "brows",
    "forehead",
    "ears",
    "scalp",
    "neck",
    "shoulders",
)

#: Regions that are areas under another name.
_RENAMED = {"eye_left": "eyes", "eye_right": "eyes", "face_skin": "cheeks"}


def face_areas(head: HeadModel, rest: Tensor, points: Tensor, region: Tensor) -> Tensor:
    """Index into FACE_AREAS of points on a person's surface, [N] int64.

    Args:
        head: the head model.
        rest: rest vertices of the person, canonical space, metres, [V, 3].
        points: on that surface, [N, 3].
        region: index into REGIONS of each, [N].

    A head without eyeballs or lips keeps its skin in one piece, "cheeks".
    """
    lookup = torch.tensor([FACE_AREAS.index(_RENAMED.get(name, name)) for name in REGIONS])
    area = lookup.to(region.device)[region]
    centres = head.eye_centres(rest)
    lips = head.region_vertices("lips")
    if not torch.isfinite(centres).all() or len(lips) == 0:
        return area
    unit = (centres[0] - centres[1]).norm()
    middle = centres.mean(0)
    x, y, z = ((points - middle) / unit).unbind(-1)
    x = x.abs()
    mouth = (middle[1] - rest[lips, 1].mean()) / unit
    height = torch.where(y > 0, 0.27, 0.30)
    above = y > -0.68 * mouth
    divided = (
        ("eyelids", ((x - 0.5) / 0.44).square() + (y / height).square() < 1),
        ("brows", (y > 0.24) & (y < 0.58) & (x < 1.1)),
        ("forehead", y >= 0.24),
        ("nose", above & (x < 0.38)),
        ("around_mouth", ~above & (y > -1.38 * mouth) & (x < 0.62)),
        ("chin", (y <= -1.38 * mouth) & (x < 0.55) & (z > -0.9)),
        ("jaw", y < -mouth),
    )
    free = region == REGIONS.index("face_skin")
    for name, inside in divided:  # the first that fits
        area = torch.where(free & inside, FACE_AREAS.index(name), area)
        free = free & ~inside
    return area
