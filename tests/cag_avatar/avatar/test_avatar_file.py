from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cag_avatar.avatar.file import load_avatar, save_avatar
from cag_avatar.errors import InputError
from tests.conftest import facing_pose, make_avatar


def parts(path):
    with safe_open(path, "pt") as handle:
        return {k: handle.get_tensor(k) for k in handle.keys()}, dict(handle.metadata())  # noqa: SIM118


def test_round_trip_renders_the_same(tiny_avatar, tiny_avatar_path):
    loaded = load_avatar(tiny_avatar_path)
    assert loaded.config == tiny_avatar.config
    assert loaded.record.to_dict() == tiny_avatar.record.to_dict()
    code, pose = torch.rand(52), facing_pose()
    was, now = tiny_avatar.gaussians(code, pose, pose), loaded.gaussians(code, pose, pose)
    # The expression basis is stored in half precision: micrometres.
    assert (was.means - now.means).abs().max() < 5e-5
    torch.testing.assert_close(now.colors, was.colors, atol=1e-3, rtol=0)
    save_avatar(tiny_avatar_path, loaded)
    again = load_avatar(tiny_avatar_path)
    assert torch.equal(again.gaussians(code, pose, pose).means, now.means)


def test_needs_no_head_model_file(tiny_avatar_path, monkeypatch):
    import cag_avatar.head_models.storage as storage

    def refuse(path):
        raise AssertionError("the head model file was read")

    monkeypatch.setattr(storage, "load_head_model_file", refuse)
    assert load_avatar(tiny_avatar_path).num_gaussians > 100


@pytest.mark.parametrize("keep", [0, 5, 200, 0.5, 0.999])
def test_truncated(tiny_avatar_path, keep):
    data = tiny_avatar_path.read_bytes()
    tiny_avatar_path.write_bytes(data[: int(keep * len(data) if isinstance(keep, float) else keep)])
    with pytest.raises(InputError, match=r"tiny.cag: not an avatar file, or truncated"):
        load_avatar(tiny_avatar_path)


def test_not_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_avatar(tmp_path / "none.cag")


def test_another_format_or_version(tiny_avatar_path):
    tensors, metadata = parts(tiny_avatar_path)
    save_file(tensors, tiny_avatar_path, {**metadata, "version": "99"})
    with pytest.raises(InputError, match="format version 99, this program reads 1"):
        load_avatar(tiny_avatar_path)
    save_file(tensors, tiny_avatar_path, {"format": "pt"})
    with pytest.raises(InputError, match="not an avatar file"):
        load_avatar(tiny_avatar_path)


def _nan(t):
    t["attributes.opacity_logit"][7] = float("nan")


def _infinite_half(t):
    t["expression_basis"][0, 0, 0] = float("inf")


def _missing(t):
    del t["attributes.log_scale"]


def _missing_mesh(t):
    del t["skinning"]


def _extra(t):
    t["surprise"] = torch.zeros(1)


def _shape(t):
    t["network.first.bias"] = torch.zeros(3)


def _index(t):
    t["sample_face"][0] = 10**6


def _dtype(t):
    t["fusion.key"] = t["fusion.key"].to(torch.int32)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_nan, "tensor 'attributes.opacity_logit' holds NaN"),
        (_infinite_half, "tensor 'expression_basis' holds NaN or infinity"),
        (_missing, "tensor 'attributes.log_scale' is missing"),
        (_missing_mesh, "tensor 'skinning' is missing"),
        (_extra, "unexpected tensor 'surprise'"),
        (_shape, r"tensor 'network.first.bias' has shape \[3\]"),
        (_index, "tensor 'sample_face' must hold int32 indices"),
        (_dtype, "tensor 'fusion.key' has dtype"),
    ],
)
def test_damaged_tensors_are_named(tiny_avatar_path, damage, message):
    tensors, metadata = parts(tiny_avatar_path)
    damage(tensors)
    save_file(tensors, tiny_avatar_path, metadata)
    with pytest.raises(InputError, match=f"tiny.cag: {message}") as caught:
        load_avatar(tiny_avatar_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.pop("record"), "field 'record'"),
        (lambda b: b["config"].pop("width"), "field 'width' is missing"),
        (lambda b: b["config"].update(heads=0), "heads"),
        (lambda b: b["record"]["camera"].update(fx=-1), "fx"),
        (lambda b: b.update(code_layout="FLAME_100"), "code layout"),
        (lambda b: b.update(expression_names=["x"] * 52), "expression_names"),
        (lambda b: b["sizes"].update(faces=0), "sizes.faces"),
    ],
)
def test_damaged_header_is_named(tiny_avatar_path, change, message):
    tensors, metadata = parts(tiny_avatar_path)
    body = json.loads(metadata["avatar"])
    change(body)
    save_file(tensors, tiny_avatar_path, {**metadata, "avatar": json.dumps(body)})
    with pytest.raises(InputError, match=message):
        load_avatar(tiny_avatar_path)


def test_nothing_is_written_for_a_bad_avatar(tmp_path):
    avatar = make_avatar()
    avatar.attributes.log_scale[0, 0] = float("nan")
    with pytest.raises(InputError, match="log_scale"):
        save_avatar(tmp_path / "bad.cag", avatar)
    avatar = make_avatar()
    avatar.record = None
    with pytest.raises(InputError, match="capture record"):
        save_avatar(tmp_path / "bad.cag", avatar)
    assert list(tmp_path.iterdir()) == []


def test_files_from_before_gates_open_as_they_were(tiny_avatar_path):
    """Settings that a file does not name are those of its time, not today's defaults."""
    tensors, metadata = parts(tiny_avatar_path)
    body = json.loads(metadata["avatar"])
    for name in ("attention", "local_size"):
        del body["config"][name]
    del tensors["local.weight"]
    save_file(tensors, tiny_avatar_path, {**metadata, "avatar": json.dumps(body)})
    avatar = load_avatar(tiny_avatar_path)
    assert avatar.config.attention == "softmax"
    assert avatar.local is None
    # and a softmax: what is far from all tokens still gives them weights that sum to one
    weights = avatar.attention()
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
