from __future__ import annotations

import pytest
import torch

from cag_avatar.errors import InputError
from cag_avatar.fusion.encoding import encode_positions, encoded_size
from cag_avatar.fusion.factory import make_fusion
from cag_avatar.fusion.offsets import OffsetNetwork, bounded_offsets, offset_limits
from cag_avatar.fusion.tokens import driving_values, token_groups, token_names
from cag_avatar.geometry import rotation_vector_to_matrix

TOKENS, HEADS, SIZE = 55, 4, 16


@pytest.fixture
def encoding():
    torch.manual_seed(0)
    return encode_positions(0.2 * torch.rand(40, 3) - 0.1)


def make(name):
    torch.manual_seed(1)
    return make_fusion(name, encoded_size(8), TOKENS, HEADS, SIZE)


def test_cross_attention_is_scaled_dot_product_attention(encoding):
    fusion, tokens = make("cross-attention"), torch.rand(TOKENS)
    query = (encoding @ fusion.query.weight.T).view(-1, HEADS, SIZE).transpose(0, 1)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, fusion.key, fusion.values(tokens)
    )
    expected = expected.transpose(0, 1).reshape(len(encoding), -1)
    torch.testing.assert_close(fusion(encoding, tokens), expected)
    weights = fusion.static(encoding)
    torch.testing.assert_close(weights.sum(-1), torch.ones(HEADS, len(encoding)))


def test_one_token_gives_every_gaussian_the_same_context_and_the_default_does_not(encoding):
    """Softmax over a single key is 1 whatever the query: eq. 5 read literally cannot adapt."""
    tokens = torch.rand(TOKENS)
    context = {name: make(name)(encoding, tokens) for name in ("one-token", "cross-attention")}
    spread = {name: (c - c[:1]).abs().max() / c.abs().max() for name, c in context.items()}
    assert spread["one-token"] < 1e-6
    assert spread["cross-attention"] > 0.1


def test_values_of_one_token_share_a_key_and_add_up(encoding):
    names = ("a", "jaw", "jaw", "b", "jaw")
    groups = token_groups(token_names(names, True))
    assert groups == (0, 1, 1, 2, 1, 3, 4, 5)
    torch.manual_seed(2)
    fusion = make_fusion("cross-attention", encoded_size(8), len(groups), HEADS, SIZE, groups)
    assert fusion.key.shape == (HEADS, 6, SIZE)
    psi = torch.rand(len(groups))
    each = psi[:, None] * fusion.embedding * 6
    summed = torch.stack([each[:, [0]].sum(1), each[:, [1, 2, 4]].sum(1), *each[:, [3, 5, 6, 7]]
                          .unbind(1)], 1)  # fmt: skip
    query = (encoding @ fusion.query.weight.T).view(-1, HEADS, SIZE).transpose(0, 1)
    expected = torch.nn.functional.scaled_dot_product_attention(query, fusion.key, summed)
    torch.testing.assert_close(
        fusion(encoding, psi), expected.transpose(0, 1).reshape(len(encoding), -1)
    )


def test_one_token_trains_neither_queries_nor_keys(encoding):
    fusion = make("one-token")
    fusion(encoding, torch.rand(TOKENS)).square().sum().backward()
    assert fusion.query.weight.grad.abs().max() < 1e-6
    assert fusion.key.weight.grad.abs().max() < 1e-6
    assert fusion.value.weight.grad.abs().max() > 1e-3


def test_cross_attention_trains_queries_and_keys(encoding):
    fusion = make("cross-attention")
    fusion(encoding, torch.rand(TOKENS)).square().sum().backward()
    assert fusion.query.weight.grad.abs().max() > 1e-3
    assert fusion.key.grad.abs().max() > 1e-3


def test_concat_passes_the_code_on(encoding):
    tokens = torch.rand(TOKENS)
    assert torch.equal(make("concat")(encoding, tokens), tokens.expand(len(encoding), TOKENS))


def test_a_zero_code_gives_a_zero_context(encoding):
    for name in ("cross-attention", "one-token", "concat"):
        assert make(name)(encoding, torch.zeros(TOKENS)).abs().max() == 0


def test_unknown_name():
    with pytest.raises(InputError, match="fusion: unknown 'film'"):
        make_fusion("film", 51, TOKENS, HEADS, SIZE)


def test_neck_tokens_are_the_relative_rotation():
    vector = torch.tensor([0.1, -0.2, 0.3])
    torso = torch.eye(4)
    torso[:3, :3] = rotation_vector_to_matrix(torch.tensor([0.4, 0.0, 0.1]))
    head = torso.clone()
    head[:3, :3] = torso[:3, :3] @ rotation_vector_to_matrix(vector)
    code = torch.rand(52)
    tokens = driving_values(code, head, torso, neck=True)
    torch.testing.assert_close(tokens, torch.cat([code, vector]), atol=1e-5, rtol=0)
    assert len(tokens) == len(token_names(tuple("a" * 52), True))
    assert torch.equal(driving_values(code, head, torso, neck=False), code)


def test_split_first_layer_equals_one_product(encoding):
    torch.manual_seed(0)
    network = OffsetNetwork(51, 64, 32, 3)
    torch.nn.init.normal_(network.last.weight)
    context = torch.randn(len(encoding), 64)
    value = torch.cat([encoding, context], 1)
    for layer in (network.first, *network.hidden):
        value = torch.relu(layer(value))
    torch.testing.assert_close(network(encoding, context), network.last(value))


@pytest.mark.parametrize("size", [1.0, 1e3, 1e30])
def test_offsets_never_exceed_their_bounds(size):
    limit = torch.tensor([0.01, 0.04])
    limits = offset_limits(limit, rotation=0.5, log_scale=0.7, color=0.25)
    offsets = bounded_offsets(size * torch.randn(2, 12), limits)
    assert (offsets.position.abs() <= limit[:, None]).all()
    assert (offsets.rotation.abs() <= 0.5).all()
    assert (offsets.log_scale.abs() <= 0.7).all()
    assert (offsets.color.abs() <= 0.25).all()


def test_large_outputs_reach_the_limit_of_their_kind():
    limits = offset_limits(torch.tensor([0.01]), rotation=0.5, log_scale=0.7, color=0.25)
    offsets = bounded_offsets(torch.full((1, 12), 50.0), limits)
    for value, limit in zip(vars(offsets).values(), (0.01, 0.5, 0.7, 0.25), strict=True):
        torch.testing.assert_close(value, torch.full((1, 3), limit))


def test_zero_output_changes_nothing():
    offsets = bounded_offsets(torch.zeros(3, 12), offset_limits(torch.ones(3), 0.5, 0.7, 0.25))
    assert all(value.abs().max() == 0 for value in vars(offsets).values())


def test_gates_start_from_the_reach_and_learn(encoding):
    torch.manual_seed(3)
    fusion = make_fusion("cross-attention", encoded_size(8), TOKENS, HEADS, SIZE, attention="gates")
    reach, psi = torch.rand(len(encoding), TOKENS), torch.rand(TOKENS)
    reach[:, 0] = 0
    weights = fusion.static(encoding, reach)
    torch.testing.assert_close(weights, (0.1 + 0.85 * reach).expand(HEADS, -1, -1))
    with torch.no_grad():
        fusion.query.weight.normal_()
    query = (encoding @ fusion.query.weight.T).view(-1, HEADS, SIZE).transpose(0, 1)
    score = query @ fusion.key.transpose(1, 2) / SIZE**0.5
    prior = 0.1 + 0.85 * reach
    odds = prior / (1 - prior) * score.exp()
    gates = odds / (1 + odds)
    torch.testing.assert_close(fusion.static(encoding, reach), gates)
    each = psi[:, None] * fusion.embedding
    expected = torch.einsum("hnt,htd->nhd", gates, each).flatten(1)
    torch.testing.assert_close(fusion(encoding, psi, reach), expected)
    fusion(encoding, psi, reach).square().sum().backward()
    assert fusion.query.weight.grad.abs().max() > 1e-3
    assert fusion.attention(fusion.static(encoding, reach)).shape == (HEADS, len(encoding), TOKENS)
