from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cag_avatar.errors import InputError
from cag_avatar.head_models import REGIONS, HeadModel
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding, load_landmark_embedding


def test_the_bundled_landmarks_lie_where_mediapipe_puts_them(
    head: HeadModel, embedding: LandmarkEmbedding
) -> None:
    points = embedding.points(head.vertices, head.faces)
    assert points.shape == (478, 3)
    names = [REGIONS[r] for r in head.face_region[embedding.faces].tolist()]
    assert set(names[468:473]) == {"eye_right"}  # MediaPipe's first iris is the subject's right
    assert set(names[473:478]) == {"eye_left"}
    assert points[33, 0] < -0.03 < 0.03 < points[263, 0]  # outer corners, right and left
    assert points[1, 2] == points[[1, 33, 61, 152, 10, 234], 2].max()  # tip of the nose
    assert points[10, 1] > points[168, 1] > points[1, 1] > points[13, 1] > points[152, 1]
    mirrored = points[[33, 61, 133]] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(mirrored, points[[263, 291, 362]], atol=0.006, rtol=0)


def test_points_are_linear_in_the_vertices_and_batch(
    head: HeadModel, embedding: LandmarkEmbedding
) -> None:
    shift = torch.tensor([0.1, -0.2, 0.3])
    batch = torch.stack([head.vertices, 2 * head.vertices + shift])
    points = embedding.points(batch, head.faces)
    torch.testing.assert_close(points[1], 2 * points[0] + shift)


def test_saved_landmarks_come_back(
    head: HeadModel, embedding: LandmarkEmbedding, tmp_path: Path
) -> None:
    path = tmp_path / "landmarks.json"
    embedding.save(path)
    back = LandmarkEmbedding.load(path, head)
    assert torch.equal(back.faces, embedding.faces)
    torch.testing.assert_close(back.barycentric, embedding.barycentric, atol=1e-4, rtol=0)
    torch.testing.assert_close(back.barycentric.sum(1), torch.ones(478))
    torch.testing.assert_close(back.spread, embedding.spread, atol=1e-4, rtol=0)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"landmarks": [[1], [2, 3]]}'])
def test_a_file_of_another_kind_is_named(head: HeadModel, tmp_path: Path, content: str) -> None:
    path = tmp_path / "landmarks.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"landmarks\.json: not a landmark file"):
        LandmarkEmbedding.load(path, head)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="x"), "not a landmark file of 478"),
        (lambda c: c.pop("head_model"), "not a landmark file"),
        (lambda c: c["landmarks"].pop(), "not a landmark file of 478"),
        (lambda c: c.update(head_model="flame"), "made for 'flame', not 'anny'"),
        (lambda c: c["landmarks"][5].__setitem__(0, 10**6), "made for"),
        (lambda c: c["landmarks"][5].__setitem__(0, -1), "made for"),
        (lambda c: c["landmarks"][5].__setitem__(2, float("nan")), "NaN"),
    ],
)
def test_damage_is_named(  # type: ignore[no-untyped-def]
    head: HeadModel, embedding: LandmarkEmbedding, tmp_path: Path, change, message: str
) -> None:
    path = tmp_path / "landmarks.json"
    embedding.save(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"landmarks\.json: .*{message}"):
        LandmarkEmbedding.load(path, head)


def test_a_head_model_without_landmarks_says_how_to_make_them(head: HeadModel) -> None:
    with pytest.raises(InputError, match="run 'cag-avatar tie-landmarks"):
        load_landmark_embedding(replace(head, name="other"))
    with pytest.raises(InputError, match="'other': has no file"):
        load_landmark_embedding(replace(head, name="other", file=None))
