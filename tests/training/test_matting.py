"""Mattes of small drawn clips whose alpha is known exactly."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from cag_avatar_training.matting import (
    MatteConfig,
    estimate_foreground,
    matte_clip,
)
from cag_avatar_training.matting.background import estimate_plate
from cag_avatar_training.matting.closed_form import (
    load_pymatting,
    solve_alpha,
    upsample_alpha,
)
from cag_avatar_training.matting.laplacian import laplacian_rows
from cag_avatar_training.matting.seeds import find_seeds
from cag_avatar_training.matting.shoulders import cut_shoulders, find_neck_line
from cag_avatar_training.matting.temporal import steady_alpha

from cag_avatar.errors import InputError
from cag_avatar.head_models.base import REGIONS

SIZE = 192
CONFIG = MatteConfig(working_size=96, survey_frames=8, colour_model_frames=4)


@dataclass
class Clip:
    """Drawn person: face, hair and shoulders, moving sideways over a still background."""

    frames: list[np.ndarray]
    labels: list[np.ndarray]
    alpha: np.ndarray

    def matte(self, config: MatteConfig = CONFIG, workers: int = 2) -> np.ndarray:
        frames, labels = self.frames.__getitem__, self.labels.__getitem__
        return np.stack(list(matte_clip(frames, labels, len(self.frames), config, workers=workers)))


def draw_clip(background: str, count: int = 10, border: int = 0, still: bool = False) -> Clip:
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    wall = np.full((SIZE, SIZE, 3), (196, 190, 178), np.float32)
    if background == "gradient":
        wall += (50 * (x - 0.5) - 40 * (y - 0.5))[..., None]
    if background == "shelves":  # of the hair's colour
        wall[((y * 12).astype(int) % 3 == 0) & (y < 0.7)] = (80, 58, 42)
    streaks = np.random.default_rng(6).uniform(0.6, 3.0, (1, SIZE // 3, 1)).repeat(3, axis=1)
    frames, labels, alphas = [], [], []
    for t in range(count):
        dx = 0 if still else round(14 * np.sin(0.7 * t))
        head = (96 + dx, 88)

        def cover(draw, scale=4):
            big = np.zeros((SIZE * scale, SIZE * scale), np.uint8)
            draw(big, scale)
            return cv2.resize(big, (SIZE, SIZE), interpolation=cv2.INTER_AREA)[..., None] / 255.0

        def ellipse(centre, axes):
            def draw(big, s):
                cv2.ellipse(
                    big, (centre[0] * s, centre[1] * s), (axes[0] * s, axes[1] * s), 0, 0, 360,
                    255, -1,
                )  # fmt: skip

            return draw

        hair = cover(ellipse((head[0], head[1] - 9), (43, 50)))
        face = cover(ellipse(head, (35, 45)))
        neck = cover(ellipse((96 + dx // 2, 140), (17, 40)))
        shirt = cover(ellipse((96, 214), (84, 62)))
        picture = wall.copy()
        strands: tuple[int, ...] | np.ndarray = (60, 42, 30)
        if background == "shelves":
            strands = strands * np.roll(streaks, dx, axis=1)
        for layer, colour in (
            (neck, (180, 130, 105)), (shirt, (60, 80, 120)), (hair, strands),
            (face, (205, 150, 125)),
        ):  # fmt: skip
            picture = picture * (1 - layer) + layer * np.float32(colour)
        # A white-walled eye and a wall-coloured badge: holes, if colour alone decided.
        cv2.circle(picture, (head[0] - 12, head[1] - 8), 5, (196.0, 190.0, 178.0), -1)
        cv2.circle(picture, (70, 180), 6, (196.0, 190.0, 178.0), -1)
        picture += rng.normal(0, 2.0, picture.shape)
        frame = np.clip(picture, 0, 255).astype(np.uint8)
        if border:
            frame[:, -border:] = 0
        alpha = 1 - (1 - hair) * (1 - face) * (1 - neck) * (1 - shirt)
        label = np.full((SIZE, SIZE), -1, np.int16)
        # The fitted head knows neither hair nor shirt, and is a little off.
        body = cover(ellipse((96, 218), (76, 60)))[..., 0] > 0.5
        label[body] = REGIONS.index("shoulders")
        label[neck[..., 0] > 0.5] = REGIONS.index("neck")
        label[np.roll(face[..., 0] > 0.5, 2, axis=1)] = REGIONS.index("face_skin")
        frames.append(frame)
        labels.append(label)
        alphas.append(np.rint(alpha[..., 0] * 255).astype(np.uint8))
    return Clip(frames, labels, np.stack(alphas))


@pytest.fixture(scope="module")
def plain():
    clip = draw_clip("flat")
    return clip, clip.matte()


def iou(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a > 127, b > 127
    return float((a & b).sum() / (a | b).sum())


def assert_clean(alpha: np.ndarray) -> None:
    """One piece, without holes."""
    for picture in alpha:
        count, _ = cv2.connectedComponents((picture >= 16).astype(np.uint8))
        assert count == 2
        padded = cv2.copyMakeBorder(picture, 1, 0, 1, 1, cv2.BORDER_CONSTANT, value=0)
        count, _ = cv2.connectedComponents((padded < 200).astype(np.uint8))
        assert count == 2


@pytest.mark.parametrize("background", ["flat", "gradient"])
def test_matte_matches_the_drawn_alpha(background, plain):
    clip, alpha = plain
    if background != "flat":
        clip = draw_clip(background)
        alpha = clip.matte()
    assert alpha.dtype == np.uint8
    assert alpha.shape == clip.alpha.shape
    assert min(iou(a, b) for a, b in zip(alpha, clip.alpha, strict=True)) > 0.97
    error = np.abs(alpha.astype(int) - clip.alpha) / 255
    assert error.mean() < 0.008
    assert_clean(alpha)
    # Away from every outline alpha is exact.
    kernel = np.ones((21, 21), np.uint8)
    for got, true in zip(alpha, clip.alpha, strict=True):
        assert (got[cv2.dilate(true, kernel) == 0] == 0).all()
        assert (got[cv2.erode(true, kernel) == 255] == 255).all()


def test_shoulders_reach_the_bottom_and_the_hair_is_kept(plain):
    clip, alpha = plain
    assert (alpha[:, -1, 40:150] == 255).all()
    hair = np.stack(
        [(c == 255) & (label < 0) for c, label in zip(clip.alpha, clip.labels, strict=True)]
    )
    hair[:, 100:] = False
    assert hair.sum() > 5000
    assert (alpha[hair] > 200).mean() > 0.98


def test_hair_before_its_own_colour_is_kept_where_the_head_fills_the_picture():
    clip = draw_clip("shelves", count=16)

    def near(picture):
        return np.ascontiguousarray(picture[26:170, 46:146])

    frames, labels = [near(f) for f in clip.frames], [near(label) for label in clip.labels]
    config = MatteConfig(working_size=96, survey_frames=16, colour_model_frames=8)
    # The premise: hardly a pixel is far enough from the head to be surely background.
    for label in labels:
        assert find_seeds(label, config).background.mean() < 0.01
    alpha = list(matte_clip(frames.__getitem__, labels.__getitem__, 16, config, workers=1))
    found = [iou(a, near(true)) for a, true in zip(alpha, clip.alpha, strict=True)]
    assert np.mean(found) > 0.975  # without the plate .961


def test_a_still_person_does_not_flicker():
    clip = draw_clip("flat", still=True)
    steady = clip.matte()
    raw = clip.matte(MatteConfig(**{**vars(CONFIG), "temporal_weight": 0.0}))
    flicker = [np.abs(np.diff(a.astype(int), axis=0)).mean() for a in (steady, raw)]
    assert flicker[0] < 0.6 * flicker[1]
    assert flicker[0] < 0.15
    assert iou(steady, clip.alpha) > 0.97


def test_same_result_every_time_and_for_any_number_of_workers(plain):
    clip, alpha = plain
    np.testing.assert_array_equal(clip.matte(workers=1), alpha)


def test_border_line_is_ignored(plain):
    clip = draw_clip("flat", count=6, border=1)
    alpha = clip.matte()
    true = clip.alpha[:6]
    assert (alpha[:, :120, -4:] == 0).all()
    assert min(iou(a, b) for a, b in zip(alpha, true, strict=True)) > 0.97


def test_frames_are_let_go():
    clip = draw_clip("flat", count=6)
    given: list[weakref.ref] = []

    class Picture(np.ndarray):
        """An array that can be watched."""

    most = 0

    def frame(i):
        nonlocal most
        picture = clip.frames[i % 6].copy().view(Picture)
        given.append(weakref.ref(picture))
        most = max(most, sum(ref() is not None for ref in given))
        return picture

    config = MatteConfig(working_size=96, survey_frames=24, colour_model_frames=4)
    count = 0
    for _ in matte_clip(frame, lambda i: clip.labels[i % 6], 24, config, workers=1):
        count += 1
    assert count == 24
    assert most <= 6


def test_shoulders_are_cut_along_the_neck(plain):
    clip, kept = plain
    cut = clip.matte(MatteConfig(**{**vars(CONFIG), "shoulders": "cut"}))
    line = find_neck_line(clip.labels[0])
    assert line is not None
    slope, height = line
    rows = np.arange(SIZE)[:, None] + 0.5
    above = slope * (np.arange(SIZE) + 0.5) + height - rows
    assert 165 < height + slope * 96 < 180  # the drawn neck ends in an arc from there to there
    assert (cut[0][above < 0] == 0).all()
    far = above > 20
    np.testing.assert_array_equal(cut[0][far], kept[0][far])
    column = cut[0][:, 96].astype(int)
    assert (np.diff(column[100:]) <= 0).all()
    assert np.diff(column).min() > -60  # soft
    assert find_neck_line(np.full((20, 20), -1)) is None


def test_a_head_at_a_slant_has_a_slanted_neck_line():
    labels = np.full((100, 100), REGIONS.index("neck"))
    rows, columns = np.mgrid[0:100, 0:100] + 0.5
    labels[rows > 60 + 0.25 * (columns - 50)] = REGIONS.index("shoulders")
    slope, height = find_neck_line(labels)
    assert slope == pytest.approx(0.25, abs=0.01)
    assert slope * 50 + height == pytest.approx(60, abs=0.6)
    alpha = cut_shoulders(np.full((100, 100), 255, np.uint8), (slope, height), 80)
    assert alpha[55, 90] > 200
    assert alpha[62, 10] == 0


def test_streams_and_reports_progress():
    clip = draw_clip("flat", count=5)
    reads, steps = [], []

    def frame(i):
        reads.append(i)
        return clip.frames[i]

    stream = matte_clip(
        frame, clip.labels.__getitem__, 5, CONFIG, workers=1,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    next(stream)
    assert len(reads) < 10  # five for the survey; not all of the second pass yet
    assert len(list(stream)) == 4
    assert steps == [(i + 1, 5) for i in range(5)]
    assert reads == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


def test_a_single_frame_works():
    clip = draw_clip("flat", count=1)
    assert iou(clip.matte(), clip.alpha) > 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.labels.__setitem__(2, np.full((SIZE, SIZE), -1)),
            "no head is drawn in frame 2",
        ),
        (lambda c: c.labels.__setitem__(1, c.labels[1][:-1]), "labels of frame 1"),
        (lambda c: c.labels.__setitem__(1, c.labels[1] + 50), "labels of frame 1"),
        (lambda c: c.labels.__setitem__(0, c.labels[0].astype(float)), "labels of frame 0"),
        (lambda c: c.frames.__setitem__(1, c.frames[1][:-2]), "frame 1 has shape"),
        (lambda c: c.frames.__setitem__(0, c.frames[0] / 255.0), "frame 0 is float64"),
        (
            lambda c: c.labels.__setitem__(slice(None), [np.zeros((SIZE, SIZE), int)] * 3),
            "fills the picture",
        ),
    ],
)
def test_bad_input_is_named(change, message):
    clip = draw_clip("flat", count=3)
    change(clip)
    with pytest.raises(InputError, match=message):
        clip.matte()


def test_empty_clip_and_bad_settings_are_refused():
    with pytest.raises(InputError, match="no frames"):
        next(matte_clip(lambda i: None, lambda i: None, 0))
    with pytest.raises(InputError, match="working_size"):
        MatteConfig(working_size=10)
    with pytest.raises(InputError, match="method 'magic' is unknown"):
        MatteConfig(method="magic")
    with pytest.raises(InputError, match="matte.rvm"):
        MatteConfig(method="rvm")
    with pytest.raises(InputError, match="matte.bisenet"):
        MatteConfig(parsing="bisenet")
    with pytest.raises(InputError, match="temporal_weight"):
        MatteConfig(temporal_weight=-1.0)
    with pytest.raises(InputError, match="colour_model_frames"):
        MatteConfig(survey_frames=4, colour_model_frames=5)


def test_plate_is_the_median_of_the_background_and_unknown_where_it_moves():
    rng = np.random.default_rng(0)
    images = [np.full((20, 20, 3), 100, np.uint8) for _ in range(9)]
    seen = [np.ones((20, 20), bool) for _ in range(9)]
    for t, image in enumerate(images):
        image[5, 5] = 255 if t < 3 else 90  # a passer-by in a third of the frames
        image[10:, 10:] = rng.integers(0, 255, (10, 10, 3))  # never the same
        seen[t][2, 2] = t == 0  # seen once only
    sure = [np.zeros((20, 20), bool) for _ in range(9)]
    for mask in sure:
        mask[:5] = True
    plate = estimate_plate(images, seen, sure)
    np.testing.assert_array_equal(plate.colour[5, 5], 90)
    assert plate.known[5, 5]
    assert not plate.known[2, 2]
    assert plate.known[10:, 10:].mean() < 0.05


def test_closed_form_alpha_recovers_a_mixture():
    ramp = np.clip((np.arange(40) - 12) / 15.0, 0, 1).astype(np.float32)
    alpha = np.tile(ramp, (30, 1))
    own, other = np.float32([30, 60, 200]), np.float32([220, 200, 40])
    image = np.rint(alpha[..., None] * own + (1 - alpha[..., None]) * other).astype(np.uint8)
    unknown = np.zeros((30, 40), bool)
    unknown[:, 8:32] = True
    nothing = np.zeros((30, 40), np.float32)
    solved = solve_alpha(image, alpha > 0.5, unknown, nothing, nothing)
    np.testing.assert_allclose(solved, alpha, atol=0.03)


def test_laplacian_rows_are_those_of_the_whole_laplacian():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 255, (23, 31, 3), dtype=np.uint8)
    unknown = rng.random((23, 31)) < 0.2
    whole = load_pymatting("laplacian.cf_laplacian").cf_laplacian(
        image / 255.0, epsilon=1e-5, is_known=~unknown
    )
    values, columns = laplacian_rows(image, unknown, 1e-5)
    rows = np.zeros((len(values), unknown.size))
    np.add.at(rows, (np.arange(len(values))[:, None], columns), values)
    np.testing.assert_allclose(rows, whole.toarray()[unknown.ravel()], atol=1e-12)


def test_prior_moves_alpha_where_it_is_trusted():
    image = np.full((20, 20, 3), 128, np.uint8)
    person = np.zeros((20, 20), bool)
    unknown = np.zeros((20, 20), bool)
    unknown[5:15, 5:15] = True
    prior = np.full((20, 20), 0.7, np.float32)
    solved = solve_alpha(image, person, unknown, prior, np.full((20, 20), 50, np.float32))
    np.testing.assert_allclose(solved[8:12, 8:12], 0.7, atol=0.05)


def test_upsampled_alpha_follows_the_large_image():
    large = np.full((64, 64, 3), 20, np.uint8)
    large[:, 31:] = 220  # an odd column: the small image mixes it
    small = cv2.resize(large, (32, 32), interpolation=cv2.INTER_AREA)
    alpha = (small[..., 0].astype(np.float32) - 20) / 200
    result = upsample_alpha(alpha, small, large)
    truth = (large[..., 0] > 128).astype(np.float32)
    plain = cv2.resize(alpha, (64, 64), interpolation=cv2.INTER_LINEAR)
    assert np.abs(result - truth).mean() < 0.5 * np.abs(plain - truth).mean()


def test_steadying_leaves_no_ghost():
    still, moved = np.full((32, 32, 3), 200, np.uint8), np.full((32, 32, 3), 200, np.uint8)
    moved[8:24, 8:24] = 20
    empty, full = np.zeros((32, 32), np.float32), np.zeros((32, 32), np.float32)
    full[8:24, 8:24] = 1
    np.testing.assert_allclose(steady_alpha(still, empty, [(moved, full)], 1.0), 0, atol=1e-3)
    half = np.full((32, 32), 0.5, np.float32)
    np.testing.assert_allclose(steady_alpha(still, empty, [(still, half)], 1.0), 0.25, atol=1e-6)


def test_foreground_loses_the_old_background(plain):
    clip, _ = plain
    frame, alpha = clip.frames[0], clip.alpha[0]
    own = estimate_foreground(frame, alpha)
    solid = (alpha == 255) | (alpha == 0)
    np.testing.assert_array_equal(own[solid], frame[solid])
    rows, columns = np.nonzero((alpha > 100) & (alpha < 200) & (np.arange(SIZE)[:, None] < 60))
    hair = np.float32([60, 42, 30])
    before = np.abs(frame[rows, columns] - hair).mean()
    assert np.abs(own[rows, columns] - hair).mean() < 0.35 * before
    with pytest.raises(InputError, match="differ in size"):
        estimate_foreground(frame, alpha[:-1])
