from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cag_avatar.errors import InputError
from cag_avatar.head_models import REGIONS, HeadModel, load_head_model
from cag_avatar.head_models.flame_file import load_flame
from cag_avatar.head_models.storage import save_head_model
from cag_avatar.tracking.landmark_embedding import (
    LandmarkEmbedding,
    landmark_path,
    load_landmark_embedding,
)
from cag_avatar.tracking.landmark_tying import TyingConfig, tie_landmarks
from tests.cag_avatar.head_models.flame_files import (
    face_like_flame,
    flame_arrays,
    write_flame_pickle,
)


def test_a_few_renders_come_near_to_the_bundled_landmarks(
    head: HeadModel, embedding: LandmarkEmbedding
) -> None:
    done: list[tuple[int, int]] = []
    found = tie_landmarks(
        head, TyingConfig(renders=20, size=256), lambda n, total: done.append((n, total))
    )
    assert done == [(n, 20) for n in range(1, 21)]
    assert found.head_model == head.name
    torch.testing.assert_close(found.barycentric.sum(1), torch.ones(478))
    distance = (
        found.points(head.vertices, head.faces) - embedding.points(head.vertices, head.faces)
    ).norm(dim=-1)
    assert distance.median() < 0.004  # metres
    assert distance.quantile(0.95) < 0.015
    assert 0.0 < float(found.spread.median()) < 0.05


def test_a_face_on_flame_is_tied_and_its_landmarks_found(
    head: HeadModel, embedding: LandmarkEmbedding, tmp_path: Path
) -> None:
    """The bundled face in FLAME's layout: its landmarks are the bundled ones."""
    path = write_flame_pickle(tmp_path / "f.pkl", face_like_flame())
    save_head_model(tmp_path / "face.safetensors", load_flame(path, "face"))
    model = load_head_model(tmp_path / "face.safetensors")
    with pytest.raises(InputError, match="tie-landmarks --head-model face'"):
        load_landmark_embedding(model)
    tie_landmarks(model, TyingConfig(renders=20, size=256)).save(landmark_path(model))
    found = load_landmark_embedding(model)
    assert found.head_model == "face"
    distance = (
        found.points(model.vertices, model.faces) - embedding.points(head.vertices, head.faces)
    ).norm(dim=-1)
    assert distance.median() < 0.005  # metres
    assert distance.quantile(0.95) < 0.015


def test_a_head_that_is_no_face_is_refused(tmp_path: Path) -> None:
    egg = load_flame(write_flame_pickle(tmp_path / "f.pkl", flame_arrays()), "egg")
    # With lips, eyes and painted brows an egg is a face to the detector, but its irises are off.
    with pytest.raises(InputError, match="'egg': landmark 4.. never falls on the eye"):
        tie_landmarks(egg, TyingConfig(renders=20, size=128))
    dark = torch.full_like(egg.vertex_region, REGIONS.index("scalp"))
    egg = replace(egg, vertex_region=dark, face_region=dark[egg.faces[:, 0]])
    with pytest.raises(InputError, match="'egg': a face was found in only .* of 20 renders"):
        tie_landmarks(egg, TyingConfig(renders=20, size=128))


@pytest.mark.parametrize("change", [{"renders": 19}, {"size": 64}])
def test_too_few_or_too_small_renders_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(InputError, match="tie-landmarks: needs"):
        TyingConfig(**change)
