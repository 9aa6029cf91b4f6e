"""An HTML page that shows how good an avatar is: pictures, figures, and how they were measured."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cag_avatar_training.dataset import Dataset
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.files import replacing

__all__ = ["PAGE_STYLE", "embedded_picture", "read_picture", "write_report"]

#: Looks that all pages share.
PAGE_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1100px;padding:0 1rem;
color:#1c2330;background:#fff}
h1{margin-bottom:0} p.lead{color:#5a6475;margin-top:.2rem} img{max-width:100%;border-radius:6px}
table{border-collapse:collapse;margin:.6rem 0} td,th{padding:.25rem .8rem;text-align:right;
border-bottom:1px solid #e3e7ee} td:first-child,th:first-child{text-align:left}
pre{background:#f5f7fa;padding:1rem;overflow:auto;border-radius:6px;font-size:12px}
svg{background:#f5f7fa;border-radius:6px} .name{font-size:11px;fill:#5a6475}
"""

_FIGURES = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "l1": "L1",
    "stlpips": "ST-LPIPS",
    "psnr_matte": "PSNR inside the matte (dB)",
}


def write_report(
    path: Path | str,
    title: str,
    dataset: Dataset,
    metrics: Mapping[str, Any],
    pictures: Mapping[str, Path],
    figures: Mapping[str, Any],
) -> Path:
    """Write a self-contained HTML page.

    Args:
        path: file to write.
        title: heading.
        dataset: whose codes are drawn as curves.
        metrics: what :func:`evaluate` returned.
        pictures: caption to image file; embedded.
        figures: further figures, shown in a table.

    Raises:
        InputError: a picture cannot be read.
    """
    protocol = metrics["protocol"]
    rows = "".join(
        f"<tr><td>{label}</td>"
        + "".join(f"<td>{_number(metrics[k].get(key))}</td>" for k in _columns(metrics))
        + "</tr>"
        for key, label in _FIGURES.items()
    )
    heads = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in _columns(metrics))
    shown = "".join(
        f"<h2>{html.escape(caption)}</h2><img alt='{html.escape(caption)}' src='{_embed(file)}'>"
        for caption, file in pictures.items()
    )
    more = "".join(
        f"<tr><td>{html.escape(str(k).replace('_', ' '))}</td><td>{_number(v)}</td></tr>"
        for k, v in figures.items()
    )
    heading = html.escape(title)
    size = " x ".join(str(side) for side in protocol["resolution"])
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{heading}</title>
<style>{PAGE_STYLE}</style><h1>{heading}</h1>
<p class="lead">{len(dataset)} frames, {protocol["held_out_frames"]} of them held out (split
"{protocol["split"]}"), {size}; truth above, avatar below.</p>
<table><tr><th>held-out frames</th>{heads}</tr>{rows}</table>
<p><b>as tracked</b>: driven by the codes of the tracker. <b>refined</b>: code and pose of each
held-out frame fitted to its image with the avatar frozen.</p>
<table><tr><th>run</th><th></th></tr>{more}</table>{shown}
<h2>Expression code over time</h2>{_curves(dataset)}
<h2>Protocol</h2><pre>{html.escape(json.dumps(protocol, indent=2))}</pre></html>"""
    with replacing(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def _columns(metrics: Mapping[str, Any]) -> list[str]:
    return [name for name in ("as_tracked", "refined") if name in metrics]


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return html.escape(str(value))


def _embed(file: Path) -> str:
    return embedded_picture(read_picture(file))


def read_picture(file: Path) -> NDArray[np.uint8]:
    """A picture file as RGB [H, W, 3]. Raises InputError if it cannot be read."""
    image = cv2.imread(str(file))
    if image is None:
        raise InputError(f"{file}: cannot be read as a picture")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def embedded_picture(image: NDArray[np.uint8], quality: int | None = 90) -> str:
    """RGB [H, W, 3] as the source of an HTML image: a JPEG, or a PNG if ``quality`` is None."""
    kind, options = (
        ("png", []) if quality is None else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, quality])
    )
    _, data = cv2.imencode(f".{kind}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return f"data:image/{kind};base64," + base64.b64encode(data.tobytes()).decode()


def _curves(dataset: Dataset) -> str:
    """Small multiples of the twelve coefficients that move most."""
    codes: NDArray[np.float32] = dataset.tracking.codes
    order = np.argsort(-codes.std(0))[:12]
    width, height = 350, 60
    cells = []
    for place, index in enumerate(order):
        x0, y0 = (place % 3) * (width + 10), (place // 3) * (height + 24)
        x = x0 + np.linspace(0, width, len(codes))
        y = y0 + 18 + height * (1 - codes[:, index])
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        name = html.escape(dataset.info.code_names[index])
        cells.append(
            f"<text class='name' x='{x0 + 2}' y='{y0 + 12}'>{name}</text>"
            f"<polyline points='{points}' fill='none' stroke='#2f6fed' stroke-width='1.2'/>"
        )
    total = ((len(order) + 2) // 3) * (height + 24) + 6
    return f"<svg width='{3 * (width + 10)}' height='{total}'>{''.join(cells)}</svg>"
