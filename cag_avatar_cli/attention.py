"""``cag-avatar attention``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import tyro

from cag_avatar.avatar.file import load_avatar
from cag_avatar.files import replacing
from cag_avatar.insight.chart import draw_listening, why_no_attention
from cag_avatar.insight.listening import listen
from cag_avatar_cli.options import Backend, OutputPath, PathArgument


def command(
    avatar: PathArgument,
    output: OutputPath,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    backend: Backend = "cpu",
) -> None:
    """Show which coefficients each part of the face listens to.

    Draws the attention weights, if the avatar's fusion has any, and how far each coefficient moves
    and tints the Gaussians of each part, beyond what the mesh does; and the same on the head.

    Args:
        avatar: *.cag file.
        output: PNG to write.
        json_file: also write the figures as JSON.
        backend: rasteriser of the heads.
    """
    opened = load_avatar(avatar)
    listening = listen(opened)
    draw_listening(output, opened, listening, backend)
    if listening.spread is None:
        print(why_no_attention(listening))
    else:
        least, most = float(listening.spread.min()), float(listening.spread.max())
        total = len(listening.tokens)
        print(f"attention spreads over {least:.0f} to {most:.0f} of {total} tokens, by area")
    if json_file is not None:
        with replacing(json_file) as temporary:
            temporary.write_text(json.dumps(listening.to_dict(), indent=1) + "\n")
        print(f"figures: {json_file}")
    print(f"picture: {output}")
