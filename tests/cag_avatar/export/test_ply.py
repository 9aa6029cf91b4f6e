from __future__ import annotations

import numpy as np
import pytest
import torch

from cag_avatar.avatar.expression import parse_expression
from cag_avatar.errors import InputError
from cag_avatar.export.ply import export_ply, torso_in_head
from cag_avatar.geometry import rigid_transform, rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX
from cag_avatar.rendering.rasterizer import get_rasterizer
from cag_avatar.rendering.spherical_harmonics import spherical_harmonics_color
from tests.conftest import facing_pose, make_avatar


def read_ply(path) -> dict[str, np.ndarray]:
    """The columns of a binary PLY with one element of floats, read as the format is described."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[0] == "ply"
    assert lines[1] == "format binary_little_endian 1.0"
    names = [line.split()[2] for line in lines if line.startswith("property float ")]
    (count,) = [int(line.split()[2]) for line in lines if line.startswith("element vertex ")]
    table = np.frombuffer(body, "<f4").reshape(count, len(names))
    return dict(zip(names, table.T, strict=True))


def as_viewer(columns, pose, camera, world=None):
    """What a 3D Gaussian splatting viewer draws; ``pose`` is world to camera, [4, 4]."""

    def stacked(*names):
        return torch.tensor(np.stack([columns[name] for name in names], -1))

    means = stacked("x", "y", "z")
    rest = [name for name in columns if name.startswith("f_rest_")]
    per = len(rest) // 3
    coefficients = stacked("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    if per:
        higher = stacked(*(f"f_rest_{i}" for i in range(3 * per))).unflatten(1, (3, per)).mT
        coefficients = torch.cat([coefficients, higher], 1)
    position = torch.linalg.inv(pose)[:3, 3]
    rendered = get_rasterizer("torch").render(
        means,
        stacked("rot_0", "rot_1", "rot_2", "rot_3"),
        stacked("scale_0", "scale_1", "scale_2").exp(),
        torch.sigmoid(stacked("opacity")[:, 0]),
        spherical_harmonics_color(coefficients, means - position),
        pose,
        camera,
        torch.ones(3),
    )
    return rendered.image


@pytest.mark.parametrize(("axes", "degree"), [("y-down", 2), ("y-up", 1), ("y-down", 0)])
def test_a_viewer_of_the_file_draws_what_we_draw(axes, degree, tmp_path):
    avatar = make_avatar(sh_degree=degree)
    home = facing_pose()
    turn = rotation_vector_to_matrix(torch.tensor([0.1, 0.5, -0.2]))
    head = rigid_transform(home[:3, :3] @ turn, home[:3, 3])
    code = torch.zeros(52)
    code[ARKIT_INDEX["jawOpen"]], code[ARKIT_INDEX["mouthSmileLeft"]] = 0.6, 0.4
    path = tmp_path / "me.ply"
    torso = torso_in_head(avatar, head, home)
    assert export_ply(path, avatar, code, torso, axes) == avatar.num_gaussians
    camera = avatar.record.camera
    g = avatar.gaussians(code, head, home)
    expected = get_rasterizer("torch").render(
        *(g.means, g.quaternions, g.scales, g.opacities, g.colors),
        torch.eye(4), camera, torch.ones(3),
    ).image  # fmt: skip
    to_head = torch.diag(torch.tensor([-1.0, -1, 1, 1])) if axes == "y-down" else torch.eye(4)
    image = as_viewer(read_ply(path), head @ to_head, camera)
    assert (expected < 0.9).any()
    assert (image.clamp(0, 1) - expected.clamp(0, 1)).abs().max() <= 1 / 255
    wrong = as_viewer(read_ply(path), home @ to_head, camera)
    assert (wrong - expected).abs().max() > 0.2


def test_layout_is_that_of_the_reference_code(tmp_path):
    avatar = make_avatar(sh_degree=1)
    export_ply(tmp_path / "a.ply", avatar, torch.zeros(52), torch.eye(4))
    columns = read_ply(tmp_path / "a.ply")
    rest = [f"f_rest_{i}" for i in range(9)]
    assert list(columns) == [
        "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest,
        "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
    ]  # fmt: skip
    # All of red first: the reference transposes [N, K, 3] before it flattens.
    for i in range(3):
        for k, sign in enumerate((-1, 1, -1)):
            np.testing.assert_allclose(
                columns[f"f_rest_{3 * i + k}"], sign * avatar.attributes.color_rest[:, k, i].numpy()
            )
    assert (columns["y"][avatar.rest[avatar.binding.corner[:, 0], 1] > 0.05] < 0).all()


def test_another_reader_reads_it(tmp_path):
    plyfile = pytest.importorskip("plyfile")
    avatar = make_avatar()
    export_ply(tmp_path / "a.ply", avatar, torch.zeros(52), torch.eye(4))
    element = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]
    for name, values in read_ply(tmp_path / "a.ply").items():
        np.testing.assert_array_equal(element[name], values)


def test_expressions_are_parsed(tiny_avatar):
    code = parse_expression(tiny_avatar, ["jawOpen=0.6", "mouthSmileLeft=1"])
    assert code[ARKIT_INDEX["jawOpen"]] == pytest.approx(0.6)
    assert code.sum() == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("jawOpn=1", "did you mean jawOpen"),
        ("jawOpen", "name=value"),
        ("jawOpen=nan", "name=value"),
        ("jawOpen=1.5", "must lie in 0 .. 1"),
    ],
)
def test_bad_expressions_are_named(word, said, tiny_avatar):
    with pytest.raises(InputError, match=said):
        parse_expression(tiny_avatar, [word])


def test_nothing_is_written_when_a_gaussian_is_not_finite(tiny_avatar, tmp_path):
    tiny_avatar.attributes.color_base[3] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        export_ply(tmp_path / "a.ply", tiny_avatar, torch.zeros(52), torch.eye(4))
    assert not list(tmp_path.iterdir())
