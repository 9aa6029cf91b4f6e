from __future__ import annotations

import pytest
import torch

from cag_avatar.geometry import midway_transform, rigid_transform, rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX, ARKIT_NAMES, JOINTS, REGIONS, HeadModel


def code(**values: float) -> torch.Tensor:
    out = torch.zeros(1, len(ARKIT_NAMES))
    for name, value in values.items():
        out[0, ARKIT_INDEX[name]] = value
    return out


def pose(
    vector: tuple[float, float, float], translation: tuple[float, float, float]
) -> torch.Tensor:
    rotation = rotation_vector_to_matrix(torch.tensor(vector))
    return rigid_transform(rotation, torch.tensor(translation))[None]


IDENTITY = torch.eye(4)[None]


def test_the_bundled_model_is_a_head_in_canonical_space(head: HeadModel) -> None:
    assert head.expression_names == ARKIT_NAMES
    left, right = head.eye_centres(head.vertices)
    assert left[0] > 0 > right[0]  # x to the subject's left
    torch.testing.assert_close(0.5 * (left + right), torch.zeros(3), atol=1e-5, rtol=0)
    assert 0.055 < float((left - right).norm()) < 0.07  # metres
    nose = head.vertices[head.region_vertices("face_skin")][:, 2].max()
    assert nose > left[2] + 0.01  # z out of the face
    scalp, shoulders = (head.vertices[head.region_vertices(n)] for n in ("scalp", "shoulders"))
    assert scalp[:, 1].max() > 0.08 > -0.1 > shoulders[:, 1].mean()
    torch.testing.assert_close(head.skinning.sum(1), torch.ones(len(head.vertices)))
    assert 0 <= float(head.uv.min()) <= float(head.uv.max()) <= 1


def test_faces_turn_outwards(head: HeadModel) -> None:
    """The eyeballs' faces point away from their centres; so does the skin, by and large."""
    corners = head.vertices[head.faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    for side, name in enumerate(("eye_left", "eye_right")):
        chosen = head.region_faces(name)
        outward = corners[chosen].mean(1) - head.eye_centres(head.vertices)[side]
        assert ((normal[chosen] * outward).sum(-1) > 0).float().mean() > 0.95
    skin = head.region_faces("face_skin")
    outward = corners[skin].mean(1) - torch.tensor([0.0, -0.02, -0.08])
    assert ((normal[skin] * outward).sum(-1) > 0).float().mean() > 0.8


@pytest.mark.parametrize("name", REGIONS)
def test_every_region_has_faces(head: HeadModel, name: str) -> None:
    faces = head.region_faces(name)
    assert len(faces)
    assert (head.face_region[faces] == REGIONS.index(name)).all()
    assert set(head.region_vertices(name).tolist()) == set(head.faces[faces].flatten().tolist())


def test_an_unknown_region_lists_the_known(head: HeadModel) -> None:
    with pytest.raises(KeyError, match=r"no region 'nose'.*face_skin"):
        head.region_faces("nose")


def test_identity_and_offsets_are_linear(head: HeadModel) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, head.num_identity, generator=generator)
    offsets = torch.randn(len(head.vertices), 3, generator=generator) * 1e-3
    moved = head.rest_vertices(a + b, offsets)
    parts = [head.rest_vertices(x) - head.vertices for x in (a, b)]
    torch.testing.assert_close(moved, head.vertices + sum(parts) + offsets, atol=1e-6, rtol=0)
    assert float(parts[0].norm(dim=-1).mean()) > 1e-3


def test_expression_is_linear_in_the_code(head: HeadModel) -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.rand(2, 1, 52, generator=generator)
    at = [head.express(head.vertices, c)[0] for c in (first, second, 0.25 * first + 0.5 * second)]
    mixed = 0.25 * (at[0] - head.vertices) + 0.5 * (at[1] - head.vertices)
    torch.testing.assert_close(at[2] - head.vertices, mixed, atol=1e-6, rtol=0)
    jaw = head.express(head.vertices, code(jawOpen=1.0))[0] - head.vertices
    torch.testing.assert_close(jaw, head.expression_basis[ARKIT_INDEX["jawOpen"]])
    chin = head.region_vertices("teeth_lower")
    assert jaw[chin, 1].mean() < -0.005  # the jaw goes down


def test_every_arkit_name_but_gaze_of_the_balls_moves_something(head: HeadModel) -> None:
    assert (head.expression_basis.norm(dim=-1).amax(1) > 1e-4).all()
    for index in head.eye_vertices:
        assert (head.expression_basis[:, index] == 0).all()


def test_a_common_rigid_motion_is_exact(head: HeadModel) -> None:
    """With head and torso together, skinning must not bend anything, neck included."""
    expression = code(jawOpen=0.5, eyeLookOutLeft=0.4)
    still = head.posed_vertices(head.vertices, expression, IDENTITY, IDENTITY)[0]
    motion = pose((0.4, -0.7, 0.2), (0.1, -0.2, 0.7))
    moved = head.posed_vertices(head.vertices, expression, motion, motion)[0]
    expected = still @ motion[0, :3, :3].T + motion[0, :3, 3]
    torch.testing.assert_close(moved, expected, atol=2e-6, rtol=0)


def test_head_follows_the_head_torso_the_torso_and_the_neck_goes_midway(head: HeadModel) -> None:
    turned, moved = pose((0.0, 0.4, 0.0), (0.0, 0.0, 0.6)), pose((0.1, 0.0, 0.0), (0.02, 0.0, 0.6))
    joints = head.joint_transforms(head.vertices, code(), turned, moved)[0]
    assert joints.shape == (len(JOINTS), 4, 4)
    torch.testing.assert_close(joints[JOINTS.index("torso")], moved[0])
    torch.testing.assert_close(joints[JOINTS.index("head")], turned[0])
    midway = midway_transform(moved, turned, head.neck_pivot)[0]
    torch.testing.assert_close(joints[JOINTS.index("neck")], midway)
    posed = head.posed_vertices(head.vertices, code(), turned, moved)[0]
    for joint, transform in ((0, moved[0]), (1, midway), (2, turned[0])):
        only = head.skinning[:, joint] > 0.9999
        if joint != 1:
            assert only.any()
        expected = head.vertices[only] @ transform[:3, :3].T + transform[:3, 3]
        torch.testing.assert_close(posed[only], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("names", "axis", "sign"),
    [
        (("eyeLookOutLeft", "eyeLookInRight"), 0, 1.0),  # to the subject's left
        (("eyeLookInLeft", "eyeLookOutRight"), 0, -1.0),
        (("eyeLookUpLeft", "eyeLookUpRight"), 1, 1.0),
        (("eyeLookDownLeft", "eyeLookDownRight"), 1, -1.0),
    ],
)
def test_eyeballs_look_where_the_code_says_and_keep_their_shape(
    head: HeadModel, names: tuple[str, str], axis: int, sign: float
) -> None:
    still = head.posed_vertices(head.vertices, code(), IDENTITY, IDENTITY)[0]
    looking = code(**dict.fromkeys(names, 1.0))
    moved = head.posed_vertices(head.vertices, looking, IDENTITY, IDENTITY)[0]
    degrees = 30.0 if axis == 0 else 22.0
    for side, index in enumerate(head.eye_vertices):
        centre = head.eye_centres(head.vertices)[side]
        before, after = still[index] - centre, moved[index] - centre
        torch.testing.assert_close(before.norm(dim=-1), after.norm(dim=-1), atol=1e-6, rtol=0)
        torch.testing.assert_close(after.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
        front = before[:, 2].argmax()
        shift = (after[front] - before[front])[axis]
        assert sign * float(shift) > 0.003
        gaze = head.gaze(looking)[0, side]
        torch.testing.assert_close(
            torch.rad2deg(gaze.norm()), torch.tensor(degrees), atol=1e-3, rtol=0
        )
    only_left = head.gaze(code(**{names[0]: 1.0}))[0]
    assert (only_left[1] == 0).all()
    assert (only_left[0] != 0).any()


def test_batches_agree_with_single_frames(head: HeadModel) -> None:
    codes = torch.rand(3, 52, generator=torch.Generator().manual_seed(2))
    poses = torch.cat([pose((0.1 * i, 0.2, 0.0), (0.0, 0.0, 0.5 + 0.1 * i)) for i in range(3)])
    torsos = poses.flip(0)
    together = head.posed_vertices(head.vertices, codes, poses, torsos)
    for i in range(3):
        at = slice(i, i + 1)
        alone = head.posed_vertices(head.vertices, codes[at], poses[at], torsos[at])[0]
        torch.testing.assert_close(together[i], alone, atol=1e-6, rtol=0)
