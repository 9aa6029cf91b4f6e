"""Stage: alpha of every frame, kept on disk."""

from __future__ import annotations

import logging
from contextlib import ExitStack

from cag_avatar_training.matting import MatteConfig, matte_clip
from cag_avatar_training.preprocess.crop import COMMIT_EVERY
from cag_avatar_training.preprocess.frame_store import FrameStore
from cag_avatar_training.preprocess.workspace import StageStore
from cag_avatar_training.progress import Advance

from cag_avatar.tracking.clip_fit import ClipFit

__all__ = ["matte_frames"]

_LOG = logging.getLogger(__name__)


def matte_frames(
    images: FrameStore,
    own: FrameStore | None,
    count: int,
    fit: ClipFit,
    config: MatteConfig,
    stage: StageStore,
    advance: Advance,
    resources: ExitStack,
) -> FrameStore:
    """Alpha [S, S] of the frames; the video's own where it has one.

    Args:
        images: frames [S, S, 3].
        own: the video's own alpha.
        count: number of frames.
        fit: the head that seeds the matte.
        config: settings.
        stage: where alpha is kept.
        advance: told the frames done.
        resources: closes the result.
    """
    alphas = resources.enter_context(FrameStore(stage.folder / "alpha.grey", images.shape[:2]))
    if not stage.whole:
        if own is not None:
            _LOG.info("the video's own alpha is taken as the matte")
            for t in range(stage.done, count):
                alphas.write(t, own[t])
                advance(t + 1)
        else:
            first = stage.done
            mattes = matte_clip(lambda t: images[t], fit.labels, count, config, start=first)
            for t, alpha in enumerate(mattes, first):
                alphas.write(t, alpha)
                advance(t + 1)
                if (t + 1) % COMMIT_EVERY == 0:
                    stage.commit(t + 1)
        stage.commit(count, whole=True)
    return alphas
