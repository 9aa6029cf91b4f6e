"""Make a synthetic recording: a video of a moving face and the truth about it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from cag_avatar_training.synthetic.config import SynthesisConfig
from cag_avatar_training.synthetic.motion import perform
from cag_avatar_training.synthetic.render import create_subject, default_camera
from cag_avatar_training.synthetic.truth import Truth, truth_folder, write_masks, write_truth

from cag_avatar.errors import InputError
from cag_avatar.files import replacing, replacing_folder
from cag_avatar.head_models import load_head_model

__all__ = ["SynthesisResult", "synthesize"]

_LOG = logging.getLogger(__name__)

#: MPEG-4 part 2 is in every OpenCV build; its bit rate grows with the picture.
_FOURCC = "mp4v"


@dataclass(frozen=True)
class SynthesisResult:
    """Where a recording lies."""

    video: Path
    truth: Path
    """Folder, see :mod:`cag_avatar_training.synthetic.truth`."""
    frames: int


def synthesize(
    config: SynthesisConfig, progress: Callable[[int, int], None] | None = None
) -> SynthesisResult:
    """Render ``config`` to a video and its truth folder.

    Both appear only when they are whole. The seed decides every pixel handed to the encoder.

    Args:
        config: what to render.
        progress: called with (frames done, frames in all) after each frame.

    Raises:
        InputError: the video cannot be written.
    """
    out = Path(config.out)
    folder = truth_folder(out)
    model = load_head_model("anny")
    motion = perform(config)
    subject = create_subject(config.seed, config.texture_size, config.strands, model)
    camera = default_camera(config.size)
    rng = np.random.default_rng([config.seed, 3])
    grain = _grain(rng, config)
    total = config.num_frames
    with replacing(out) as video, replacing_folder(folder) as truth:
        writer = cv2.VideoWriter(
            str(video), cv2.VideoWriter.fourcc(*_FOURCC), config.fps, (config.size, config.size)
        )
        if not writer.isOpened():
            raise InputError(f"{out}: OpenCV cannot write {_FOURCC} video; check its build")
        try:
            for t in range(total):
                frame = subject.photograph(
                    camera, motion.codes[t], motion.head_pose[t], motion.torso_pose[t],
                    config.supersample, _shifted(grain, rng),
                )  # fmt: skip
                writer.write(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
                write_masks(truth, t, frame.alpha, frame.regions)
                if progress is not None:
                    progress(t + 1, total)
        finally:
            writer.release()
        write_truth(
            Truth(
                truth, model.name, camera, config.fps, config.seed, torch.from_numpy(motion.codes),
                torch.from_numpy(motion.head_pose), torch.from_numpy(motion.torso_pose),
                subject.traits.identity, subject.offsets,
            )
        )  # fmt: skip
    _LOG.info("%s: %d frames, truth in %s", out, total, folder)
    return SynthesisResult(out, folder, total)


def _grain(rng: np.random.Generator, config: SynthesisConfig) -> np.ndarray | None:
    """One tile of sensor noise, [2 size, 2 size, 3]: frames take it at random offsets."""
    if config.noise == 0:
        return None
    shape = (math.ceil(1.5 * config.size), math.ceil(1.5 * config.size), 3)
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(config.noise)


def _shifted(grain: np.ndarray | None, rng: np.random.Generator) -> np.ndarray | None:
    if grain is None:
        return None
    size = round(len(grain) / 1.5)
    row, column = rng.integers(0, len(grain) - size + 1, 2)
    return grain[row : row + size, column : column + size]
