"""Which code is sent, and whose regressor is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cag_avatar.errors import InputError
from cag_avatar.tracking.estimator import FaceEstimate
from cag_avatar_node.code_source import load_code_regressor, select_code

FITTED, REGRESSED = np.zeros(52, np.float32), np.full(52, 0.5, np.float32)


def estimate(regressed: bool) -> FaceEstimate:
    code = REGRESSED if regressed else None
    return FaceEstimate(FITTED, np.eye(4), 1.0, True, True, code)


@pytest.mark.parametrize(
    ("wanted", "own", "source"),
    [
        ("on", None, "regressor"), ("on", False, "regressor"), ("off", True, "fit"),
        ("auto", True, "regressor"), ("auto", False, "fit"), ("auto", None, "fit"),
    ],
)  # fmt: skip
def test_the_regressor_serves_its_own_person(wanted: str, own: bool | None, source: str) -> None:
    code, told = select_code(estimate(True), wanted, own)
    assert told == source
    np.testing.assert_array_equal(code, REGRESSED if source == "regressor" else FITTED)
    assert select_code(estimate(False), wanted, own)[1] == "fit"


def test_without_an_avatar_there_is_none() -> None:
    told: list[str] = []
    assert load_code_regressor("", "auto", told.append) is None
    assert load_code_regressor("some.cag", "off", told.append) is None
    assert told == []
    with pytest.raises(InputError, match="avatar is not set"):
        load_code_regressor("", "on", told.append)


def test_an_avatar_without_one_is_told_and_refused_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("cag_avatar.avatar.regressor_file.load_regressor", lambda path: None)
    told: list[str] = []
    assert load_code_regressor("a.cag", "auto", told.append) is None
    assert "cag-avatar train-regressor" in told[0]
    with pytest.raises(InputError, match="train-regressor"):
        load_code_regressor("a.cag", "on", told.append)


def test_a_regressor_of_other_coefficients_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        coefficients = 100

    monkeypatch.setattr("cag_avatar.avatar.regressor_file.load_regressor", lambda path: Other())
    with pytest.raises(InputError, match="100 coefficients"):
        load_code_regressor("a.cag", "auto", print)
