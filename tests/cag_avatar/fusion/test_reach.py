"""How far tokens reach."""

from __future__ import annotations

import pytest
import torch

from cag_avatar.avatar.config import AvatarConfig
from cag_avatar.fusion.reach import token_reach
from cag_avatar.gaussians.uv_sampling import sample_uv
from cag_avatar.head_models import ARKIT_INDEX, REGIONS, load_head_model


def _reach(neck: bool = True) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    head = load_head_model()
    samples = sample_uv(head, 32, AvatarConfig().density)
    corner = head.faces[samples.face]
    reach = token_reach(head, head.vertices, corner, samples.barycentric, neck)
    return reach, {name: samples.region == i for i, name in enumerate(REGIONS)}


def test_a_token_reaches_what_the_mesh_moves() -> None:
    reach, on = _reach()
    assert reach.shape == (len(on["lips"]), 55)
    jaw, smile = ARKIT_INDEX["jawOpen"], ARKIT_INDEX["mouthSmileLeft"]
    assert float(reach[on["teeth_lower"], jaw].min()) > 0.9
    assert float(reach[on["teeth_upper"], jaw].max()) < 0.05
    assert float(reach[on["teeth_upper"], smile].max()) < 0.05
    assert float(reach[on["lips"], smile].max()) > 0.8
    assert float(reach[on["scalp"], smile].max()) < 0.3
    assert (reach[:, -3:] == 1).all()  # the neck
    without, _ = _reach(neck=False)
    torch.testing.assert_close(without, reach[:, :-3])


def test_reach_is_the_displacement_against_half_a_millimetre() -> None:
    head = load_head_model()
    corner, barycentric = head.faces[100:110], torch.full((10, 3), 1 / 3)
    reach = token_reach(head, head.vertices, corner, barycentric, neck=False)
    index = ARKIT_INDEX["jawOpen"]
    code = torch.zeros(1, 52)
    code[0, index] = 1
    still = torch.eye(4)[None]
    moved = head.posed_vertices(head.vertices, code, still, still)[0] - head.vertices
    distance = moved[corner].mean(1).norm(dim=1)
    torch.testing.assert_close(reach[:, index], distance / (distance + 0.0005))


def test_coefficients_that_share_a_token_take_the_farthest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = load_head_model()
    names = ("a", "a", *head.expression_names[2:])
    corner, barycentric = head.faces[::50], torch.full((len(head.faces[::50]), 3), 1 / 3)
    alone = token_reach(head, head.vertices, corner, barycentric, neck=False)
    monkeypatch.setattr(type(head), "code_tokens", property(lambda self: names))
    together = token_reach(head, head.vertices, corner, barycentric, neck=False)
    assert together.shape[1] == 51
    torch.testing.assert_close(together[:, 0], alone[:, :2].amax(1))
    torch.testing.assert_close(together[:, 1:], alone[:, 2:])
