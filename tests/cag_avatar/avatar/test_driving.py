"""Driving relative to the driver's rest, near the codes seen in training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cag_avatar.avatar.animator import Animator
from cag_avatar.avatar.code_distribution import CodeDistribution
from cag_avatar.avatar.driver import CodeLayout, RunningDriver, measure_driver, resting_code
from cag_avatar.avatar.file import load_avatar, save_avatar
from cag_avatar.avatar.record import CaptureRecord
from cag_avatar.avatar.regressor_file import load_regressor
from cag_avatar.avatar.retargeting import Retargeting, avatar_rest, retarget_code, transfer_code
from cag_avatar.errors import InputError
from cag_avatar.head_models import ARKIT_INDEX, ARKIT_NAMES
from cag_avatar.tracking.code_regressor import CodeRegressor

JAW, SMILE, SMILE_RIGHT = (ARKIT_INDEX[n] for n in ("jawOpen", "mouthSmileLeft", "mouthSmileRight"))
BROW, LOOK = ARKIT_INDEX["browDownLeft"], ARKIT_INDEX["eyeLookUpLeft"]
LAYOUT = CodeLayout(ARKIT_NAMES, np.zeros(52), np.zeros(52), np.ones(52))
LIPS = [i for n, i in ARKIT_INDEX.items() if n.startswith(("mouth", "jaw"))]


def speech(frames: int = 200, seed: int = 0, jaw: float = 0.6, bias: float = 0.0) -> np.ndarray:
    """Codes of a speaker; ``bias`` is what the tracker always sees of an open, frowning face."""
    random = np.random.default_rng(seed)
    codes = np.zeros((frames, 52))
    wave = np.clip(np.sin(np.arange(frames) * 0.4), 0, 1)
    codes[:, JAW] = bias + jaw * wave
    codes[:, SMILE] = codes[:, SMILE_RIGHT] = 0.5 * np.clip(np.sin(np.arange(frames) * 0.07), 0, 1)
    codes[:, BROW] = bias
    codes[:, LOOK] = 0.3
    return np.clip(codes + np.abs(random.normal(scale=0.01, size=codes.shape)), 0, 1)


def with_distribution(record: CaptureRecord, codes: np.ndarray) -> CaptureRecord:
    return replace(
        record,
        code_min=np.percentile(codes, 1, axis=0),
        code_max=np.percentile(codes, 99, axis=0),
        distribution=CodeDistribution.of(codes, resting_code(codes, LAYOUT)),
    )


def test_a_closed_mouth_is_the_avatars_own_closed_mouth(tiny_avatar):
    record = with_distribution(tiny_avatar.record, speech(seed=1, bias=0.12))
    clip = speech(bias=0.25)
    driver = measure_driver(clip, LAYOUT)
    closed = clip[np.argmin(clip[:, LIPS].sum(1))]
    shown = transfer_code(closed, driver, record, LAYOUT)
    rest = avatar_rest(record, LAYOUT)
    assert rest[JAW] == pytest.approx(0.12, abs=0.02)
    np.testing.assert_allclose(shown[LIPS], rest[LIPS], atol=0.04)
    # Without the driver's rest the mouth stays open.
    assert transfer_code(closed, None, record, LAYOUT)[JAW] > rest[JAW] + 0.1
    # And it opens as the driver's does.
    opened = transfer_code(clip[np.argmax(clip[:, JAW])], driver, record, LAYOUT)
    assert opened[JAW] > 0.6


def test_gaze_is_taken_as_it_is_or_not_at_all(tiny_avatar):
    driver = measure_driver(speech(), LAYOUT)
    code = np.zeros(52)
    code[LOOK] = 0.3
    assert transfer_code(code, driver, tiny_avatar.record, LAYOUT)[LOOK] == pytest.approx(0.3)
    aside = replace(driver, rest=driver.rest + 0.2)  # even if their rest looks up
    assert transfer_code(code, aside, tiny_avatar.record, LAYOUT)[LOOK] == pytest.approx(0.3)
    still = transfer_code(code, driver, tiny_avatar.record, LAYOUT, gaze="none")
    assert still[LOOK] == 0


def test_reach_is_matched_within_bounds_and_on_both_sides_alike(tiny_avatar):
    record = replace(tiny_avatar.record, code_max=np.full(52, 0.66))
    clip = speech()
    clip[:, SMILE_RIGHT] *= 0.8
    driver = measure_driver(clip, LAYOUT)
    rest = np.zeros(52)
    gain = driver.gain(LAYOUT, rest, record.code_max, 1.25)
    span = driver.reach[JAW] - driver.rest[JAW]
    assert gain[JAW] == pytest.approx(0.66 / span)
    assert gain[SMILE] == gain[SMILE_RIGHT] == 1.25
    assert gain[ARKIT_INDEX["cheekPuff"]] == 1  # hardly moves: its reach says nothing
    assert gain[LOOK] == 1
    assert (driver.gain(LAYOUT, rest, record.code_max, 1.0) == 1).all()
    assert driver.gain(LAYOUT, rest, np.full(52, 0.25), 1.25)[JAW] == pytest.approx(0.8)


def test_closed_eyes_close_whatever_the_drivers_coefficient_says(tiny_avatar):
    """One fitted head closes its lids at .45, another at .9; other coefficients stay in their
    quarter."""
    blinks = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]
    clip = speech()
    clip[:, blinks] = 0.0
    clip[10::25, blinks] = clip[11::25, blinks] = 0.45
    record = replace(tiny_avatar.record, code_max=np.full(52, 0.9))
    driver = measure_driver(clip, LAYOUT)
    shown = transfer_code(clip[10], driver, record, LAYOUT)
    np.testing.assert_allclose(shown[blinks], 0.9, atol=0.02)
    limited = transfer_code(clip[10], driver, record, LAYOUT, Retargeting(blink_gain=1.25))
    np.testing.assert_allclose(limited[blinks], 0.5625, atol=0.02)
    open_eyes = transfer_code(clip[20], driver, record, LAYOUT)
    np.testing.assert_allclose(open_eyes[blinks], 0, atol=0.02)


def test_who_never_closes_the_mouth_is_not_taken_for_closed():
    clip = speech() * 0
    clip[:, JAW] = 0.9
    assert resting_code(clip, LAYOUT)[JAW] == pytest.approx(0.4)
    with pytest.raises(InputError, match="at least one frame"):
        resting_code(clip[:0], LAYOUT)


def test_a_running_driver_begins_as_the_avatar_and_ends_as_measured():
    start = np.full(52, 0.1)
    running = RunningDriver(LAYOUT, start, window=400)
    clip = speech(bias=0.25)
    first = running.update(clip[0])
    assert np.abs(first.rest - start).max() < 0.01
    assert first.trust < 0.01
    for code in np.concatenate([clip] * 3):
        last = running.update(code)
    assert last.rest[JAW] == pytest.approx(resting_code(clip, LAYOUT)[JAW], abs=0.03)
    running.restart()
    assert np.abs(running.update(clip[0]).rest - start).max() < 0.01


def test_what_was_seen_stays_and_what_was_not_bends():
    random = np.random.default_rng(3)
    mixing = random.normal(size=(3, 52))
    codes = random.normal(size=(300, 3)) @ mixing * 0.05 + 0.4
    space = CodeDistribution.of(codes, codes[0])
    assert len(space.deviation) == 3
    inside = codes[np.abs(codes - codes.mean(0)).sum(1) < np.median(np.abs(codes).sum(1))][:100]
    kept = np.array([space.clamp(c, 1.0, 0.15) for c in inside])
    assert np.median(np.abs(kept - inside).max(1)) < 1e-6
    # Along a component: at most one deviation beyond the limits, however far it is asked for.
    for far in (10.0, 1000.0):
        held = space.clamp(space.mean + far * space.basis[0], 1.0, 0.15)
        along = space.basis[0] @ (held - space.mean) / space.deviation[0]
        assert space.high[0] < along <= space.high[0] + 1 + 1e-6
    # Beside the subspace: at most 0.15 farther than seen.
    off = random.normal(size=52)
    off -= space.basis.T @ (space.basis @ off)
    held = space.clamp(space.mean + 5 * off, 1.0, 0.15) - space.mean
    assert np.linalg.norm(held) == pytest.approx(space.residual + 0.15, abs=1e-3)
    # The rest is always inside.
    odd = CodeDistribution.of(codes, np.zeros(52))
    np.testing.assert_allclose(odd.clamp(np.zeros(52), 1.0, 0.15), 0, atol=1e-9)


def test_a_combination_never_seen_is_held_back(tiny_avatar):
    codes = speech()
    codes[:, SMILE] = codes[:, SMILE_RIGHT] = codes[:, JAW]  # they always came together
    record = with_distribution(tiny_avatar.record, codes)
    apart = np.zeros(52)
    apart[JAW] = 0.6
    together = apart.copy()
    together[[SMILE, SMILE_RIGHT]] = 0.6
    tight = Retargeting(residual_margin=0.05)
    far = [np.abs(retarget_code(c, record, tight) - c).max() for c in (apart, together)]
    assert far[0] > 0.1
    assert far[1] < 0.03
    alone = replace(record, distribution=None)  # a file from before it was kept
    assert np.abs(retarget_code(apart, alone) - apart).max() < 0.03


def test_constant_codes_have_no_components():
    space = CodeDistribution.of(np.full((9, 52), 0.2), np.full(52, 0.2))
    assert space.basis.shape == (0, 52)
    again = CodeDistribution.from_dict(json.loads(json.dumps(space.to_dict())), "x")
    assert again.basis.shape == (0, 52)
    np.testing.assert_allclose(again.clamp(np.full(52, 0.2), 1, 0.1), 0.2)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("basis", [[1.0] * 52], "'basis'"),
        ("deviation", "wide", "'deviation' is missing"),
        ("mean", [float("nan")] * 52, "'mean' holds NaN"),
        ("residual", -1.0, "'residual'"),
        ("rest", [0.0] * 3, "'rest' has shape"),
    ],
)
def test_a_damaged_distribution_is_named(tiny_avatar, field, value, message):
    record = with_distribution(tiny_avatar.record, speech())
    values = json.loads(json.dumps(record.to_dict()))
    values["distribution"][field] = value
    with pytest.raises(InputError, match=f"a.cag: distribution: .*{message}"):
        CaptureRecord.from_dict(values, "a.cag")


def test_the_file_carries_distribution_and_regressor(tiny_avatar, tmp_path: Path):
    regressor = CodeRegressor(
        b"graph", np.ones((468, 3), np.float32), np.ones((478, 3), np.float32), {"frames": 3}
    )
    record = replace(with_distribution(tiny_avatar.record, speech()), regressor=regressor)
    tiny_avatar.record = record
    path = tmp_path / "a.cag"
    save_avatar(path, tiny_avatar)
    for found in (load_avatar(path).record.regressor, load_regressor(path)):
        assert (found.graph, found.protocol) == (b"graph", {"frames": 3})
        assert np.array_equal(found.typical, regressor.typical)
    again = load_avatar(path).record.distribution
    np.testing.assert_allclose(again.basis, record.distribution.basis)
    with pytest.raises(InputError, match="regressor: the graph is damaged"):
        _ = load_regressor(path).coefficients
    with safe_open(path, "pt") as handle:
        metadata = handle.metadata()
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    save_file(tensors | {"regressor.mean": torch.ones(3, 3)}, path, metadata)
    with pytest.raises(InputError, match=r"a\.cag: tensor 'regressor\.mean'"):
        load_avatar(path)
    del tensors["regressor.typical"]
    save_file(tensors, path, metadata)
    with pytest.raises(InputError, match=r"a\.cag: tensor 'regressor\.typical' is missing"):
        load_regressor(path)


def test_the_animator_shows_its_own_rest_for_the_drivers(tiny_avatar):
    tiny_avatar.record = with_distribution(tiny_avatar.record, speech(seed=1, bias=0.1))
    animator = Animator(tiny_avatar, "cpu")
    driver = measure_driver(speech(bias=0.3), animator.layout)
    shown = animator.render_relative(driver.rest, None, None, driver=driver)
    difference = shown.astype(int) - animator.render(animator.rest_code)
    assert np.abs(difference).max() <= 1  # clamped in float64, shown in float32


def test_settings_are_checked():
    with pytest.raises(InputError, match="max_gain"):
        Retargeting(max_gain=0.5)
    with pytest.raises(InputError, match="blink_gain"):
        Retargeting(blink_gain=0.9)
    with pytest.raises(InputError, match="component_margin"):
        Retargeting(component_margin=-1.0)
