"""Which coefficients each part of a face listens to.

Two measures, because the first alone says little about what happens:

* **Attention**: the weights that a fusion gives to its tokens (see Fusion.attention), averaged over
  heads and over the Gaussians of an area. Static: they belong to the avatar, not to a frame. There
  are none where a fusion does not attend (``concat``) or attends to one token only.
* **Influence**: how far the bounded offsets move when one coefficient goes from neutral to its
  greatest value (ARKit's: from 0 to 1; unbounded ones by 1; the neck's turns by 20 degrees) and all
  others stay neutral. Root mean square over the Gaussians of an area. It exists for every fusion.
  The mesh's own motion, which every avatar of a head model shares, is not in it. Of coefficients
  that the training hardly moved it tells what the network makes up.

Both weigh Gaussians by their opacity, so that what nobody sees does not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cag_avatar.avatar.model import Avatar
from cag_avatar.fusion.offsets import bounded_offsets
from cag_avatar.fusion.tokens import NECK_TOKENS, token_names
from cag_avatar.head_models.face_areas import FACE_AREAS, face_areas
from cag_avatar.insight.families import family_order

__all__ = ["NECK_STEP", "Listening", "listen"]

#: Turn of the neck whose influence is measured, radians.
NECK_STEP = math.radians(20.0)
#: The neck's weights against those of other tokens, when it is asked which is the largest.
_NECK_COUNTS = 0.25
#: A coefficient that spans less than this in training counts as not seen.
_SEEN = 0.05


@dataclass(frozen=True)
class Listening:
    """What A areas of a face with N Gaussians listen to, of T tokens."""

    fusion: str
    """Name of the fusion."""
    tokens: tuple[str, ...]
    """Names of the tokens, T."""
    seen: tuple[bool, ...]
    """Whether the training moved the token's coefficients, T; the neck counts as moved."""
    areas: tuple[str, ...]
    """Names of the areas that have Gaussians, A, in the order of FACE_AREAS."""
    gaussians: tuple[int, ...]
    """Number of Gaussians of each area."""
    attention: Tensor | None
    """Mean weight (with gates: how far they are open) of each token, [A, T]; None where the fusion
    has none."""
    position: Tensor
    """Influence on the position, millimetres, [A, T]."""
    color: Tensor
    """Influence on the colour, levels of 255, [A, T]."""
    spread: Tensor | None
    """Over how many tokens the attention spreads, 1 .. T: the exponential of a head's entropy,
    [A]."""
    attention_family: Tensor | None
    """Index into FAMILIES of the token that each Gaussian attends to most, [N] int64. Every
    Gaussian attends to the neck: it is named only where no other token has a quarter of its
    weight."""
    influence_family: Tensor
    """Index into FAMILIES of the token that moves each Gaussian most, [N] int64."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: without what is said of single Gaussians."""

        def table(values: Tensor) -> dict[str, dict[str, float]]:
            return {
                area: dict(zip(self.tokens, [round(x, 6) for x in row], strict=True))
                for area, row in zip(self.areas, values.tolist(), strict=True)
            }

        return {
            "fusion": self.fusion,
            "tokens": list(self.tokens),
            "not_seen_in_training": [
                t for t, seen in zip(self.tokens, self.seen, strict=True) if not seen
            ],
            "gaussians": dict(zip(self.areas, self.gaussians, strict=True)),
            "attention_spreads_over_tokens": None
            if self.spread is None
            else dict(zip(self.areas, [round(x, 3) for x in self.spread.tolist()], strict=True)),
            "attention": None if self.attention is None else table(self.attention),
            "influence_position_mm": table(self.position),
            "influence_color_levels": table(self.color),
        }


@torch.no_grad()
def listen(avatar: Avatar) -> Listening:
    """Measure an avatar; takes about a second of the CPU."""
    names = token_names(avatar.head.code_tokens, avatar.config.neck_tokens)
    tokens = tuple(dict.fromkeys(names))
    owner = torch.tensor([tokens.index(name) for name in names])
    area = face_areas(avatar.head, avatar.rest, avatar.binding.rest_points, avatar.sample_region)
    present = [i for i in range(len(FACE_AREAS)) if bool((area == i).any())]
    opacity = avatar.attributes.opacity_logit.sigmoid()
    # [A, N]: shares that sum to 1 over an area's Gaussians.
    shares = torch.stack([(area == i) * opacity for i in present])
    shares = shares / shares.sum(1, keepdim=True)

    static = avatar.attention()
    weights = avatar.fusion.attention(static)
    attention = None if weights is None else weights.float().mean(0)  # [N, T]

    moved = torch.zeros(len(area), len(tokens))
    tinted = torch.zeros(len(area), len(tokens))
    for index, position, color in _influences(avatar, static, len(names)):
        moved[:, owner[index]] += position
        tinted[:, owner[index]] += color
    families = family_order(tokens)
    return Listening(
        fusion=avatar.config.fusion,
        tokens=tokens,
        seen=_seen(avatar, names, tokens),
        areas=tuple(FACE_AREAS[i] for i in present),
        gaussians=tuple(int((area == i).sum()) for i in present),
        attention=None if attention is None else shares @ attention,
        position=(shares @ moved).sqrt() * 1e3,
        color=(shares @ tinted).sqrt() * 255,
        spread=None if weights is None else shares @ _spread(weights.float()),
        attention_family=None if attention is None else families[_attended_most(attention, tokens)],
        influence_family=families[moved.argmax(1)],
    )


def _attended_most(attention: Tensor, tokens: tuple[str, ...]) -> Tensor:
    """Index of the token [N] of weights [N, T]; the neck's count for less."""
    factor = torch.tensor([_NECK_COUNTS if token in NECK_TOKENS else 1.0 for token in tokens])
    return (attention * factor).argmax(1)


def _influences(
    avatar: Avatar, static: Tensor | None, count: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Of each driving value: squared change of position (m^2) and mean of colour's, [N] each."""
    step = torch.full((count,), NECK_STEP)
    reach = avatar.code_high - avatar.neutral_code
    step[: len(reach)] = torch.where(torch.isfinite(reach), reach, torch.ones_like(reach))
    first = avatar.network.static(avatar.encoding)

    def offsets(psi: Tensor) -> tuple[Tensor, Tensor]:
        raw = avatar.decode(avatar.network, first, avatar.fusion.context(static, psi))
        bounded = bounded_offsets(raw.expand(len(first), -1), avatar.offset_limits)
        return bounded.position, bounded.color

    still = offsets(torch.zeros(count))
    for index in range(count):
        psi = torch.zeros(count)
        psi[index] = step[index]
        position, color = offsets(psi)
        yield (
            index,
            (position - still[0]).square().sum(1),
            (color - still[1]).square().mean(1),
        )


def _seen(avatar: Avatar, names: tuple[str, ...], tokens: tuple[str, ...]) -> tuple[bool, ...]:
    moved = set(NECK_TOKENS)
    if avatar.record is None:
        return tuple(True for _ in tokens)
    spans = avatar.record.code_max - avatar.record.code_min
    moved |= {name for name, span in zip(names, spans, strict=False) if span >= _SEEN}
    return tuple(token in moved for token in tokens)


def _spread(weights: Tensor) -> Tensor:
    """Exponential of the entropy of weights [heads, N, T], mean over heads: [N]."""
    share = weights / weights.sum(-1, keepdim=True).clamp_min(1e-30)
    return torch.special.entr(share).sum(-1).exp().mean(0)
