from __future__ import annotations

import json

import pytest
import torch

from cag_avatar.fusion.offsets import bounded_offsets
from cag_avatar.geometry import rigid_transform, rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX, ARKIT_NAMES
from cag_avatar.head_models.face_areas import FACE_AREAS, face_areas
from cag_avatar.insight.families import FAMILIES, family_of
from cag_avatar.insight.listening import NECK_STEP, listen
from cag_avatar.insight.overlay import overlay_colors
from tests.conftest import facing_pose, make_avatar


def area_rows(avatar, name):
    area = face_areas(avatar.head, avatar.rest, avatar.binding.rest_points, avatar.sample_region)
    return area == FACE_AREAS.index(name)


def with_opacities(avatar):
    torch.manual_seed(5)
    avatar.attributes.opacity_logit.copy_(torch.randn(avatar.num_gaussians))
    return avatar


def test_attention_is_the_softmax_averaged_over_an_area():
    avatar = with_opacities(make_avatar(attention="softmax"))
    found = listen(avatar)
    fusion, count = avatar.fusion, avatar.num_gaussians
    query = (avatar.encoding @ fusion.query.weight.T).view(count, 4, 16)
    score = torch.einsum("nhd,htd->hnt", query, fusion.key) / 4
    weight = torch.softmax(score, -1).mean(0)
    assert len(found.tokens) == 55
    for name in ("lips", "shoulders"):
        rows = area_rows(avatar, name)
        opacity = torch.sigmoid(avatar.attributes.opacity_logit[rows])[:, None]
        expected = (weight[rows] * opacity).sum(0) / opacity.sum()
        torch.testing.assert_close(found.attention[found.areas.index(name)], expected)
        assert found.gaussians[found.areas.index(name)] == int(rows.sum())
    most = found.attention_family[0]
    weight[:, -3:] /= 4  # the neck's
    assert FAMILIES[most] == family_of(found.tokens[int(weight[0].argmax())])
    assert (found.spread >= 1).all()
    assert (found.spread <= 55).all()


def test_the_neck_is_attended_most_only_where_no_coefficient_stands_out():
    """Its gates are open everywhere, and would else be all that the head's picture shows."""
    avatar = make_avatar()
    found = listen(avatar)
    for name, family in (("brows", "brows"), ("chin", "jaw"), ("ears", "neck")):
        named = found.attention_family[area_rows(avatar, name)]
        assert (named == FAMILIES.index(family)).float().mean() > 0.6, name


def test_gates_are_shown_as_far_as_they_are_open():
    avatar = with_opacities(make_avatar())
    found = listen(avatar)
    rows = area_rows(avatar, "lips")
    opacity = torch.sigmoid(avatar.attributes.opacity_logit[rows])[:, None]
    gates = 0.1 + 0.85 * avatar.reach[rows]  # untrained: queries are zero
    expected = (gates * opacity).sum(0) / opacity.sum()
    torch.testing.assert_close(found.attention[found.areas.index("lips")], expected)
    assert (found.spread >= 1).all()
    assert (found.spread <= 55).all()


@pytest.mark.parametrize("fusion", ["cross-attention", "concat", "one-token"])
def test_influence_is_what_the_offsets_do_when_a_coefficient_is_pulled(fusion):
    avatar = with_opacities(make_avatar(fusion=fusion))
    found = listen(avatar)
    home, zero = facing_pose(), torch.zeros(52)
    turn = rotation_vector_to_matrix(torch.tensor([0.0, NECK_STEP, 0.0]))
    turned = rigid_transform(home[:3, :3] @ turn, home[:3, 3])
    jaw = torch.zeros(52)
    jaw[ARKIT_INDEX["jawOpen"]] = 1
    rows = area_rows(avatar, "cheeks")
    opacity = torch.sigmoid(avatar.attributes.opacity_logit[rows])
    share = opacity / opacity.sum()

    def offsets(code, head):
        # Torso axes: the neck's token is the head's turn seen from the torso.
        torso = torch.eye(4) if head is None else home
        head = torch.eye(4) if head is None else head
        return bounded_offsets(avatar.raw_offsets(code, head, torso), avatar.offset_limits)

    still = offsets(zero, None)
    for token, moved in (("jawOpen", offsets(jaw, None)), ("neckYaw", offsets(zero, turned))):
        column = found.tokens.index(token)
        position = ((moved.position - still.position)[rows].square().sum(1) * share).sum().sqrt()
        color = ((moved.color - still.color)[rows].square().mean(1) * share).sum().sqrt()
        row = found.areas.index("cheeks")
        torch.testing.assert_close(found.position[row, column], 1e3 * position, rtol=1e-3, atol=0)
        torch.testing.assert_close(found.color[row, column], 255 * color, rtol=1e-3, atol=0)
    if fusion != "cross-attention":
        assert found.attention is None
        assert found.attention_family is None
        assert found.to_dict()["attention"] is None


def test_one_coefficient_that_moves_the_lips_alone_is_found():
    """A fusion and a network made by hand: mouthPucker pushes, and reaches no other area."""
    avatar = make_avatar(fusion="concat", depth=1, width=32)
    lips = area_rows(avatar, "lips")
    network = avatar.network
    avatar.encoding.zero_()
    avatar.encoding[lips, 0] = 1
    for parameter in network.parameters():
        parameter.zero_()
    # relu(10 [on the lips] - 10 + pucker), to x.
    network.first.weight[0, 0] = 10.0
    network.first.bias[0] = -10.0
    network.first.weight[0, network.encoding_size + ARKIT_INDEX["mouthPucker"]] = 1.0
    network.last.weight[0, 0] = 1.0
    found = listen(avatar)
    expected = torch.zeros_like(found.position)
    row, column = found.areas.index("lips"), found.tokens.index("mouthPucker")
    expected[row, column] = 1e3 * 0.01 * torch.tanh(torch.tensor(1.0))
    torch.testing.assert_close(found.position, expected)
    assert found.color.abs().max() == 0
    assert {FAMILIES[i] for i in found.influence_family[lips].tolist()} == {"mouth"}


def test_coefficients_that_training_did_not_move_are_marked(tiny_avatar):
    tiny_avatar.record.code_max[ARKIT_INDEX["tongueOut"]] = 0.01
    found = listen(tiny_avatar)
    assert [t for t, seen in zip(found.tokens, found.seen, strict=True) if not seen] == [
        "tongueOut"
    ]
    said = json.loads(json.dumps(found.to_dict()))
    assert said["not_seen_in_training"] == ["tongueOut"]
    assert said["attention"]["lips"].keys() == set(found.tokens)


def test_every_arkit_coefficient_has_a_family():
    families = [family_of(name) for name in (*ARKIT_NAMES, "neckYaw")]
    assert "other" not in families
    assert set(families) == set(FAMILIES) - {"other"}
    assert family_of("expression007") == "other"


def test_painting_keeps_brightness():
    own = torch.tensor([[0.9, 0.9, 0.9], [0.1, 0.1, 0.1]])
    painted = overlay_colors(torch.tensor([3, 3]), own)
    assert (painted[0] > painted[1]).all()
    torch.testing.assert_close(overlay_colors(torch.tensor([3, 3]), own, 0.0), own)
