"""The parser that the settings ask for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from cag_avatar_training.matting.bisenet import BiSeNetParser
from cag_avatar_training.matting.config import MatteConfig
from cag_avatar_training.matting.parsing import FaceParser, Parser, survey_teeth
from cag_avatar_training.matting.robust_video_matting import RobustVideoMatting
from numpy.typing import NDArray

__all__ = ["check_networks", "make_parser"]


def check_networks(config: MatteConfig) -> None:
    """Open the networks that the settings name, so that a wrong file is told before hours of work.

    Raises:
        InputError: a network's file is missing or does not fit.
        MissingDependencyError: it needs onnxruntime, which is not installed.
    """
    if config.uses_rvm and config.rvm is not None:
        RobustVideoMatting(config.rvm)
    if config.uses_bisenet and config.bisenet is not None:
        BiSeNetParser(config.bisenet, None)


def make_parser(
    frames: Callable[[int], NDArray[np.uint8]],
    landmarks: NDArray[Any],
    config: MatteConfig | None = None,
    *,
    workers: int | None = None,
) -> Parser:
    """A parser for one clip; its ``parse`` may be called from several threads, in any order.

    Args:
        frames: frame i, [H, W, 3] uint8, RGB; some are asked for here, one at a time, ascending.
        landmarks: MediaPipe's, of every frame, [T, 478, 2 or 3], pixels of the frames.
        config: settings.
        workers: threads of a network; by default one a core.

    Raises:
        InputError: a network's file is missing or does not fit.
        MissingDependencyError: it needs onnxruntime, which is not installed.
    """
    settings = config or MatteConfig()
    teeth = survey_teeth(frames, landmarks)
    if settings.uses_bisenet:
        assert settings.bisenet is not None
        threads = max(1, workers or len(os.sched_getaffinity(0)))
        return BiSeNetParser(settings.bisenet, teeth, threads)
    return FaceParser(teeth, settings.mouth_margin)
