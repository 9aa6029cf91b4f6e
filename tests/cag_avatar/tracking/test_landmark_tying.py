from __future__ import annotations

import pytest
import torch

from cag_avatar.errors import InputError
from cag_avatar.head_models import HeadModel
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding
from cag_avatar.tracking.landmark_tying import TyingConfig, tie_landmarks


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


@pytest.mark.parametrize("change", [{"renders": 19}, {"size": 64}])
def test_too_few_or_too_small_renders_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(InputError, match="tie-landmarks: needs"):
        TyingConfig(**change)
