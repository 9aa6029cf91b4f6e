"""What other frames know of the hair that one frame hides."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from cag_avatar_training.matting import MatteConfig
from cag_avatar_training.matting.seeds import Seeds, find_seeds
from cag_avatar_training.matting.segmentation import cut, survey
from cag_avatar_training.matting.usual_person import UsualPerson

from cag_avatar.head_models.base import REGIONS

SIZE = 96
WALL, HAIR, SKIN = (196, 190, 178), (60, 42, 30), (205, 150, 125)


def _frame(column: int, row: int) -> tuple[np.ndarray, np.ndarray, Seeds]:
    """A picture, the person in it, and the seeds: a head at a place, with hair above it, before a
    wall that is a little darker below."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    face = ((x - column) / 14) ** 2 + ((y - row) / 18) ** 2 < 1
    hair = ((x - column) / 20) ** 2 + ((y - row + 8) / 24) ** 2 < 1
    wall = np.array(WALL) - 14 * (y > 60)[..., None]
    picture = np.where(face[..., None], SKIN, np.where(hair[..., None], HAIR, wall)).astype(float)
    picture += np.random.default_rng(column).normal(0, 2, picture.shape)
    labels = np.where(face, REGIONS.index("face_skin"), -1).astype(np.int16)
    seeds = find_seeds(labels, MatteConfig())
    assert seeds is not None
    return np.clip(picture, 0, 255).astype(np.uint8), face | hair, seeds


def test_seeds_tell_the_heads_middle() -> None:
    seeds = _frame(40, 50)[2]
    assert seeds.middle == pytest.approx((40, 50), abs=0.1)
    assert seeds.head_size == pytest.approx(np.sqrt(np.pi * 14 * 18), rel=0.02)


def test_the_map_moves_with_the_head_and_counts_frames() -> None:
    frames = [_frame(column, row) for column, row in ((40, 50), (52, 47), (46, 56), (60, 50))]
    people = [person.copy() for _, person, _ in frames]
    people[0][:, :40] = False  # one of four misses its left half
    usual = UsualPerson.of(people, [seeds for _, _, seeds in frames])
    assert usual.share.shape == (128, 128)
    for column, row in ((44, 52), (70, 44)):
        _, person, seeds = _frame(column, row)
        share = usual.at(seeds, person.shape)
        assert share.shape == person.shape
        assert share[row - 22, column + 6] == pytest.approx(1, abs=1e-3)
        assert share[row - 22, column - 8] == pytest.approx(0.75, abs=0.02)
        assert share[row - 36, column] < 0.01
        # Edges are a pixel off at most: at a half they are the person's.
        assert np.mean((share > 0.5) == person) > 0.985


def test_hair_in_front_of_a_like_background_is_found_by_the_others() -> None:
    frames = [_frame(column, 50) for column in (34, 40, 46, 52, 58, 62)]
    images, people, seeds = (list(part) for part in zip(*frames, strict=True))
    with ThreadPoolExecutor(2) as pool:
        model = survey(images, seeds, MatteConfig(colour_model_frames=4), pool)
    assert model.usual is not None
    # In one frame the hair's crown is a little darker than the wall, where that was never seen.
    image, person, seed = images[2].copy(), people[2], seeds[2]
    crown = person & (np.arange(SIZE)[:, None] < 30)
    image[crown] = np.array(WALL) - 14
    plate = replace(model.plate, known=model.plate.known & ~crown)
    found, _ = cut(image, seed, replace(model, plate=plate))
    alone, _ = cut(image, seed, replace(model, plate=plate, usual=None))
    assert alone[crown].mean() < 0.5
    assert found[crown].mean() > 0.8
    assert (found & ~person).sum() < 0.03 * person.sum()
    # What is as bright as the wall nearby may be the wall, though the person usually is there.
    image[crown] = WALL
    wall, _ = cut(image, seed, replace(model, plate=plate))
    assert wall[crown].mean() < 0.5
    # Where the wall was seen and is seen again, the map does not overrule it.
    seen, _ = cut(image, seed, model)
    known = crown & model.plate.known
    assert known.sum() > 20
    assert seen[known].mean() < 0.5
