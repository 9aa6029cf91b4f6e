from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cag_avatar.head_models import REGIONS
from cag_avatar.head_models.face_areas import FACE_AREAS, face_areas


def areas_of(head, faces, weights, rest=None):
    rest = head.vertices if rest is None else rest
    points = (rest[head.faces[faces]] * weights[..., None]).sum(1)
    return [FACE_AREAS[i] for i in face_areas(head, rest, points, head.face_region[faces]).tolist()]


#: MediaPipe's landmarks, left and right where there are two.
LANDMARKS = {
    "brows": [105, 334, 52, 282],
    "eyelids": [159, 386, 23, 253],
    "nose": [4, 195, 129, 358],
    "cheeks": [50, 280, 117, 346],
    "forehead": [151, 109, 338],
    "around_mouth": [164, 92, 322],
    "chin": [199, 175],
    "jaw": [172, 397],
    "lips": [0, 17],
}


@pytest.mark.parametrize("area", list(LANDMARKS))
@pytest.mark.parametrize("stretch", [1.0, 0.8])
def test_landmarks_lie_in_the_area_of_their_name(area, stretch, head, embedding):
    """Of the mean head, and of a smaller one somewhere else."""
    chosen = torch.tensor(LANDMARKS[area])
    rest = head.vertices * stretch + (1 - stretch) * torch.tensor([0.3, -0.2, 0.1])
    found = areas_of(head, embedding.faces[chosen], embedding.barycentric[chosen], rest)
    assert found == [area] * len(chosen)


def test_other_regions_keep_their_names(head):
    faces = torch.arange(len(head.faces))
    found = areas_of(head, faces, torch.full((len(faces), 3), 1 / 3))
    for face, area in zip(head.face_region.tolist(), found, strict=True):
        name = REGIONS[face]
        if name.startswith("eye_"):
            assert area == "eyes"
        elif name != "face_skin":
            assert area == name
    assert set(found) == set(FACE_AREAS)


def test_both_sides_are_alike(head):
    rest = head.vertices
    points = torch.tensor([[0.03, 0.02, 0.02], [0.03, -0.05, 0.0], [0.02, 0.0, 0.02]])
    points = points + head.eye_centres(rest).mean(0)
    region = torch.full((3,), REGIONS.index("face_skin"))
    mirrored = points * torch.tensor([-1.0, 1, 1])
    mirrored[:, 0] += 2 * head.eye_centres(rest).mean(0)[0]
    assert torch.equal(
        face_areas(head, rest, points, region), face_areas(head, rest, mirrored, region)
    )


def test_a_head_without_eyeballs_keeps_its_skin_whole(head):
    blind = replace(head, eye_left=torch.empty(0, dtype=torch.long))
    faces = head.region_faces("face_skin")[:50]
    found = areas_of(blind, faces, torch.full((50, 3), 1 / 3))
    assert set(found) == {"cheeks"}
