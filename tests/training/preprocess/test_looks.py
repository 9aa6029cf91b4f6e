"""The stage that reads the pictures of the face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cag_avatar_training.preprocess.looks import read_looks
from cag_avatar_training.preprocess.workspace import Workspace
from cag_avatar_training.video import probe_video, read_frames

from cag_avatar.tracking.face_landmarker import FaceLandmarker
from cag_avatar.tracking.face_pictures import (
    FacePlanes,
    face_planes,
    load_picture_reader,
    upright_picture,
)
from cag_avatar.tracking.landmark_correction import load_landmark_correction


def test_every_frame_is_read_and_the_stage_is_kept(tmp_path: Path, face_video: Path) -> None:
    images = list(read_frames(probe_video(face_video)))
    with FaceLandmarker() as landmarker:
        landmarks = np.stack([landmarker.detect(image)[0].landmarks for image in images])
    done: list[int] = []
    with Workspace.open(tmp_path / "work") as work:
        looks, again = (
            read_looks(images.__getitem__, landmarks, "anny", work.stage("looks", ()), done.append)
            for _ in range(2)
        )
        none = read_looks(
            images.__getitem__, landmarks, "flame2020", work.stage("others", ()), done.append
        )
    assert none is None
    assert looks is not None
    assert again is not None
    assert done[-1] == len(images)
    assert len(done) == len(set(done))  # the second time nothing was read
    np.testing.assert_array_equal(looks, again)
    correction, reader = (
        load_landmark_correction("anny", pictures=True),
        load_picture_reader("anny"),
    )
    assert correction is not None
    assert reader is not None
    planes = FacePlanes.stack(
        [
            face_planes(upright_picture(image, correction.frames(points[None])))
            for image, points in zip(images, landmarks, strict=True)
        ]
    )
    assert len(images) <= 100  # all of them tell what is typical
    np.testing.assert_allclose(looks, reader.read(planes, planes.median()), atol=1e-4)
    assert looks.std(0).max() > 0.01
