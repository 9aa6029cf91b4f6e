"""The small FLAME head, as a head model that is found by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cag_avatar.head_models.flame_file import load_flame
from cag_avatar.head_models.library import FOLDER_VARIABLE
from cag_avatar.head_models.storage import save_head_model
from tests.training.importers.flame_twin import FlameTwin, make_twin

NAME = "tiny-flame"


@pytest.fixture(scope="session")
def twin() -> FlameTwin:
    return make_twin()


@pytest.fixture(scope="session")
def flame_file(twin: FlameTwin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model file as FLAME's authors lay it out."""
    path = tmp_path_factory.mktemp("flame") / f"{NAME}.npz"
    np.savez(path, **twin.arrays())
    return path


@pytest.fixture(scope="session")
def _flame_folder(flame_file: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("head_models")
    save_head_model(folder / f"{NAME}.safetensors", load_flame(flame_file))
    return str(folder)


@pytest.fixture
def flame_name(_flame_folder: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name by which load_head_model() finds the small head in this test."""
    monkeypatch.setenv(FOLDER_VARIABLE, _flame_folder)
    return NAME
