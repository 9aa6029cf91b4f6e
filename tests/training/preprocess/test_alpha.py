"""A video that carries its own alpha."""

from __future__ import annotations

import logging
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from cag_avatar_training.preprocess import PreprocessConfig, preprocess
from cag_avatar_training.preprocess.crop import Crop, _straight
from cag_avatar_training.synthetic import load_truth
from cag_avatar_training.video import probe_video, read_frames

from cag_avatar.tracking.fit_config import FitConfig

FRAMES = 16


def test_the_video_s_own_alpha_is_the_matte(
    tmp_path: Path, face_video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    truth = load_truth(face_video.with_suffix(".truth"))
    images = list(read_frames(probe_video(face_video)))[:FRAMES]
    path = tmp_path / "cut out.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "rgba"
        for t, image in enumerate(images):
            alpha = truth.alpha(t)
            colours = np.where(alpha[..., None] > 0, image, np.uint8(0))
            frame = av.VideoFrame.from_ndarray(np.dstack([colours, alpha]), format="rgba")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    config = PreprocessConfig(
        size=256, min_seconds=0.5, fit=FitConfig(shared_frames=4), progress=False
    )
    dataset = preprocess(path, tmp_path / "dataset", config)
    assert "the video's own alpha is taken as the matte" in caplog.text
    assert len(dataset) == FRAMES
    crop = dataset.info.crop
    rows, columns = (slice(crop[k], crop[k] + crop["size"]) for k in ("y", "x"))
    for t in (0, FRAMES - 1):
        alpha, image = (
            np.asarray(cv2.resize(part[rows, columns], (256, 256), interpolation=kind))
            for part, kind in ((truth.alpha(t), cv2.INTER_CUBIC), (images[t], cv2.INTER_LINEAR))
        )
        frame = dataset.frame(t)
        np.testing.assert_array_equal(np.rint(frame.alpha.numpy() * 255), alpha)
        solid = cv2.erode((alpha == 255).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        found = frame.target(torch.zeros(3)).numpy() * 255
        assert np.abs(found - image)[solid].max() < 2


@pytest.mark.parametrize(("side", "size"), [(40, 64), (64, 40), (50, 50)])
def test_colours_under_the_edge_are_not_mixed_with_what_is_cut_away(side: int, size: int) -> None:
    alpha = np.zeros((90, 90), np.uint8)
    cv2.circle(alpha, (45, 45), 15, 255, -1)
    alpha = cv2.GaussianBlur(alpha, (5, 5), 0).astype(np.uint8)
    image = np.where(alpha[..., None] > 0, np.uint8([200, 120, 60]), np.uint8(0))
    crop = Crop(20, 20, side, size)
    found = _straight(crop, image, alpha)
    assert found.shape == (size, size, 3)
    seen = crop.cut(alpha) > 12
    assert 0.2 < seen.mean() < 0.8
    assert np.abs(found[seen].astype(int) - [200, 120, 60]).max() <= 3
