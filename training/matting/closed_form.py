"""Soft alpha around the cut: closed-form matting (Levin, Lischinski, Weiss 2008) by pymatting.

alpha = argmin alpha' L alpha + sum_i w_i (alpha_i - prior_i)^2 over the unknown band, with alpha
fixed outside it, L being the matting Laplacian and the prior coming from the known background,
where there is one.
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
from cag_avatar_training.matting.laplacian import laplacian_rows
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from cag_avatar.errors import MissingDependencyError

__all__ = ["load_pymatting", "solve_alpha", "upsample_alpha"]

_EPSILON = 1e-5
_TOLERANCE = 1e-3
#: Entries of the incomplete Cholesky factor below this are dropped.
_DISCARD = 1e-3
#: Variance, in grey levels squared, below which a window of the guided filter counts as flat.
_RIDGE = 1e-4 * 255**2


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
    values, columns = laplacian_rows(image, unknown, _EPSILON)
    count = len(values)
    place = np.full(unknown.shape, -1, np.int32)
    place[unknown] = np.arange(count)
    column = place.ravel()[columns]
    open_entry = (column >= 0) & (values != 0)
    expected, trust = prior[unknown].astype(np.float64), weight[unknown].astype(np.float64)
    right = trust * expected - (values * (alpha.ravel()[columns] * (column < 0))).sum(1)
    values[:, 12] += trust + 1e-6
    starts = np.zeros(count + 1, np.int32)
    np.cumsum(open_entry.sum(1), out=starts[1:])
    # Symmetric: rows may stand for columns.
    system = csc_matrix((values[open_entry], column[open_entry], starts), shape=(count, count))
    factor = load_pymatting("preconditioner.ichol").ichol(
        system, discard_threshold=_DISCARD, max_nnz=60 * count + 1000
    )
    start = np.where(trust > 0, expected, alpha[unknown])
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
    # Models within two pixels of the band are averaged where alpha is evaluated.
    models = cv2.dilate(band.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    model = _linear_model(small, alpha, models)
    at = np.nonzero(large)
    model = cv2.resize(model, size, interpolation=cv2.INTER_LINEAR)[at]
    colours = image[at].astype(np.float32)
    fitted = np.einsum("ij,ij->i", model[:, :3], colours) + model[:, 3]
    # A fit must not leave what its neighbourhood holds.
    kernel = np.ones((3, 3), np.uint8)
    limits = np.dstack([cv2.erode(alpha, kernel), cv2.dilate(alpha, kernel)])
    limits = cv2.resize(limits, size, interpolation=cv2.INTER_LINEAR)[at]
    plain[at] = np.clip(fitted, limits[:, 0], limits[:, 1])
    return plain


def _linear_model(
    guide: NDArray[np.uint8], values: NDArray[np.float32], wanted: NDArray[np.bool_]
) -> NDArray[Any]:
    """Smoothed slope and offset [h, w, 4] of values against the guide's colour, in grey levels.

    Fitted where ``wanted``, 0 elsewhere.
    """

    def mean(x: NDArray[Any]) -> NDArray[Any]:
        return cv2.blur(x, (5, 5), borderType=cv2.BORDER_REFLECT)

    colour = guide.astype(np.float32)
    r, g, b = cv2.split(colour)
    at = np.nonzero(wanted)
    mu = mean(colour)[at]
    mean_value = mean(values)[at]
    covariance = mean(colour * values[..., None])[at] - mu * mean_value[:, None]
    first, second = (
        mean(cv2.merge([r * r, r * g, r * b]))[at],
        mean(cv2.merge([g * g, g * b, b * b]))[at],
    )
    mr, mg, mb = mu.T
    ridge = _RIDGE
    rr, rg, rb = first[:, 0] - mr * mr + ridge, first[:, 1] - mr * mg, first[:, 2] - mr * mb
    gg, gb, bb = second[:, 0] - mg * mg + ridge, second[:, 1] - mg * mb, second[:, 2] - mb * mb
    bb += ridge
    c0, c1, c2 = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    c3, c4, c5 = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    det = rr * c0 + rg * c1 + rb * c2
    cr, cg, cb = covariance.T / det
    slope = np.stack(
        [c0 * cr + c1 * cg + c2 * cb, c1 * cr + c3 * cg + c4 * cb, c2 * cr + c4 * cg + c5 * cb], 1
    )
    model = np.zeros((*guide.shape[:2], 4), np.float32)
    model[at] = np.column_stack([slope, mean_value - np.einsum("ij,ij->i", slope, mu)])
    return mean(model)
