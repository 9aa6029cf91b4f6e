"""The picture of ``cag-avatar attention``: heat maps of areas by tokens, and the painted head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.avatar.model import Avatar
from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.files import replacing
from cag_avatar.geometry import rigid_transform
from cag_avatar.insight.families import FAMILIES, FAMILY_COLORS, family_order
from cag_avatar.insight.listening import Listening
from cag_avatar.insight.overlay import overlay_colors
from cag_avatar.rendering.rasterizer import Backend, get_rasterizer

__all__ = ["draw_listening", "frontal_picture", "why_no_attention"]

_SIZE = 512
#: Inches of one heat map with its labels, and of the row of heads with the legend.
_MAP_HEIGHT, _HEADS_HEIGHT = 4.9, 6.6
#: Areas that may move several times as far as a face; colours beyond the face's are cut.
_LOOSE = ("scalp", "neck", "shoulders")


def why_no_attention(listening: Listening) -> str:
    """One line for avatars whose fusion has no weights over tokens."""
    return (
        f"no attention map: the fusion '{listening.fusion}' gives its Gaussians no weights over "
        "tokens; the influence maps hold for every fusion"
    )


def draw_listening(
    path: Path | str, avatar: Avatar, listening: Listening, backend: Backend = "cpu"
) -> None:
    """Write the picture.

    Args:
        path: PNG (or another format that matplotlib knows) to write.
        avatar: with its capture record.
        listening: what it listens to.
        backend: rasteriser of the heads.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        InputError: matplotlib does not know the suffix, or the avatar has no record.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.colors import PowerNorm
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ModuleNotFoundError as error:
        raise MissingDependencyError("matplotlib", "drawing charts", "attention") from error
    path = Path(path)
    families = family_order(listening.tokens)
    order = torch.argsort(families, stable=True)
    maps: list[tuple[str, Tensor, float]] = []
    if listening.attention is not None:
        even = 100 / len(listening.tokens)
        alike = bool(listening.attention.sum(1).max() < 1.001)  # a softmax, not gates
        title = f"attention: mean weight, % (all alike would be {even:.1f})"
        title = title if alike else "attention: how far the gates are open, %"
        maps.append((title, listening.attention * 100, 1.0))
    maps.append(("influence on position: mm, one coefficient from 0 to 1", listening.position, 0.5))
    maps.append(("influence on colour: levels of 255", listening.color, 0.5))

    height = _MAP_HEIGHT * len(maps) + _HEADS_HEIGHT
    figure = Figure(figsize=(19, height), dpi=90)
    canvas = FigureCanvasAgg(figure)
    if path.suffix.lower().lstrip(".") not in canvas.get_supported_filetypes():
        raise InputError(f"{path}: cannot be drawn in this format; name a .png file")
    # Placed by hand: a layout engine draws everything several times, which takes seconds.
    share = _MAP_HEIGHT / height
    top = 1 - 0.55 / height
    for row, (title, values, gamma) in enumerate(maps):
        axes = figure.add_axes((0.065, top - (row + 0.68) * share, 0.88, 0.68 * share))
        face = [i for i, area in enumerate(listening.areas) if area not in _LOOSE]
        most = max(float(values[face].max()) if face else 0.0, 1e-9)
        image = axes.imshow(
            values[:, order].numpy(), aspect="auto", cmap="magma", norm=PowerNorm(gamma, 0, most)
        )
        beside = figure.add_axes((0.953, top - (row + 0.68) * share, 0.009, 0.68 * share))
        extend = "max" if values.max() > most * (1 + 1e-6) else "neither"
        bar = figure.colorbar(image, cax=beside, extend=extend)
        bar.ax.tick_params(labelsize=8)
        axes.set_title(title, loc="left", pad=12)
        _label(axes, listening, families[order], order)
    pictures: list[tuple[str, Tensor | None]] = [("the avatar", None)]
    if listening.attention_family is not None:
        title = "family of the token attended most (the neck counts a quarter)"
        pictures.append((title, listening.attention_family))
    pictures.append(("family of the token that moves it most", listening.influence_family))
    for column, (title, family) in enumerate(pictures):
        width = 0.94 / len(pictures)
        tall = (_HEADS_HEIGHT - 1.5) / height
        axes = figure.add_axes((0.03 + column * width, 0.8 / height, width, tall))
        axes.imshow(frontal_picture(avatar, family, backend))
        axes.set_title(title)
        axes.set_axis_off()
    present = sorted(set(families.tolist()))
    figure.legend(
        handles=[Patch(color=FAMILY_COLORS[i], label=FAMILIES[i]) for i in present],
        loc="lower center", ncols=len(present), frameon=False, title=_note(listening),
    )  # fmt: skip
    with replacing(path) as temporary:
        figure.savefig(temporary)


def _note(listening: Listening) -> str:
    words = ["colours: the family of a token"]
    if not all(listening.seen):
        words.append("grey: the training hardly moved this coefficient")
    if listening.attention is None:
        words.append(why_no_attention(listening))
    return "; ".join(words)


def _label(axes: Any, listening: Listening, families: Tensor, order: Tensor) -> None:
    """Names along both axes; a token's in its family's colour, or grey if it was not seen."""
    axes.set_yticks(range(len(listening.areas)), [a.replace("_", " ") for a in listening.areas])
    axes.set_xticks(
        range(len(order)), [listening.tokens[i] for i in order.tolist()], rotation=90, fontsize=8
    )
    for place, label in enumerate(axes.get_xticklabels()):
        if not listening.seen[int(order[place])]:
            label.set_color("0.6")
    edges = [-0.5, *(i + 0.5 for i in range(len(order) - 1) if families[i] != families[i + 1])]
    for edge in edges[1:]:
        axes.axvline(edge, color="white", linewidth=1)
    for start, end in zip(edges, [*edges[1:], len(order) - 0.5], strict=True):
        color = FAMILY_COLORS[int(families[int(start + 0.5)])]
        axes.plot([start + 0.1, end - 0.1], [-0.75, -0.75], color=color, linewidth=5,
                  solid_capstyle="butt", clip_on=False)  # fmt: skip
    axes.set_ylim(len(listening.areas) - 0.5, -0.5)


@torch.no_grad()
def frontal_picture(
    avatar: Avatar, family: Tensor | None = None, backend: Backend = "cpu", size: int = _SIZE
) -> NDArray[np.uint8]:
    """The neutral face from the front on white, [size, size, 3] uint8 RGB.

    Args:
        avatar: with its capture record: the camera and the distance are those of training.
        family: paint the Gaussians by family (see overlay_colors), [N]; None leaves their colours.
        backend: rasteriser.
        size: width and height in pixels.

    Raises:
        InputError: the avatar has no record.
    """
    if avatar.record is None:
        raise InputError("avatar: has no capture record, so no camera; set .record")
    distance = float(avatar.record.neutral_head_pose[2, 3])
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    # A little lower than the eyes, the middle of a head and its neck.
    pose = rigid_transform(facing, torch.tensor([0.0, -0.02, 1.1 * distance]))
    gaussians = avatar.gaussians(avatar.neutral_code, pose, pose)
    colors = gaussians.colors
    camera = avatar.record.camera
    scale = size / camera.height
    square = PinholeCamera(
        size, size, camera.fx * scale, camera.fy * scale, size / 2, size / 2,
        camera.blur_at(camera.fy * scale),
    )  # fmt: skip
    rendered = get_rasterizer(backend).render(
        gaussians.means,
        gaussians.quaternions,
        gaussians.scales,
        gaussians.opacities,
        colors if family is None else overlay_colors(family, colors),
        torch.eye(4),
        square,
        torch.ones(3),
    )
    return rendered.image.mul(255).add_(0.5).clamp_(0, 255).to(torch.uint8).numpy()
