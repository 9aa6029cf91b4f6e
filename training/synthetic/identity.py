"""A random person: shape, colours, hair, clothes, and the light they sit in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.head_models import HeadModel

__all__ = [
    "SHAPE_LIMIT",
    "SHAPE_SPREAD",
    "Light",
    "Traits",
    "draw_traits",
    "mouth_offsets",
    "srgb_to_linear",
]

Colour = tuple[float, float, float]

#: Skin from light to dark, sRGB 0..255.
_SKIN = np.array(
    [
        (238, 200, 178),
        (224, 178, 150),
        (198, 148, 118),
        (164, 114, 86),
        (122, 82, 61),
        (88, 59, 46),
    ],
    float,
)
_LIPS = np.array(
    [(198, 118, 112), (190, 106, 98), (168, 92, 84), (142, 76, 68), (112, 62, 56), (88, 50, 46)],
    float,
)
_HAIR = np.array(
    [(34, 28, 26), (52, 38, 30), (78, 54, 38), (112, 78, 48), (158, 122, 78), (104, 52, 32)], float
)
_IRIS = np.array(
    [(78, 50, 30), (104, 70, 36), (112, 104, 62), (88, 116, 108), (84, 118, 150), (108, 124, 132)],
    float,
)
_CLOTH = np.array(
    [(52, 68, 98), (116, 44, 48), (62, 84, 70), (84, 84, 90), (176, 168, 152), (60, 98, 112)], float
)
_WALL = np.array([(188, 196, 202), (206, 198, 186), (150, 168, 172), (172, 178, 190)], float)

#: Shape components: standard deviation, in that of the model, and the farthest taken.
SHAPE_SPREAD = 0.55
SHAPE_LIMIT = 1.3


@dataclass(frozen=True)
class Light:
    """Two distant lamps and a sky, fixed to the room. Directions point to the lamp, camera axes."""

    key_direction: Colour
    key_colour: Colour
    fill_direction: Colour
    fill_colour: Colour
    sky_colour: Colour
    """Ambient light from above."""
    ground_colour: Colour
    """Ambient light from below."""


@dataclass(frozen=True)
class Traits:
    """Everything that makes one synthetic person; colours are sRGB in [0, 1]."""

    identity: Tensor
    """Identity coefficients of the head model, [I] float32."""
    skin: Colour
    lips: Colour
    darkness: float
    """0 for the lightest skin, 1 for the darkest."""
    freckles: float
    """0 to 1."""
    moles: int
    stubble: float
    """0 to 1."""
    wrinkles: float
    """Depth of the expression creases, about 0.7 to 1.3."""
    brow_thickness: float
    """About 0.8 to 1.3."""
    hair: Colour
    brows: Colour
    parted: bool
    """Hair combed sideways from a parting; else it falls from the crown."""
    hair_thickness: float
    """Height of the hair over the skull at the top, metres."""
    hairline: float
    """How far the hairline is moved up, metres."""
    iris: Colour
    pupil: float
    """Radius of the pupil over that of the iris."""
    teeth: Colour
    cloth: Colour
    wall: tuple[Colour, Colour]
    """Background at the top and at the bottom."""
    light: Light


def draw_traits(
    model: HeadModel,
    rng: np.random.Generator,
    spread: float = SHAPE_SPREAD,
    limit: float = SHAPE_LIMIT,
) -> Traits:
    """Draw a person. Everything comes from ``rng``, so a seed names a person.

    Args:
        model: head model.
        rng: source of all choices.
        spread: standard deviation of the identity coefficients.
        limit: largest identity coefficient.
    """
    shape = np.clip(rng.normal(0, spread, model.num_identity), -limit, limit)
    darkness = float(rng.beta(1.3, 1.9))
    skin = _blend(_SKIN, darkness) * rng.uniform(0.97, 1.03, 3)
    fair = darkness < 0.45
    hair = _HAIR[rng.choice(6 if fair else 3)] * rng.uniform(0.9, 1.1)
    iris = _IRIS[rng.choice(6 if fair else 2)] * rng.uniform(0.9, 1.1)
    wall = _WALL[rng.choice(len(_WALL))]
    side = rng.choice([-1.0, 1.0])
    return Traits(
        identity=torch.tensor(shape, dtype=torch.float32),
        skin=_colour(skin),
        lips=_colour(_blend(_LIPS, darkness) * rng.uniform(0.95, 1.05, 3)),
        darkness=darkness,
        freckles=float(rng.uniform(0, 1) ** 2) if fair else 0.0,
        moles=int(rng.integers(2, 7)),
        stubble=float(rng.choice([0.0, 0.0, rng.uniform(0.3, 0.9)])),
        wrinkles=float(rng.uniform(0.8, 1.25)),
        brow_thickness=float(rng.uniform(0.85, 1.25)),
        hair=_colour(hair),
        brows=_colour(hair * 0.75),
        parted=bool(rng.random() < 0.55),
        hair_thickness=float(rng.uniform(0.010, 0.020)),
        hairline=float(rng.uniform(-0.004, 0.006)),
        iris=_colour(iris),
        pupil=float(rng.uniform(0.34, 0.46)),
        teeth=_colour(np.array([236, 228, 210]) * rng.uniform(0.95, 1.02)),
        cloth=_colour(_CLOTH[rng.choice(len(_CLOTH))] * rng.uniform(0.9, 1.1)),
        wall=(_colour(wall * 1.05), _colour(wall * 0.78)),
        light=Light(
            key_direction=(side * float(rng.uniform(0.35, 0.6)), -0.55, -0.75),
            key_colour=(1.72, 1.60, 1.44),
            fill_direction=(-side * 0.75, -0.1, -0.55),
            fill_colour=(0.24, 0.28, 0.34),
            sky_colour=(0.38, 0.41, 0.46),
            ground_colour=(0.21, 0.18, 0.16),
        ),
    )


def mouth_offsets(model: HeadModel) -> Tensor:
    """Rest offsets [V, 3], metres: teeth that show under the lips, a tongue that lies low.

    The mean head hides its upper teeth behind the upper lip and lifts its tongue to the palate.
    """
    offsets = torch.zeros_like(model.vertices)
    shifts = {
        "teeth_upper": (0.0, -0.0021, 0.0005),
        "teeth_lower": (0.0, -0.0012, 0.0),
        "tongue": (0.0, -0.0065, -0.003),
    }
    for region, shift in shifts.items():
        offsets[model.region_vertices(region)] = torch.tensor(shift)
    return offsets


def srgb_to_linear(colour: NDArray[np.floating] | Colour) -> NDArray[np.float32]:
    """Decode sRGB in [0, 1] (IEC 61966-2-1) to linear light."""
    c = np.asarray(colour, np.float32)
    return np.asarray(
        np.where(c <= 0.04045, c / 12.92, (np.maximum(c, 0) / 1.055 + 0.055 / 1.055) ** 2.4),
        np.float32,
    )


def _blend(palette: NDArray[np.float64], t: float) -> NDArray[np.float64]:
    where = np.linspace(0, 1, len(palette))
    return np.stack([np.interp(t, where, channel) for channel in palette.T])


def _colour(values: NDArray[np.float64]) -> Colour:
    r, g, b = np.clip(values / 255, 0, 1).tolist()
    return (r, g, b)
