"""Soft alpha around the cut: closed-form matting (Levin, Lischinski, Weiss 2008) by pymatting.

alpha = argmin alpha' L alpha + sum_i w_i (alpha_i - prior_i)^2 over the unknown band, with alpha
fixed outside it, L being pymatting's matting Laplacian and the prior coming from the known
background, where there is one.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import MissingDependencyError

__all__ = ["load_pymatting", "solve_alpha", "upsample_alpha"]

_EPSILON = 1e-5
_TOLERANCE = 1e-3


def load_pymatting(name: str) -> ModuleType:
    """Import one module of pymatting, such as ``laplacian.cf_laplacian``.

    The package's own ``__init__`` imports all of its methods, and each compiles its numba code at
    import: about a minute on a fresh machine, against seconds for the modules used here. So the
    module's file is run by itself, under its own name (which numba's cache needs).

    Raises MissingDependencyError when pymatting is not installed.
    """
    full = f"pymatting.{name}"
    if full in sys.modules:
        return sys.modules[full]
    package = importlib.util.find_spec("pymatting")
    if package is None or package.origin is None:
        raise MissingDependencyError("pymatting", "matting a video", "training")
    path = Path(package.origin).parent.joinpath(*name.split(".")).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(full, path)
    if spec is None or spec.loader is None or not path.is_file():
        return importlib.import_module(full)
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full]
        raise
    return module


def solve_alpha(
    image: NDArray[np.uint8],
    person: NDArray[np.bool_],
    unknown: NDArray[np.bool_],
    prior: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Alpha [h, w] float32 in [0, 1].

    Args:
        image: [h, w, 3], RGB.
        person: alpha where it is known, [h, w].
        unknown: where it is solved for, [h, w].
        prior: expected alpha, [h, w].
        weight: weight of the prior, >= 0, [h, w].
    """
    alpha = person.astype(np.float32)
    if not unknown.any():
        return alpha
    # The Laplacian's windows are 3 x 3: two pixels of known alpha around the band suffice.
    rows, columns = np.nonzero(unknown.any(1))[0], np.nonzero(unknown.any(0))[0]
    box = (
        slice(max(rows[0] - 2, 0), rows[-1] + 3),
        slice(max(columns[0] - 2, 0), columns[-1] + 3),
    )
    known = ~unknown[box]
    colours = image[box].astype(np.float64) / 255
    laplacian = load_pymatting("laplacian.cf_laplacian").cf_laplacian(
        colours, epsilon=_EPSILON, is_known=known
    )
    flat = known.ravel()
    rows_u = laplacian[~flat]
    expected = prior[box][unknown[box]].astype(np.float64)
    trust = weight[box][unknown[box]].astype(np.float64)
    system = rows_u[:, ~flat].tocsc()
    system.setdiag(system.diagonal() + trust + 1e-6)
    right = trust * expected - rows_u[:, flat] @ person[box].ravel()[flat].astype(np.float64)
    factor = load_pymatting("preconditioner.ichol").ichol(
        system, discard_threshold=1e-3, max_nnz=60 * len(expected) + 1000
    )
    start = np.where(trust > 0, expected, person[box][unknown[box]])
    solved = load_pymatting("solver.cg").cg(
        system, right, x0=start, M=factor, rtol=_TOLERANCE, atol=1e-6
    )
    alpha[unknown] = np.clip(solved, 0, 1)
    return alpha


def upsample_alpha(
    alpha: NDArray[np.float32], small: NDArray[np.uint8], image: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Alpha [h, w] of the small image at the size [H, W] of the image, along its edges.

    In each window alpha is fitted as a linear function of colour and evaluated with the colours of
    the large image (fast guided filter, He and Sun 2015).
    """
    height, width = image.shape[:2]
    size = (width, height)
    plain: Any = cv2.resize(alpha, size, interpolation=cv2.INTER_LINEAR)
    soft = ((alpha > 0) & (alpha < 1)).astype(np.uint8)
    edge = cv2.morphologyEx(alpha, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0.004
    band = cv2.dilate(soft | edge, np.ones((3, 3), np.uint8)) > 0
    large = cv2.resize(band.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    if not band.any():
        return plain
    guide = small.astype(np.float32) / np.float32(255)
    slope, offset = _linear_model(guide, alpha)
    slope = cv2.resize(slope, size, interpolation=cv2.INTER_LINEAR)
    offset = cv2.resize(offset, size, interpolation=cv2.INTER_LINEAR)
    colours = image[large].astype(np.float32) / 255
    fitted = (slope[large] * colours).sum(-1) + offset[large]
    # A fit must not leave what its neighbourhood holds.
    kernel = np.ones((3, 3), np.uint8)
    low = cv2.resize(cv2.erode(alpha, kernel), size, interpolation=cv2.INTER_LINEAR)
    high = cv2.resize(cv2.dilate(alpha, kernel), size, interpolation=cv2.INTER_LINEAR)
    plain[large] = np.clip(fitted, low[large], high[large])
    return plain


def _linear_model(
    guide: NDArray[np.float32], values: NDArray[np.float32]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Smoothed (slope [h, w, 3], offset [h, w]) of values against the guide's colour."""

    def mean(x: NDArray[Any]) -> NDArray[Any]:
        return cv2.blur(x, (5, 5), borderType=cv2.BORDER_REFLECT)

    mu, mean_value = mean(guide), mean(values)
    covariance = mean(guide * values[..., None]) - mu * mean_value[..., None]
    r, g, b = cv2.split(guide)
    products = cv2.merge([r * r, r * g, r * b]), cv2.merge([g * g, g * b, b * b])
    first, second = mean(products[0]), mean(products[1])
    mr, mg, mb = cv2.split(mu)
    ridge = 1e-4
    rr, rg, rb = first[..., 0] - mr * mr + ridge, first[..., 1] - mr * mg, first[..., 2] - mr * mb
    gg, gb, bb = (
        second[..., 0] - mg * mg + ridge,
        second[..., 1] - mg * mb,
        second[..., 2] - mb * mb + ridge,
    )
    c0, c1, c2 = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    det = rr * c0 + rg * c1 + rb * c2
    inverse = np.stack([c0, c1, c2, rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg], -1)
    i = inverse / det[..., None]
    cr, cg, cb = cv2.split(covariance)
    slope = np.stack(
        [
            i[..., 0] * cr + i[..., 1] * cg + i[..., 2] * cb,
            i[..., 1] * cr + i[..., 3] * cg + i[..., 4] * cb,
            i[..., 2] * cr + i[..., 4] * cg + i[..., 5] * cb,
        ],
        -1,
    )
    offset = mean_value - (slope * mu).sum(-1)
    return mean(slope), mean(offset)
