"""The landmark correction: its network, its input, its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cag_avatar.errors import InputError
from cag_avatar.head_models import load_head_model
from cag_avatar.tracking.face_landmarker import EYE_OUTER_CORNERS
from cag_avatar.tracking.landmark_correction import (
    LandmarkCorrection,
    face_colors,
    landmark_features,
    load_landmark_correction,
    upright_frame,
)
from cag_avatar.tracking.landmark_embedding import load_landmark_embedding

_INPUTS, _KEPT, _TYPICAL, _HIDDEN, _ERRORS = 1497, 7, 4, 6, 3


def _mean_head() -> NDArray[np.float64]:
    model = load_head_model()
    points = load_landmark_embedding(model).points(model.vertices, model.faces)
    return points.numpy().astype(np.float64)


def _clip(frames: int, seed: int = 0) -> tuple[NDArray, NDArray, NDArray]:
    """Landmarks, scores and colours of a face that turns a little, with detection noise."""
    rng = np.random.default_rng(seed)
    head = _mean_head()
    landmarks = []
    for _ in range(frames):
        yaw, roll = rng.uniform(-0.4, 0.4, 2)
        c, s = np.cos(yaw), np.sin(yaw)
        turned = head @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T * (1, -1, -1)
        c, s = np.cos(roll), np.sin(roll)
        turned = turned @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T
        landmarks.append(turned * 1500 + (240, 200, 0) + rng.normal(0, 0.5, (478, 3)))
    scores = rng.uniform(0, 1, (frames, 52)).astype(np.float32)
    colors = rng.uniform(20, 230, (frames, 468, 3)).astype(np.float32)
    return np.array(landmarks, np.float32), scores, colors


def _tiny(seed: int = 1) -> tuple[LandmarkCorrection, dict[str, NDArray]]:
    rng = np.random.default_rng(seed)

    def draw(*shape: int, scale: float = 0.3) -> NDArray[np.float32]:
        # Numbers that float16 holds.
        return (rng.normal(0, scale, shape)).astype(np.float16).astype(np.float32)

    width = _KEPT + _TYPICAL + 5
    arrays: dict[str, NDArray] = {
        "mean": _mean_head()[:468].astype(np.float32), "skin": np.arange(0, 468, 3),
        "centre": draw(_INPUTS), "basis": draw(_KEPT, _INPUTS, scale=0.02),
        "typical": np.array(_TYPICAL),
        "weight0": draw(_HIDDEN, width), "bias0": draw(_HIDDEN),
        "weight1": draw(_HIDDEN, _HIDDEN), "bias1": draw(_HIDDEN),
        "weight2": draw(52 + _ERRORS, _HIDDEN), "bias2": draw(52 + _ERRORS),
        "error_mean": draw(956, scale=0.001), "error_basis": draw(_ERRORS, 956, scale=0.001),
        "deviation": np.full(52, 0.0625, np.float32),
    }  # fmt: skip
    return LandmarkCorrection("anny", arrays, {"subjects": 3}), arrays


def _turn(points: NDArray[np.floating], angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    out = points.astype(np.float64).copy()
    out[..., :2] = points[..., :2] @ np.array([[c, -s], [s, c]]).T
    return out


def test_network_agrees_with_a_torch_twin() -> None:
    correction, a = _tiny()
    landmarks, scores, colors = _clip(5)
    found = correction.correct(landmarks, scores, colors)
    features, frame = landmark_features(
        a["mean"].astype(np.float64), a["skin"], landmarks, scores, colors
    )
    t = {name: torch.from_numpy(np.asarray(value)).double() for name, value in a.items()}
    x = torch.from_numpy(features)
    middle = torch.from_numpy(np.median(features, axis=0))
    offset = middle - t["centre"]
    clip = torch.cat([(t["basis"] @ offset)[:_TYPICAL], offset[-5:]])
    value = torch.cat([(x - middle) @ t["basis"].T, clip.expand(5, -1)], 1)
    for k in range(2):
        value = torch.nn.functional.linear(value, t[f"weight{k}"], t[f"bias{k}"])
        value = torch.nn.functional.silu(value)
    value = torch.nn.functional.linear(value, t["weight2"], t["bias2"])
    error = (value[:, 52:] @ t["error_basis"] + t["error_mean"]).reshape(5, 478, 2).numpy()
    np.testing.assert_allclose(found.codes, value[:, :52].clamp(0, 1).numpy(), atol=1e-6)
    for i in range(5):  # upright = turn @ pixels / scale, so back by the inverse
        moved = landmarks[i, :, :2] + error[i] @ np.linalg.inv(frame.turn[i]).T * frame.scale[i]
        np.testing.assert_allclose(found.landmarks[i], moved, atol=1e-3)
    assert np.abs(found.landmarks - landmarks[..., :2]).max() > 0.3
    np.testing.assert_array_equal(found.deviation, a["deviation"])


def test_what_is_read_in_pictures_joins_the_input() -> None:
    plain, arrays = _tiny()
    rng = np.random.default_rng(5)
    more = rng.normal(0, 0.3, (_HIDDEN, 3)).astype(np.float32)
    correction = LandmarkCorrection(
        "anny", arrays | {"weight0": np.concatenate([arrays["weight0"], more], 1)}
    )
    assert correction.reads_pictures
    assert not plain.reads_pictures
    landmarks, scores, colors = _clip(5)
    looks = rng.normal(0, 1, (5, 3)).astype(np.float32)
    found = correction.correct(landmarks, scores, colors, looks=looks)
    # The first layer's sum with looks is that without, with another bias in every frame.
    for t in range(5):
        shifted = LandmarkCorrection("anny", arrays | {"bias0": arrays["bias0"] + more @ looks[t]})
        alone = shifted.correct(landmarks, scores, colors)
        np.testing.assert_allclose(found.codes[t], alone.codes[t], atol=1e-6)
        np.testing.assert_allclose(found.landmarks[t], alone.landmarks[t], atol=1e-3)
    nothing = correction.correct(landmarks, scores, colors, looks=np.zeros((5, 3), np.float32))
    np.testing.assert_allclose(
        nothing.landmarks, plain.correct(landmarks, scores, colors).landmarks, atol=1e-4
    )


def test_typical_features_of_another_clip_are_used() -> None:
    correction, _ = _tiny()
    landmarks, scores, colors = _clip(5)
    features, _ = correction.features(landmarks, scores, colors)
    own = correction.correct(landmarks, scores, colors)
    typical = correction.typical(landmarks, scores, colors)
    np.testing.assert_array_equal(typical.features, np.median(features, axis=0))
    same = correction.correct(landmarks, scores, colors, typical)
    np.testing.assert_array_equal(own.codes, same.codes)
    other = correction.correct(landmarks, scores, colors, replace(typical, features=features[0]))
    assert np.abs(own.codes - other.codes).max() > 1e-3


@pytest.mark.parametrize("bundled", [False, True])
def test_where_the_face_lies_in_the_picture_does_not_matter(bundled: bool) -> None:
    correction = load_landmark_correction("anny") if bundled else _tiny()[0]
    assert correction is not None
    landmarks, scores, colors = _clip(4)
    expected = correction.correct(landmarks, scores, colors)
    moved = (_turn(landmarks, 0.7) * 1.8 + (35.0, -12.0, 3.0)).astype(np.float32)
    found = correction.correct(moved, scores, colors)
    np.testing.assert_allclose(found.codes, expected.codes, atol=2e-4)
    back = _turn(expected.landmarks, 0.7) * 1.8 + (35.0, -12.0)
    np.testing.assert_allclose(found.landmarks, back, atol=0.02)


def test_a_face_upright_keeps_its_axes() -> None:
    head = _mean_head()
    pixels = (head * (1500, -1500, -1500) + (300, 200, 0)).astype(np.float32)[None]
    _, frame = landmark_features(
        head[:468], np.arange(468), _turn(pixels, 0.3).astype(np.float32),
        np.zeros((1, 52), np.float32), np.full((1, 468, 3), 100, np.float32),
    )  # fmt: skip
    c, s = np.cos(0.3), np.sin(0.3)
    np.testing.assert_allclose(frame.turn[0], [[c, s], [-s, c]], atol=1e-4)
    np.testing.assert_allclose(frame.scale, 1500, rtol=1e-3)


def test_light_is_the_log_luminance_without_its_level() -> None:
    landmarks, scores, colors = _clip(3)
    head = _mean_head()[:468]
    light = [
        landmark_features(head, np.arange(468), landmarks, scores, c)[0][:, -5:]
        for c in (colors, colors * np.float32(0.5), colors[:, ::-1])
    ]
    np.testing.assert_allclose(light[0], light[1], atol=1e-4)
    assert np.abs(light[0] - light[2]).max() > 0.01
    # Brighter to the subject's left (canonical +x): the first gradient, of x, grows.
    normal = head - (0.0, -0.02, -0.09)
    slope = normal[:, 0] / np.linalg.norm(normal, axis=1)
    lit = np.repeat((100 * np.exp(0.5 * slope))[None, :, None], 3, 2).repeat(3, 0)
    found = landmark_features(head, np.arange(468), landmarks, scores, lit.astype(np.float32))[0]
    np.testing.assert_allclose(found[:, -5:] / 3, [[0.5, 0, 0, 0, 0]] * 3, atol=1e-4)


def test_colours_of_a_gradient_are_those_at_the_points() -> None:
    rng = np.random.default_rng(0)
    height, width = 200, 240
    y, x = np.mgrid[:height, :width] + 0.5
    image = np.stack([x * 0.8 + 20, y * 0.9 + 10, 0.4 * (x + y)], -1).round().astype(np.uint8)
    points = rng.uniform((60, 60), (180, 140), (478, 2)).astype(np.float32)
    points[33], points[263] = (80, 90), (160, 90)
    expected = np.stack([points[:, 0] * 0.8 + 20, points[:, 1] * 0.9 + 10, 0.4 * points.sum(1)], -1)
    np.testing.assert_allclose(face_colors(image, points), expected[:468], atol=0.8)


def test_a_face_outside_of_the_picture_has_no_colour() -> None:
    image = np.zeros((50, 60, 3), np.uint8)
    points = np.random.default_rng(0).uniform(500, 520, (478, 3)).astype(np.float32)
    np.testing.assert_array_equal(face_colors(image, points), np.full((468, 3), 128))


def test_save_and_load(tmp_path: Path) -> None:
    correction, _ = _tiny()
    path = tmp_path / "x.safetensors"
    correction.save(path)
    again = LandmarkCorrection.load(path)
    assert again.head_model == "anny"
    assert again.protocol == {"subjects": 3}
    clip = _clip(4)
    one, two = correction.correct(*clip), again.correct(*clip)
    np.testing.assert_allclose(one.codes, two.codes, atol=1e-6)
    np.testing.assert_allclose(one.landmarks, two.landmarks, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    missing = tmp_path / "missing.safetensors"
    with pytest.raises(InputError, match="missing.safetensors"):
        LandmarkCorrection.load(missing)
    text = tmp_path / "text.safetensors"
    text.write_text("not tensors")
    with pytest.raises(InputError, match="not a landmark correction"):
        LandmarkCorrection.load(text)
    good = tmp_path / "good.safetensors"
    _tiny()[0].save(good)
    arrays = load_file(good)
    save_file(arrays, good)
    with pytest.raises(InputError, match="version 1"):
        LandmarkCorrection.load(good)
    del arrays["error_basis"]
    header = '{"format": "cag_avatar-landmark-correction", "version": 1, "head_model": "anny"}'
    save_file(arrays, good, metadata={"cag_avatar": header})
    with pytest.raises(InputError, match="lacks error_basis"):
        LandmarkCorrection.load(good)


def test_the_bundled_file_says_how_well_it_does() -> None:
    correction = load_landmark_correction("anny")
    assert correction is not None
    held_out = correction.protocol["held_out"]
    assert isinstance(held_out, dict)
    assert held_out["landmark_rmse_pct_after"] < 0.6 * held_out["landmark_rmse_pct_before"]
    assert not {*range(1, 6), *range(101, 106)}.intersection(held_out["seeds"])
    corrected = correction.correct(*_clip(3))
    assert corrected.deviation.min() >= 0.04 - 1e-4  # as float16
    assert corrected.deviation.max() < 0.3
    assert load_landmark_correction("no such model") is None


def test_the_bundled_network_leaves_a_still_face_nearly_in_place() -> None:
    correction = load_landmark_correction("anny")
    assert correction is not None
    pixels = (_mean_head() * (1500, -1500, -1500) + (300, 200, 0)).astype(np.float32)
    landmarks = np.repeat(pixels[None], 3, 0)
    colors = np.full((3, 468, 3), 120, np.float32)
    corrected = correction.correct(landmarks, np.zeros((3, 52), np.float32), colors)
    eyes = np.linalg.norm(pixels[33, :2] - pixels[263, :2])
    assert np.abs(corrected.landmarks - landmarks[..., :2]).max() < 0.25 * eyes
    assert corrected.codes.shape == (3, 52)
    assert np.isfinite(corrected.landmarks).all()


def test_the_rigid_correction_of_one_frame_is_all_of_it() -> None:
    correction, _ = _tiny()
    clip = _clip(1)
    found = correction.correct(*clip, rigid=True)
    np.testing.assert_allclose(found.landmarks, correction.correct(*clip).landmarks, atol=1e-3)


def test_the_rigid_correction_takes_what_a_moved_head_explains() -> None:
    """Against a head that is really moved, seen under scaled orthography."""
    correction, a = _tiny()
    mean = a["mean"].astype(np.float64)
    centred = mean - mean.mean(0)
    facing = Rotation.from_euler("xyz", [180 + 8, -12, 0], degrees=True)
    moved = Rotation.from_rotvec([0.004, -0.006, 0.003]) * facing

    def seen(rotation: Rotation, scale: float) -> np.ndarray:
        return scale * rotation.apply(centred)[:, :2]

    at = seen(facing, 1200.0)
    then = seen(moved, 1204.0) + np.array([0.6, -0.4])
    landmarks = np.zeros((1, 478, 3), np.float32)
    landmarks[0, :468, :2] = at + 200
    error = np.zeros((1, 478, 2))
    frame = upright_frame(mean, landmarks)
    error[0, :468] = (then - at) @ frame.turn[0].T / frame.scale[0]
    part = correction._rigid_part(error, landmarks)
    size = np.abs(error[0, :468]).max()
    assert size > 5e-4  # metres
    np.testing.assert_allclose(part[0, :468], error[0, :468], atol=0.02 * size)
    # What no moved head explains stays: every other landmark up, the others down.
    error[0, :468] = np.array([[0, 1e-3], [0, -1e-3]])[np.arange(468) % 2]
    assert np.abs(correction._rigid_part(error, landmarks)).max() < 3e-4


def test_irises_that_are_measured_otherwise_go_with_the_eyes() -> None:
    correction, _ = _tiny()
    landmarks, scores, colors = _clip(6)
    full = correction.correct(landmarks, scores, colors)
    found = correction.correct(landmarks, scores, colors, irises_found=True)
    np.testing.assert_array_equal(found.landmarks[:, :468], full.landmarks[:, :468])
    frame = correction.frames(landmarks)
    typical = correction.typical(landmarks, scores, colors).error
    own = frame.upright(found.landmarks) - frame.upright(landmarks[..., :2]) - typical
    for irises, corners in ((slice(468, 473), [33, 133]), (slice(473, 478), [362, 263])):
        expected = np.repeat(own[:, corners].mean(1, keepdims=True), 5, axis=1)
        np.testing.assert_allclose(own[:, irises], expected, atol=1e-6)
    assert np.abs(found.landmarks[:, 468:] - full.landmarks[:, 468:]).max() > 0.05


def test_a_person_is_typical_of_itself() -> None:
    correction, _ = _tiny()
    clip = _clip(3)
    typical = correction.typical(*clip)
    assert typical.error.shape == (478, 2)
    for rigid in (False, True):
        own, given = (correction.correct(*clip, p, rigid=rigid) for p in (None, typical))
        np.testing.assert_array_equal(own.landmarks, given.landmarks)
    uneven = 0.001 * (np.arange(478) % 2)[:, None]  # what no moved head explains
    other = replace(typical, error=typical.error + uneven)
    shift = correction.correct(*clip, other, rigid=True).landmarks - own.landmarks
    assert np.abs(shift).max() > 0.1


@pytest.mark.parametrize("distance", [120, 260])
def test_wide_blurs_are_taken_from_a_smaller_picture(distance: int) -> None:
    """As blurring the whole picture gives, on smooth and on noisy pictures."""
    rng = np.random.default_rng(distance)
    noise = rng.integers(0, 256, (400, 420, 3)).astype(np.uint8)
    image = cv2.addWeighted(noise, 0.3, cv2.GaussianBlur(noise, (0, 0), 30), 0.7, 0)
    points = rng.uniform(60, 330, (478, 2)).astype(np.float32)
    left, right = EYE_OUTER_CORNERS
    points[left], points[right] = (80, 200), (80 + distance, 200)
    sigma = 0.04 * distance
    whole = cv2.GaussianBlur(image, (0, 0), sigma).astype(np.float32)
    at = (points - 0.5)[None, :468]
    expected = cv2.remap(whole, at[..., 0], at[..., 1], cv2.INTER_LINEAR)[0]
    assert np.abs(face_colors(image, points) - expected).max() < 2.5
    assert np.abs(face_colors(image, points) - expected).mean() < 0.6
