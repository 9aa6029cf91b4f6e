"""Which of an estimate's two codes is sent: the fit's, or that of the avatar's own regressor.

The regressor belongs to an avatar, but it reads the operator's landmarks and scores (2,000 numbers
an image) and those do not travel: a FaceExpression must fit one network packet. So it runs where
the landmarks are, and what it gives are the same 52 ARKit coefficients.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.head_models.arkit import ARKIT_NAMES

if TYPE_CHECKING:
    from cag_avatar.tracking.code_regressor import CodeRegressor
    from cag_avatar.tracking.estimator import FaceEstimate

__all__ = ["load_code_regressor", "select_code"]


def load_code_regressor(
    avatar: str, wanted: str, tell: Callable[[str], object]
) -> CodeRegressor | None:
    """The regressor of an avatar file, or None: the fit's codes are sent.

    Args:
        avatar: path of the avatar file; may be empty.
        wanted: ``on``, ``off`` or ``auto`` (if there is one).
        tell: called with why ``auto`` goes on without.

    Raises:
        InputError: the file is bad, its coefficients are not ARKit's, or ``on`` cannot be had.
    """
    if wanted == "off" or not avatar:
        if wanted == "on":
            raise InputError("parameter regressor is on, but avatar is not set: name the file")
        return None
    from cag_avatar.avatar.regressor_file import load_regressor

    regressor = load_regressor(Path(avatar).expanduser())
    if regressor is None:
        reason = f"avatar {avatar} has no regressor: run 'cag-avatar train-regressor'"
        if wanted == "on":
            raise InputError(reason)
        tell(reason)
        return None
    try:
        size = regressor.coefficients
    except MissingDependencyError as error:
        if wanted == "on":
            raise
        tell(f"going on without the regressor: {error}")
        return None
    if size != len(ARKIT_NAMES):
        raise InputError(f"avatar {avatar}: its regressor gives {size} coefficients, not ARKit's")
    return regressor


def select_code(
    estimate: FaceEstimate, wanted: str, own_person: bool | None
) -> tuple[NDArray[np.float32], str]:
    """The code [52] to send, and its source: ``fit`` or ``regressor``.

    Args:
        estimate: with both codes, as far as there are two.
        wanted: ``on``, ``off`` or ``auto``: once the regressor's own person is recognised.
        own_person: whether they are; None: not known yet.
    """
    regressed = estimate.regressed
    if regressed is not None and (wanted == "on" or (wanted == "auto" and own_person)):
        return np.asarray(regressed, np.float32), "regressor"
    return estimate.code, "fit"
