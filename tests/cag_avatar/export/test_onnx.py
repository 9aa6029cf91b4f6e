from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.export.onnx import OUTPUTS, export_onnx
from cag_avatar.geometry import rigid_transform, rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_NAMES
from tests.conftest import facing_pose, make_avatar


def test_onnxruntime_gives_the_same_gaussians(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    avatar = make_avatar()
    export_onnx(tmp_path / "me.onnx", avatar)
    assert [p.name for p in tmp_path.iterdir()] == ["me.onnx"]
    session = runtime.InferenceSession(tmp_path / "me.onnx", providers=["CPUExecutionProvider"])
    home = facing_pose()
    torch.manual_seed(1)
    for _ in range(3):
        turn = rotation_vector_to_matrix(0.5 * torch.randn(3))
        code, head = torch.rand(52), rigid_transform(home[:3, :3] @ turn, home[:3, 3])
        inputs = {"code": code, "head_pose": head, "torso_pose": home}
        found = session.run(list(OUTPUTS), {name: v.numpy() for name, v in inputs.items()})
        expected = avatar.gaussians(code, head, home)
        for name, value in zip(OUTPUTS, found, strict=True):
            truth = getattr(expected, name).numpy()
            if name == "quaternions":
                value = value * np.sign((value * truth).sum(1, keepdims=True))
            np.testing.assert_allclose(value, truth, atol=1e-4, rtol=0)
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["expression_names"]) == list(ARKIT_NAMES)
    assert said["units"] == "metres"
    assert np.allclose(json.loads(said["neutral_head_pose"]), home)
    assert json.loads(said["camera"])["fx"] == 150.0


def test_a_head_model_that_may_not_be_passed_on_stays_here(tiny_avatar, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(type(tiny_avatar.head), "embeddable", False)
    with pytest.raises(InputError, match="may not be passed on"):
        export_onnx(tmp_path / "me.onnx", tiny_avatar)
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_named(tiny_avatar, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"cag_avatar\[export\]"):
        export_onnx(tmp_path / "me.onnx", tiny_avatar)
