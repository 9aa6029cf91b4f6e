"""Each planted fault is named, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.validation import (
    Finding,
    ValidationConfig,
    ValidationResult,
    judge,
    validate,
)
from cag_avatar_training.validation.evidence import Evidence

from cag_avatar.errors import InputError
from cag_avatar.head_models import ARKIT_INDEX, ARKIT_NAMES
from cag_avatar_cli.main import main
from tests.training.validation.conftest import FPS, SIZE, Damaged

JAW = ARKIT_INDEX["jawOpen"]
SIDES = [
    ARKIT_INDEX.get(n.replace("Left", "@").replace("Right", "Left").replace("@", "Right"), i)
    for i, n in enumerate(ARKIT_NAMES)
]
CONFIG = ValidationConfig(detect=False)


def named(result: ValidationResult) -> set[tuple[str, str]]:
    return {(f.severity, f.check) for f in result.findings if f.severity != "note"}


def the(result: ValidationResult, check: str) -> Finding:
    return next(f for f in result.findings if f.check == check)


def late(rows: np.ndarray) -> np.ndarray:
    """Row t becomes that of frame t - 1."""
    return np.concatenate([rows[:1], rows[:-1]])


def shifted(d: Damaged) -> None:
    d.tensors(codes=late, head_pose=late, torso_pose=late)


def exchanged(d: Damaged) -> None:
    d.tensors(codes=lambda c: c[:, SIDES])


def mirrored(d: Damaged) -> None:
    for folder in ("images", "alpha"):
        d.pictures(folder, lambda _, picture: np.ascontiguousarray(picture[:, ::-1]))


def no_jaw(d: Damaged) -> None:
    def close(codes: np.ndarray) -> np.ndarray:
        codes[:, JAW] = 0
        return codes

    d.tensors(codes=close)


def principal_point(d: Damaged) -> None:
    d.camera(cx=0.03 * SIZE)


def holes(d: Damaged) -> None:
    def punch(number: int, matte: np.ndarray) -> np.ndarray:
        if number % 4 == 0:
            cv2.circle(matte, (SIZE // 2, SIZE // 2), 5, 0, -1)
        return matte

    d.pictures("alpha", punch)


def frozen(d: Damaged) -> None:
    def hold(codes: np.ndarray) -> np.ndarray:
        codes[20:40] = codes[20]
        return codes

    d.tensors(codes=hold)


def wrong_order(d: Damaged) -> None:
    d.reorder(np.random.default_rng(1).permutation(len(d.open())))


FAULTS: list[tuple[Callable[[Damaged], None], str, str, str]] = [
    (shifted, "error", "shifted", "1 frame too late"),
    (exchanged, "error", "sides", "exchanged in the coefficients"),
    (mirrored, "error", "sides", "pictures are mirrored"),
    (no_jaw, "error", "missing-jaw", "jawOpen stays neutral"),
    (principal_point, "error", "camera", "too far to the right"),
    (holes, "error", "matte-holes", "holes in the head in 18 frames"),
    (wrong_order, "error", "wrong-order", "does not move like"),
]


def test_a_clean_dataset_is_clean(clean_result: ValidationResult) -> None:
    assert named(clean_result) == set()
    assert clean_result.errors == clean_result.warnings == 0
    assert {n.check for n in clean_result.not_checked} == {"covered"}


@pytest.mark.parametrize(("plant", "severity", "check", "words"), FAULTS)
def test_a_planted_fault_is_named_and_nothing_else(
    plant: Callable[[Damaged], None],
    severity: str,
    check: str,
    words: str,
    damaged: Damaged,
) -> None:
    plant(damaged)
    result = validate(damaged.open(), CONFIG)
    assert named(result) == {(severity, check)}
    assert words in the(result, check).what


def with_tracking(evidence: Evidence, **arrays: Any) -> Evidence:
    tracking = dataclasses.replace(evidence.tracking, **arrays)
    return dataclasses.replace(evidence, tracking=tracking)


def retracked(evidence: Evidence, **arrays: Any) -> Evidence:
    """Other numbers for the same pictures, their flow as measured before."""
    evidence = with_tracking(evidence, **arrays)
    t, camera = evidence.tracking, evidence.info.camera
    points, landmarks = [], []
    rows = (torch.from_numpy(x) for x in (t.codes, t.head_pose, t.torso_pose))
    for _, vertices in evidence.head.vertices(*rows):
        points.append(camera.project(vertices[evidence.head.points]).numpy())
        landmarks.append(evidence.head.landmarks(vertices, camera))
    return dataclasses.replace(
        evidence, points=np.stack(points), mesh_landmarks=np.stack(landmarks)
    )


def spiky(poses: np.ndarray) -> np.ndarray:
    c, s = np.cos(0.15), np.sin(0.15)
    poses = poses.copy()
    for t in (20, 41, 50):
        poses[t, :3, :3] = poses[t, :3, :3] @ np.float32([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return poses


def some(values: np.ndarray, every: int, value: float) -> np.ndarray:
    out = values.copy()
    out[::every] = value
    return out


def changed(evidence: Evidence, fault: str) -> Evidence:
    """Measurements as a fault would make them."""
    t = evidence.tracking
    if fault == "time goes back":
        times = t.timestamps.copy()
        times[[40, 41]] = times[[41, 40]]
        return with_tracking(evidence, timestamps=times)
    if fault == "another rate":
        return with_tracking(evidence, timestamps=t.timestamps * FPS / 30)
    if fault == "a gap":
        times = t.timestamps + np.where(np.arange(len(t)) > 30, 4 / FPS, 0)
        return with_tracking(evidence, timestamps=times)
    if fault == "per cent":
        return with_tracking(evidence, codes=t.codes * 100)
    if fault == "scaled pose":
        return with_tracking(evidence, head_pose=t.head_pose * np.float32([1, 1, 1.2, 1]))
    if fault == "behind the camera":
        poses = t.head_pose.copy()
        poses[:, 2, 3] *= -1
        return with_tracking(evidence, head_pose=poses)
    for expression, name in (("blink", "eyeBlink"), ("smile", "mouthSmile")):
        if fault == f"no {expression}":
            codes = t.codes.copy()
            for side in ("Left", "Right"):
                codes[:, ARKIT_INDEX[f"{name}{side}"]] *= 0.2
            return retracked(evidence, codes=codes)
    if fault == "early, no landmarks":
        moved = {
            name: np.concatenate([rows[2:], rows[-1:], rows[-1:]])
            for name, rows in vars(t).items()
            if name in ("codes", "head_pose", "torso_pose")
        }
        return dataclasses.replace(retracked(evidence, **moved), landmarks=None)
    if fault == "late codes":
        return retracked(evidence, codes=late(t.codes))
    if fault == "spikes":
        return retracked(evidence, head_pose=spiky(t.head_pose))
    assert evidence.landmarks is not None
    if fault == "mirrored landmarks":
        points = evidence.landmarks * np.float32([-1, 1]) + np.float32([SIZE, 0])
        return dataclasses.replace(evidence, landmarks=points)
    if fault == "scattered landmarks":
        points = evidence.landmarks.copy()
        points[40:46] += np.random.default_rng(0).normal(0, 4, points[40:46].shape)
        return dataclasses.replace(evidence, landmarks=points)
    if fault == "slides away":
        points = evidence.landmarks.copy()
        points[40:, :, 0] += 0.06 * evidence.unit.mean()
        return dataclasses.replace(evidence, landmarks=points)
    if fault == "drawn too large":
        assert evidence.mesh_landmarks is not None
        middle = evidence.mesh_landmarks.mean(1, keepdims=True)
        points = middle + 1.09 * (evidence.mesh_landmarks - middle)
        return dataclasses.replace(evidence, mesh_landmarks=points)
    figures: dict[str, dict[str, np.ndarray]] = {
        "off, no landmarks": {
            "landmarks": None,  # type: ignore[dict-item]
            "outside": evidence.outside + 0.1,
            "outside_at": evidence.outside_at * 0 + [0.0, 0.4],
        },
        "islands": {"island": some(evidence.island, 2, 0.1)},
        "flicker": {"toggled": evidence.toggled + 1.5},
        "a flash": {"toggled": some(evidence.toggled, 50, 9.0)},
        "blurred": {"sharpness": evidence.sharpness * some(np.ones(len(t)), 4, 0.2)},
        "out of focus": {"sharpness": evidence.sharpness * 0.05},
        "burnt out": {"overexposed": evidence.overexposed + 0.2},
        "dark": {"brightness": evidence.brightness * 0.1},
        "cut": {"cut": some(evidence.cut, 3, 0.1)},
        "repeats": {"change": some(evidence.change, 5, 0.0)},
        "still": {"angles": evidence.angles * 0.1},
    }
    return dataclasses.replace(evidence, **figures[fault])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fault", "expected", "words"),
    [
        ("time goes back", {("error", "timestamps")}, "does not grow at 1 frame"),
        (
            "another rate",
            {("warning", "timestamps")},
            "says 25 frames per second, the time stamps 30",
        ),
        ("a gap", set(), "4 frames of the video left out, in 1 place"),
        ("per cent", {("error", "code-range")}, "leaves its range of 0 to 1"),
        ("scaled pose", {("error", "poses")}, "cannot be a rigid motion"),
        ("behind the camera", {("error", "poses")}, "m in front of the camera"),
        ("no blink", {("warning", "range")}, "nobody blinked"),
        ("no smile", {("warning", "range")}, "nobody smiled in this capture"),
        ("early, no landmarks", {("error", "shifted")}, "the tracking is 2 frames too early"),
        ("late codes", {("error", "shifted")}, "the expression code is 1 frame too late"),
        ("spikes", {("error", "pose-jumps")}, "jumps in 3 frames"),
        ("mirrored landmarks", {("error", "sides")}, "left eye lies where"),
        ("scattered landmarks", {("warning", "reprojection")}, "in 6 frames"),
        ("slides away", {("warning", "drift")}, "slides away"),
        ("drawn too large", {("error", "camera")}, "9 % too large"),
        ("off, no landmarks", {("error", "camera")}, "outside the person's outline, down"),
        ("islands", {("warning", "matte-islands")}, "apart from the person"),
        ("flicker", {("warning", "matte-flicker")}, "flickers"),
        ("a flash", {("warning", "matte-flicker")}, "at worst 9.0"),
        ("blurred", {("warning", "blur")}, "18 frames (26 %)"),
        ("out of focus", {("warning", "blur")}, "out of focus"),
        ("burnt out", {("warning", "light")}, "burnt out"),
        ("dark", {("warning", "light")}, "dark"),
        ("cut", {("warning", "cut")}, "the border cuts the head in 24 frames"),
        ("repeats", {("warning", "repeats")}, "14 pictures (20 %)"),
        ("still", {("warning", "range")}, "the head hardly turned (yaw"),
    ],
)
def test_measurements_are_judged(
    fault: str, expected: set[tuple[str, str]], words: str, clean_result: ValidationResult
) -> None:
    result = judge(changed(clean_result.evidence, fault), CONFIG)
    assert named(result) == expected
    assert any(words in f.what for f in result.findings)


def test_other_codes_are_checked_as_far_as_they_can(clean_result: ValidationResult) -> None:
    info = dataclasses.replace(
        clean_result.evidence.info, code_names=tuple(f"expression{i}" for i in range(52))
    )
    result = judge(dataclasses.replace(clean_result.evidence, info=info), CONFIG)
    assert named(result) == set()
    assert ("range", "of expressions: needs ARKit names") in {
        (n.check, n.why) for n in result.not_checked
    }


def test_a_covered_mouth_is_named(clean_result: ValidationResult) -> None:
    evidence = clean_result.evidence
    reliability = np.ones((len(evidence), 3), np.float32)
    reliability[10:30, 0] = 0.1

    class WithReliability:
        def __init__(self) -> None:
            self.reliability = reliability

        def __getattr__(self, name: str) -> Any:
            return getattr(evidence.tracking, name)

    result = judge(dataclasses.replace(evidence, tracking=WithReliability()), CONFIG)  # type: ignore[arg-type]
    assert named(result) == {("warning", "covered")}
    assert the(result, "covered").frames == ((10, 29),)


def test_another_head_model_does_not_fit(clean: Dataset) -> None:
    tracking = dataclasses.replace(clean.tracking, identity=np.zeros(3, np.float32))
    with pytest.raises(InputError, match="do not fit the head model 'anny'"):
        validate(Dataset(clean.path, clean.info, tracking))


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 8), ("video_size", 101), ("hole", -1.0), ("follows", float("nan")),
     ("offset_warning", 0.5)],
)  # fmt: skip
def test_thresholds_are_checked(field: str, value: float) -> None:
    with pytest.raises(InputError, match=field):
        ValidationConfig(**{field: value})  # type: ignore[arg-type]


def test_the_command_line(
    damaged: Damaged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen(damaged)
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    arguments = ["validate", str(damaged.path), "-o", str(page), "--json", str(figures)]
    assert main(arguments) == 1
    assert "error: the expression code stands still for 20 frames" in capsys.readouterr().out
    values = json.loads(figures.read_text())
    assert {f["check"] for f in values["findings"] if f["severity"] != "note"} == {"frozen"}
    assert values["errors"] == 1
    assert values["findings"][0]["frames"] == [[20, 39]]
    assert values["coverage"]["jawOpen"]["max"] > 0.3
    text = page.read_text()
    assert "The expression code stands still for 20 frames" in text
    assert "data:video/mp4;base64," in text
    assert main(["validate", str(tmp_path / "nothing")]) == 2
