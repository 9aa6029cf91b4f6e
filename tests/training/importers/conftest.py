"""The small FLAME head, as a head model that is found by name."""

from __future__ import annotations

import pytest

from tests.training.importers.flame_twin import FlameTwin, make_twin


@pytest.fixture(scope="session")
def twin() -> FlameTwin:
    return make_twin()
