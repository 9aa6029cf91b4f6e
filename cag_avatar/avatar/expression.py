"""Expressions as people write them: ``jawOpen=0.6 mouthSmileLeft=0.4``."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cag_avatar.avatar.model import Avatar
from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_INDEX, ARKIT_NAMES

__all__ = ["parse_expression"]


def parse_expression(avatar: Avatar, words: Sequence[str]) -> Tensor:
    """The code [E] float32 of words ``name=value``; what is not named stays neutral.

    A name is a coefficient of the avatar, or one of ARKIT_NAMES, which reaches what the avatar's
    head model has of it (see HeadModel.arkit_to_code) and is overruled by the former.

    Raises:
        InputError: no such name, no number, or a number outside the coefficient's range (that of
            ARKit's is 0 to 1).
    """
    names = avatar.expression_names
    low, high = avatar.code_low.tolist(), avatar.code_high.tolist()
    own: dict[int, float] = {}
    arkit = torch.zeros(1, len(ARKIT_NAMES))
    for word in words:
        name, _, text = word.partition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"expression: '{word}' is not name=value, as in jawOpen=0.6")
        if name in names:
            index = names.index(name)
            least, most = low[index], high[index]
            own[index] = value
        elif name in ARKIT_INDEX:
            least, most = 0.0, 1.0
            arkit[0, ARKIT_INDEX[name]] = value
        else:
            near = difflib.get_close_matches(name, (*names, *ARKIT_NAMES), 3, 0.4)
            hint = f"did you mean {', '.join(near)}?" if near else f"have {', '.join(names)}"
            raise InputError(f"expression: no coefficient '{name}'; {hint}")
        if not least <= value <= most:
            raise InputError(f"expression: {name} = {value:g} must lie in {least:g} .. {most:g}")
    code = avatar.head.arkit_to_code(arkit.to(avatar.rest.device))[0].clone()
    for index, value in own.items():
        code[index] = value
    return code
