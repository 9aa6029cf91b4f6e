from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cag_avatar.camera import PinholeCamera
from cag_avatar.head_models import REGIONS, HeadModel
from cag_avatar.rendering.mesh import MeshBuffers, rasterize
from cag_avatar.tracking.silhouette import SURVEY_POINTS, RimPoints, find_rim, stack_rims
from cag_avatar.tracking.surface_basis import ShapeSpace

SIZE = 256
CAMERA = PinholeCamera(SIZE, SIZE, 450.0, 450.0, SIZE / 2, SIZE / 2)
HEAD_PIXELS = 110.0


@pytest.fixture(scope="module")
def buffers(head: HeadModel) -> MeshBuffers:
    camera_space = head.vertices * torch.tensor([1.0, -1.0, -1.0]) + torch.tensor([0.0, 0.03, 0.7])
    return rasterize(camera_space.numpy(), head.faces.numpy(), CAMERA)


def mask(buffers: MeshBuffers) -> NDArray[np.uint8]:
    return (255 * (buffers.face_index >= 0)).astype(np.uint8)


def disc(radius: int) -> NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def outward_steps(rim: RimPoints, head: HeadModel) -> NDArray[np.float32]:
    """Distance from the drawn outline to the target along the normal, pixels."""
    corners = head.vertices.numpy()[head.faces.numpy()[rim.faces]]
    point = (corners * rim.barycentric[..., None]).sum(1) * (1, -1, -1) + (0, 0.03, 0.7)
    pixel = point[:, :2] / point[:, 2:] * CAMERA.fx + SIZE / 2
    return ((rim.targets - pixel) * rim.normals).sum(1)


@pytest.mark.parametrize("grown", [10, 0, -4])
def test_targets_lie_on_the_edge_of_the_matte(
    head: HeadModel, buffers: MeshBuffers, grown: int
) -> None:
    """Outwards for a matte with hair, inwards for a smaller one, nowhere for the mesh's own."""
    alpha = mask(buffers)
    if grown:
        alpha = (cv2.dilate if grown > 0 else cv2.erode)(alpha, disc(abs(grown)))  # type: ignore[assignment]
    rim = find_rim(head, head.vertices.numpy(), buffers, alpha, HEAD_PIXELS)
    assert 60 < len(rim.faces) <= SURVEY_POINTS
    np.testing.assert_allclose(np.linalg.norm(rim.normals, axis=1), 1.0, atol=1e-4)
    np.testing.assert_allclose(rim.barycentric.sum(1), 1.0, atol=1e-4)
    steps = outward_steps(rim, head)
    assert abs(np.median(steps) - grown) < 1.0
    assert np.percentile(np.abs(steps - grown), 80) < 1.5
    centre = np.array([SIZE / 2, SIZE / 2 - 10])
    assert (((rim.targets - centre) * rim.normals).sum(1) > 0).mean() > 0.95  # normals point out


def test_only_the_upper_head_counts(head: HeadModel, buffers: MeshBuffers) -> None:
    rim = find_rim(head, head.vertices.numpy(), buffers, mask(buffers), HEAD_PIXELS)
    names = {REGIONS[r] for r in head.face_region[torch.from_numpy(rim.faces)].tolist()}
    assert names <= {"face_skin", "ears", "scalp"}
    corners = head.vertices.numpy()[head.faces.numpy()[rim.faces]]
    assert ((corners * rim.barycentric[..., None]).sum(1)[:, 1] > -0.05).all()


def test_an_edge_too_far_away_or_a_missing_head_gives_nothing(
    head: HeadModel, buffers: MeshBuffers
) -> None:
    rest = head.vertices.numpy()
    everything = np.full((SIZE, SIZE), 255, np.uint8)
    assert len(find_rim(head, rest, buffers, everything, HEAD_PIXELS).faces) == 0
    away = head.vertices.numpy() * (1, -1, -1) + (9.0, 0.0, 0.7)
    nowhere = rasterize(away, head.faces.numpy(), CAMERA)
    assert len(find_rim(head, rest, nowhere, mask(buffers), HEAD_PIXELS).faces) == 0


def test_stacks_pad_with_zero_weight_and_keep_the_points(
    head: HeadModel, shape_space: ShapeSpace, buffers: MeshBuffers
) -> None:
    rest = head.vertices.numpy()
    some = find_rim(head, rest, buffers, mask(buffers), HEAD_PIXELS)
    none = find_rim(head, rest, buffers, np.full((SIZE, SIZE), 255, np.uint8), HEAD_PIXELS)
    count = len(some.faces)
    solving_shape = stack_rims([some, none], head, space=shape_space, rest=None)
    solving_pose = stack_rims([some, none], head, space=None, rest=head.vertices)
    for stack in (solving_shape, solving_pose):
        assert stack.weight.shape == (2, SURVEY_POINTS)
        assert stack.weight[0].sum() == count
        assert stack.weight[1].sum() == 0
        torch.testing.assert_close(stack.target[0, :count], torch.from_numpy(some.targets))
    torch.testing.assert_close(solving_shape.mean, solving_pose.mean)
    assert solving_shape.shape.shape == (2, shape_space.size, SURVEY_POINTS, 3)
    assert solving_pose.shape.shape[1] == 0
    last = solving_pose.at(torch.tensor([1]))
    assert last.weight.shape == (1, SURVEY_POINTS)
    assert last.weight.sum() == 0
