from __future__ import annotations

import numpy as np
import pytest

from cag_avatar.head_models import ARKIT_INDEX
from cag_avatar.tracking.code_prior import (
    code_prior,
    corrected_prior,
    with_free_gaze,
)
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.landmark_correction import Corrected

CONFIG = FitConfig()


def test_scores_that_never_rest_are_a_bias_and_gaze_is_left_to_the_irises() -> None:
    scores = np.zeros((40, 52))
    scores[:, ARKIT_INDEX["browDownLeft"]] = 0.4
    scores[20:, ARKIT_INDEX["browDownLeft"]] = 0.7
    scores[:, ARKIT_INDEX["eyeLookInLeft"]] = np.linspace(0, 1, 40)
    mean, deviation, smooth, *_ = code_prior(scores, CONFIG)
    brow = mean[:, ARKIT_INDEX["browDownLeft"]]
    assert brow[0] == pytest.approx(0.0, abs=1e-6)
    assert brow[-1] == pytest.approx(0.5)
    look = ARKIT_INDEX["eyeLookInLeft"]
    assert (mean[:, look] == 0).all()
    assert deviation[look] > deviation[ARKIT_INDEX["jawOpen"]]
    assert smooth[ARKIT_INDEX["eyeBlinkLeft"]] == 5 * smooth[ARKIT_INDEX["jawOpen"]]
    assert mean.min() >= 0
    assert mean.max() <= 1
    alone, *_ = code_prior(scores[:1], CONFIG)
    assert alone[0, ARKIT_INDEX["browDownLeft"]] == pytest.approx(0.4)


@pytest.mark.parametrize(("floor", "least"), [(0.15, 0.15), (0.01, 0.02)])
def test_predicted_codes_are_the_mean_and_never_too_sure(floor: float, least: float) -> None:
    codes = np.linspace(0, 1, 3 * 52, dtype=np.float32).reshape(3, 52)
    deviation = np.full(52, 0.02, np.float32)
    deviation[7] = 0.3
    predicted = Corrected(np.zeros((3, 478, 2), np.float32), codes, deviation)
    prior = corrected_prior(predicted, FitConfig(predicted_deviation=floor))
    np.testing.assert_array_equal(prior.mean, codes)
    assert prior.deviation[0] == pytest.approx(least)
    assert prior.deviation[7] == pytest.approx(0.3)
    assert all(part.dtype == np.float32 for part in prior)
    np.testing.assert_array_equal(prior.at([2]).mean, codes[2:])


def test_gaze_is_free_where_irises_were_found_and_opposed_coefficients_exclude_each_other() -> None:
    codes = np.zeros((2, 52), np.float32)
    codes[:, ARKIT_INDEX["eyeLookUpLeft"]] = 0.1, 0.4
    codes[:, ARKIT_INDEX["eyeLookDownLeft"]] = 0.3
    codes[:, ARKIT_INDEX["jawOpen"]] = 0.6
    predicted = Corrected(np.zeros((2, 478, 2), np.float32), codes, np.full(52, 0.2, np.float32))
    prior = with_free_gaze(corrected_prior(predicted, CONFIG), FitConfig(gaze_deviation=0.5))
    np.testing.assert_allclose(prior.mean[:, ARKIT_INDEX["eyeLookUpLeft"]], [0, 0.1], atol=1e-6)
    np.testing.assert_allclose(prior.mean[:, ARKIT_INDEX["eyeLookDownLeft"]], [0.2, 0], atol=1e-6)
    assert (prior.mean[:, ARKIT_INDEX["jawOpen"]] == np.float32(0.6)).all()
    for name, index in ARKIT_INDEX.items():
        assert prior.deviation[index] == pytest.approx(0.5 if "eyeLook" in name else 0.2)
