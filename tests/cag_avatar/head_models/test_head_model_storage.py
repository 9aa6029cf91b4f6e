from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from cag_avatar.errors import InputError
from cag_avatar.head_models import HeadModel, head_model_path, load_head_model
from cag_avatar.head_models.storage import load_head_model_file, save_head_model_arrays

_TENSORS = (
    "vertices", "faces", "uv", "face_uv", "identity_basis", "expression_basis", "skinning",
    "neck_pivot", "face_region",
)  # fmt: skip


def write(path: Path, head: HeadModel) -> Path:
    arrays = {name: getattr(head, name).numpy() for name in _TENSORS}
    save_head_model_arrays(
        path, name=head.name, expression_names=head.expression_names, metadata=head.metadata,
        eye_left=head.eye_vertices[0].numpy(), eye_right=head.eye_vertices[1].numpy(), **arrays,
    )  # fmt: skip
    return path


def rewrite(path: Path, drop: str = "", **changes: object) -> None:
    """Change the header or drop a tensor of a head model file."""
    from safetensors import safe_open

    with safe_open(path, "np") as handle:
        header = json.loads(handle.metadata()["cag_avatar"])
    tensors = {k: v for k, v in load_file(path).items() if k != drop}
    save_file(tensors, path, metadata={"cag_avatar": json.dumps(header | changes)})


def test_a_written_model_comes_back(head: HeadModel, tmp_path: Path) -> None:
    back = load_head_model_file(write(tmp_path / "head.safetensors", head))
    for name in (*_TENSORS, "vertex_region"):
        torch.testing.assert_close(getattr(back, name), getattr(head, name), atol=0, rtol=0)
        assert getattr(back, name).dtype == getattr(head, name).dtype
    for mine, theirs in zip(back.eye_vertices, head.eye_vertices, strict=True):
        assert torch.equal(mine, theirs)
    assert (back.name, back.expression_names) == (head.name, head.expression_names)
    assert back.metadata == head.metadata
    assert [p.name for p in tmp_path.iterdir()] == ["head.safetensors"]


def test_bases_keep_a_micrometre(tmp_path: Path, head: HeadModel) -> None:
    path = write(tmp_path / "head.safetensors", head)
    stored = load_file(path)["expression_basis"]
    assert stored.dtype == np.float16
    error = np.abs(stored.astype(np.float32) - head.expression_basis.numpy()).max()
    assert error < 1e-6


def test_a_vertex_of_several_regions_takes_that_of_its_last_face(
    head: HeadModel, tmp_path: Path
) -> None:
    corners = head.faces.flatten().tolist()
    regions = head.face_region.repeat_interleave(3).tolist()
    last = dict(zip(corners, regions, strict=True))
    path = write(tmp_path / "head.safetensors", head)
    for _ in range(5):
        region = load_head_model_file(path).vertex_region
        assert [int(region[v]) for v in last] == list(last.values())


def test_vertices_carry_the_region_of_a_face_that_uses_them(head: HeadModel) -> None:
    fits = torch.zeros(len(head.vertices), dtype=torch.bool)
    for corner in range(3):
        index = head.faces[:, corner]
        fits[index[head.vertex_region[index] == head.face_region]] = True
    assert fits.all()


def test_bundled_models_go_by_name() -> None:
    assert head_model_path("anny").is_file()
    assert load_head_model("anny") is load_head_model("anny")
    with pytest.raises(InputError, match=r"head model 'flame' is unknown; choose from anny"):
        load_head_model("flame")


def test_a_file_that_is_no_safetensors_is_named(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    for content in (b"", b"hello", b"\x00" * 100):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"head\.safetensors: not a head model file"):
            load_head_model_file(path)
    with pytest.raises(InputError, match=r"none\.safetensors: not a head model file"):
        load_head_model_file(tmp_path / "none.safetensors")


def test_a_truncated_file_is_named(tmp_path: Path, head: HeadModel) -> None:
    path = write(tmp_path / "head.safetensors", head)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"head\.safetensors: not a head model file"):
        load_head_model_file(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a head model of version 1 or 2; extract it again"),
        ({"version": 3}, "not a head model of version 1 or 2; extract it again"),
        ({"joints": ["torso"]}, "joints or regions differ"),
        ({"regions": ["face"]}, "joints or regions differ"),
        ({"drop": "skinning"}, "lacks skinning; extract it again"),
    ],
)
def test_other_versions_and_missing_parts_say_what_to_do(
    tmp_path: Path, head: HeadModel, change: dict[str, object], message: str
) -> None:
    path = write(tmp_path / "head.safetensors", head)
    rewrite(path, **change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"head\.safetensors: .*{message}"):
        load_head_model_file(path)


def test_a_safetensors_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    for metadata in (None, {"cag_avatar": "{"}, {"cag_avatar": "[]"}):
        save_file({"x": np.zeros(3)}, path, metadata=metadata)
        with pytest.raises(InputError, match=r"head\.safetensors: not a head model"):
            load_head_model_file(path)
