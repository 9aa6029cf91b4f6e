"""The small FLAME head, as a head model that is found by name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cag_avatar.head_models import REGIONS
from cag_avatar.head_models.flame import FlameHeadModel, flame_code_names
from cag_avatar.head_models.library import FOLDER_VARIABLE
from cag_avatar.head_models.storage import save_head_model, vertex_regions
from tests.training.importers.flame_twin import EXPRESSIONS, SHAPES, FlameTwin, make_twin

NAME = "tiny-flame"


@pytest.fixture(scope="session")
def twin() -> FlameTwin:
    return make_twin()


def flame_head_model(twin: FlameTwin) -> FlameHeadModel:
    """The twin's arrays as the package's head model; eyelids move the skin round the eyes."""

    def tensor(values: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).float()

    points = twin.v_template
    eyes = (twin.left_eye, twin.right_eye)
    origin = np.mean([points[e].mean(0) for e in eyes], axis=0)
    bases = twin.shapedirs.transpose(2, 0, 1)
    expression = bases[SHAPES:]
    centre = points[twin.f].mean(1) - origin
    region = np.full(len(twin.f), REGIONS.index("face_skin"))
    lips = (np.abs(centre[:, 1] + 0.055) < 0.012) & (np.abs(centre[:, 0]) < 0.03)
    region[lips & (centre[:, 2] > 0)] = REGIONS.index("lips")
    for name, eye in zip(("eye_left", "eye_right"), eyes, strict=True):
        region[np.isin(twin.f, eye).all(1)] = REGIONS.index(name)
    faces = torch.from_numpy(twin.f)
    face_region = torch.from_numpy(region)
    flat = (points[:, :2] - points[:, :2].min(0)) / np.ptp(points[:, :2], axis=0)
    rest_joints = twin.J_regressor.sum(1)[:, None] * origin - origin
    return FlameHeadModel(
        name=NAME,
        expression_names=flame_code_names(EXPRESSIONS),
        vertices=tensor(points - origin),
        faces=faces,
        uv=tensor(flat),
        face_uv=faces,
        identity_basis=tensor(bases[:SHAPES]),
        skinning=tensor(twin.weights),
        neck_pivot=tensor(twin.J_regressor[1] @ points - origin),
        eye_left=torch.from_numpy(eyes[0]),
        eye_right=torch.from_numpy(eyes[1]),
        face_region=face_region,
        vertex_region=vertex_regions(faces, face_region, len(points)),
        expression_basis=tensor(expression),
        eyelid_basis=torch.zeros(2, len(points), 3),
        pose_basis=tensor(twin.posedirs.transpose(2, 0, 1)),
        joint_regressor=tensor(twin.J_regressor),
        joint_offset=tensor(rest_joints),
        joint_expression=tensor(np.einsum("jv,nva->nja", twin.J_regressor, expression)),
        origin=tensor(origin),
    )


@pytest.fixture(scope="session")
def _flame_folder(twin: FlameTwin, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("head_models")
    save_head_model(folder / f"{NAME}.safetensors", flame_head_model(twin))
    return str(folder)


@pytest.fixture
def flame_name(_flame_folder: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name by which load_head_model() finds the small head in this test."""
    monkeypatch.setenv(FOLDER_VARIABLE, _flame_folder)
    yield NAME
