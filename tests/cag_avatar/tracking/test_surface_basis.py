from __future__ import annotations

import pytest
import torch

from cag_avatar.head_models import ARKIT_INDEX, REGIONS, HeadModel
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding
from cag_avatar.tracking.surface_basis import ShapeSpace


@pytest.fixture(scope="module")
def shape(shape_space: ShapeSpace) -> torch.Tensor:
    return torch.randn(shape_space.size, generator=torch.Generator().manual_seed(0))


def test_points_are_the_models_rest_vertices_at_barycentric_points(
    head: HeadModel, embedding: LandmarkEmbedding, shape_space: ShapeSpace, shape: torch.Tensor
) -> None:
    points = shape_space.points(embedding.faces, embedding.barycentric)
    identity, offsets = shape_space.split(shape)
    assert identity.shape == (head.num_identity,)
    assert offsets.shape == head.vertices.shape
    expected = embedding.points(head.rest_vertices(identity, offsets), head.faces)
    torch.testing.assert_close(points.rest(shape), expected, atol=1e-6, rtol=0)
    code = torch.rand(1, 52, generator=torch.Generator().manual_seed(1))
    moved = embedding.points(head.express(head.vertices, code)[0], head.faces)
    by_basis = points.mean + torch.einsum("e,enc->nc", code[0], points.expression)
    torch.testing.assert_close(by_basis, moved, atol=1e-6, rtol=0)


def test_points_know_their_eye(embedding: LandmarkEmbedding, shape_space: ShapeSpace) -> None:
    eye = shape_space.points(embedding.faces, embedding.barycentric).eye
    assert (eye[:468] == -1).all()
    assert (eye[468:473] == 1).all()
    assert (eye[473:] == 0).all()


@pytest.mark.parametrize("way", ["Up", "Down", "In", "Out"])
def test_irises_turn_as_the_models(
    head: HeadModel,
    embedding: LandmarkEmbedding,
    shape_space: ShapeSpace,
    shape: torch.Tensor,
    way: str,
) -> None:
    points = shape_space.points(embedding.faces, embedding.barycentric)
    code = torch.zeros(1, 52)
    for side in ("Left", "Right"):
        code[0, ARKIT_INDEX[f"eyeLook{way}{side}"]] = 0.8
    still = torch.eye(4)[None]
    shape = 0.2 * shape  # a whole standard deviation of everything is no head
    rest = head.rest_vertices(*shape_space.split(shape))
    posed = embedding.points(head.posed_vertices(rest, code, still, still), head.faces)[0]
    found = points.local(points.rest(shape), code)[0][0]
    moved = (posed - points.rest(shape))[468:].norm(dim=1)
    assert moved.min() > 0.004
    torch.testing.assert_close(found[468:], posed[468:], atol=2e-4, rtol=0)


def test_offsets_are_small_on_skin_and_large_on_the_scalp(
    head: HeadModel, shape_space: ShapeSpace
) -> None:
    """Root mean square over unit-variance coefficients: the prior's standard deviation."""
    deviation = shape_space.offset_modes.square().sum(1).sqrt()
    median = {
        name: float(deviation[head.vertex_region == REGIONS.index(name)].median())
        for name in ("face_skin", "scalp", "shoulders")
    }
    assert 0.0005 < median["face_skin"] < 0.003
    assert 0.008 < median["scalp"] < 0.016
    assert median["shoulders"] > median["scalp"]


def test_offsets_are_smooth(head: HeadModel, shape_space: ShapeSpace) -> None:
    """Root mean squares over unit-variance coefficients: a drawn shape would hang on the signs of
    the modes, which another machine's eigensolver chooses otherwise."""
    modes = shape_space.offset_modes
    a, b = head.faces[:, 0], head.faces[:, 1]
    jump = (modes[a] - modes[b]).square().sum(1).sqrt()
    size = modes[a].square().sum(1).sqrt()
    for name in ("face_skin", "scalp"):
        own = (head.vertex_region[a] == REGIONS.index(name)) & (
            head.vertex_region[b] == REGIONS.index(name)
        )
        assert jump[own].median() < 0.5 * size[own].median()


def test_offsets_keep_eyes_and_teeth_whole(
    head: HeadModel, shape_space: ShapeSpace, shape: torch.Tensor
) -> None:
    _, offsets = shape_space.split(shape)
    for name in ("eye_left", "eye_right", "teeth_upper", "teeth_lower"):
        moved = offsets[head.vertex_region == REGIONS.index(name)]
        torch.testing.assert_close(moved, moved[:1].expand_as(moved), atol=1e-7, rtol=0)
        assert moved[0].norm() > 1e-5


def test_the_space_is_the_same_every_time(head: HeadModel, shape_space: ShapeSpace) -> None:
    again = ShapeSpace(head)
    torch.testing.assert_close(again.offset_modes, shape_space.offset_modes, atol=1e-6, rtol=0)


def test_rows_by_code_agree_with_the_dense_derivative(
    embedding: LandmarkEmbedding, shape_space: ShapeSpace, shape: torch.Tensor
) -> None:
    points = shape_space.points(embedding.faces, embedding.barycentric)
    generator = torch.Generator().manual_seed(2)
    code = 0.5 * torch.rand(3, len(points.expression), generator=generator)
    rows = torch.randn(3, len(points.mean), 2, 3, generator=generator)
    _, derivative = points.local(points.rest(shape), code)
    assert derivative.moving, "the irises turn with the gaze"
    expected = torch.einsum("tnij,tenj->tnie", rows, derivative.dense(3))
    torch.testing.assert_close(derivative.times(rows), expected, atol=1e-6, rtol=1e-4)
