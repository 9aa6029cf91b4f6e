"""Families of tokens as colours on the head."""

from __future__ import annotations

import torch
from torch import Tensor

from cag_avatar.insight.families import FAMILY_COLORS

__all__ = ["overlay_colors"]

#: Weights of red, green and blue in brightness (ITU-R BT.709).
_BRIGHTNESS = (0.2126, 0.7152, 0.0722)


def overlay_colors(family: Tensor, colors: Tensor, strength: float = 0.7) -> Tensor:
    """RGB [N, 3] of Gaussians painted by family, over their own brightness.

    Args:
        family: index into FAMILIES of each Gaussian, [N].
        colors: their own RGB, [N, 3].
        strength: 0 leaves their brightness, 1 paints flat.
    """
    paint = torch.tensor(FAMILY_COLORS, dtype=colors.dtype, device=colors.device)[family]
    brightness = (colors @ colors.new_tensor(_BRIGHTNESS))[:, None]
    return strength * paint + (1 - strength) * brightness
