from __future__ import annotations

import numpy as np
import pytest

from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.landmark_weights import landmark_weights


def test_weights_fall_with_the_spread_and_on_the_faces_oval() -> None:
    spread = np.full(478, 0.016)
    spread[1] = 0.0
    weight = landmark_weights(spread, FitConfig(landmark_deviation=0.012, effective_landmarks=239))
    assert weight[2] == pytest.approx(0.5 / 0.02**2)
    assert weight[1] == pytest.approx(0.5 / 0.012**2)
    assert weight[152] == pytest.approx(0.1 * weight[2])


def test_irises_found_in_the_pictures_count_by_their_own_deviation() -> None:
    spread = np.full(478, 0.016)
    config = FitConfig(iris_deviation=0.01, effective_landmarks=239)
    weight = landmark_weights(spread, config, irises=True)
    np.testing.assert_allclose(weight[468:], 0.5 / 0.01**2)
    np.testing.assert_array_equal(weight[:468], landmark_weights(spread, config)[:468])
