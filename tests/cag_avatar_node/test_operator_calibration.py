"""Neutral and range of an operator: measured from codes, applied, saved and read again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_INDEX
from cag_avatar_node.operator_calibration import (
    CalibrationRun,
    OperatorCalibration,
    calibration_path,
    load_calibration,
    save_calibration,
)

SMILE = [ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthSmileRight"]]
BROW, JAW, LOOK = (ARKIT_INDEX[n] for n in ("browInnerUp", "jawOpen", "eyeLookUpLeft"))


def performance(seconds: float = 4.0) -> NDArray[np.float64]:
    """Codes at 25/s of somebody whose brows rest at 0.2 and whose smile ends at 0.7 and 0.8."""
    time = np.arange(0, seconds, 0.04)
    codes = np.zeros((len(time), 52))
    codes[:, BROW] = 0.2
    swing = np.clip(np.sin(time * 2), 0, 1)
    codes[:, SMILE[0]], codes[:, SMILE[1]] = 0.7 * swing, 0.8 * swing
    codes[:, JAW] = 0.3 * swing
    codes[:, LOOK] = 0.5
    return codes


def run(codes: NDArray[np.float64], seconds: float = 3.0, **changes: object) -> OperatorCalibration:
    collecting = CalibrationRun(seconds)
    details = {"source": "fit", "operator": 0, "confidence": 0.9, "eyes_valid": True, **changes}
    for t, code in enumerate(codes):
        found = collecting.add(code, 50 + 0.04 * t, **details)  # type: ignore[arg-type]
        assert (found is not None) == (0.04 * t >= seconds - 1e-9)
        if found is not None:
            return found
    raise AssertionError("the time was never over")


def test_neutral_goes_to_zero_and_the_full_movement_to_one() -> None:
    calibration = run(performance())
    code = np.zeros(52)
    code[BROW], code[LOOK] = 0.2, 0.5
    rest = calibration.apply(code)
    assert rest.dtype == np.float32
    np.testing.assert_allclose(np.delete(rest, LOOK), 0, atol=1e-6)
    assert rest[LOOK] == pytest.approx(0.5), "gaze is not a matter of rest"
    code[SMILE], code[JAW], code[BROW] = [0.7, 0.8], 0.3, 1.0
    full = calibration.apply(code)
    # Left and right share one factor, so that what is lopsided stays so.
    assert full[SMILE[1]] == pytest.approx(1.0, abs=0.08)
    assert full[SMILE[0]] / full[SMILE[1]] == pytest.approx(0.7 / 0.8, abs=0.08)
    assert full[JAW] == pytest.approx(0.3), "a movement that was not shown was blown up"
    assert full[BROW] == pytest.approx(1.0), "the far end moved"


def test_codes_stay_in_the_unit_interval() -> None:
    calibration = run(performance())
    random = np.random.default_rng(0).random((50, 52))
    applied = np.stack([calibration.apply(code) for code in random])
    assert applied.min() >= 0
    assert applied.max() <= 1


def test_uncertain_faces_are_not_measured() -> None:
    for doubt in ({"confidence": 0.1}, {"eyes_valid": False}):
        with pytest.raises(InputError, match="0 certain faces in 3 s, at least 20"):
            run(performance(), **doubt)


def test_another_operator_source_or_clock_starts_anew() -> None:
    kind = {"source": "fit", "operator": 0, "confidence": 1.0, "eyes_valid": True}
    for change in ({"operator": 1}, {"source": "regressor"}, None):
        collecting = CalibrationRun(3.0)
        for t in range(60):
            collecting.add(np.zeros(52), 100 + 0.04 * t, **kind)  # type: ignore[arg-type]
        assert collecting.faces == 60
        start = 5.0 if change is None else 102.4
        for t in range(30):
            done = collecting.add(np.zeros(52), start + 0.04 * t, **{**kind, **(change or {})})  # type: ignore[arg-type]
            assert done is None
        assert collecting.faces == 30


def test_saved_and_read_again(tmp_path: Path) -> None:
    calibration = run(performance(), source="regressor")
    path = calibration_path("Ann B.", tmp_path / "new")
    assert load_calibration(path) is None
    save_calibration(path, "Ann B.", calibration)
    again = load_calibration(path)
    assert again is not None
    assert again.source == "regressor"
    codes = np.random.default_rng(1).random((20, 52))
    for code in codes:
        np.testing.assert_allclose(again.apply(code), calibration.apply(code), atol=1e-4)


def test_the_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert calibration_path("me") == tmp_path / "cag_avatar" / "operators" / "me.json"


@pytest.mark.parametrize("name", ["", "../me", "a/b", ".hidden", "x" * 65, "a\nb"])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="operator_name"):
        calibration_path(name)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "else"}, "no operator calibration"),
        ({"version": 9}, "version 9"),
        ({"names": ["a"]}, "other coefficients"),
        ({"source": "x"}, "source 'x'"),
        ({"neutral": [0.0] * 51}, "52 finite numbers"),
        ({"neutral": [float("nan")] * 52}, "52 finite numbers"),
        ({"neutral": "zero"}, "not a list of numbers"),
        ({"neutral": [0.9] * 52}, r"0 \.\. 0\.4"),
        ({"reach": [1.5] * 52}, "between neutral and 1"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, change: dict[str, object], match: str) -> None:
    path = tmp_path / "me.json"
    save_calibration(path, "me", OperatorCalibration(np.zeros(52), np.ones(52)))
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **change}))
    with pytest.raises(InputError, match=match) as caught:
        load_calibration(path)
    assert str(path) in str(caught.value)
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        load_calibration(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save_calibration(
            tmp_path / "file" / "me.json", "me", OperatorCalibration(np.zeros(52), np.ones(52))
        )
