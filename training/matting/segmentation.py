"""The cut: GrabCut with colour models and a background plate that the whole clip shares."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import cv2
import numpy as np
from cag_avatar_training.matting.background import BackgroundPlate, PlateEvidence, estimate_plate
from cag_avatar_training.matting.config import MatteConfig
from cag_avatar_training.matting.seeds import Seeds
from cag_avatar_training.matting.usual_person import UsualPerson
from numpy.typing import NDArray

from cag_avatar.errors import InputError

__all__ = ["ClipModel", "cut", "survey"]

#: Plate differences, in units of its noise: below the first a pixel is background, above the
#: second it is not.
_SAME, _OTHER = 2.2, 7.0
#: Hair that the plate knows nothing of lies within this distance, in heads, of the drawn head.
_HAIR = 0.45
#: Motion of the head, in heads, by which still background is told from hair.
_PASSING = 0.08
#: Room, in heads, left around the person when the background is collected.
_MARGIN = 0.05
#: Cuts of the surveyed frames. Each finds hair that the one before took for background, and so
#: background that hair had hidden.
_ROUNDS = 3
#: Further rounds, in which a frame also learns from the others where the person usually is; the
#: share of the frames that makes it sure where the background never showed, and by how many grey
#: levels the colour must differ there from the background nearby.
_USUAL_ROUNDS, _USUALLY, _UNLIKE = 3, 0.6, 20.0
_NO_BOX = (0, 0, 0, 0)  # GrabCut starts from a mask here
_MIXTURE_SIZE = (1, 65)  # OpenCV's: 5 Gaussians of 1 weight, 3 means and 9 covariances
_COVARIANCES = 20  # where these begin


@dataclass(frozen=True)
class ClipModel:
    """What all frames of a clip share."""

    foreground: NDArray[np.float64]
    """GrabCut's mixture of the person's colours, [1, 65]."""
    background: NDArray[np.float64]
    """GrabCut's mixture of the background's colours, [1, 65]."""
    plate: BackgroundPlate
    """The background where it was seen."""
    usual: UsualPerson | None = None
    """Where the person usually is; None while that is not known."""


def survey(
    images: list[NDArray[np.uint8]], seeds: list[Seeds], config: MatteConfig, pool: Executor
) -> ClipModel:
    """Fit the shared models to some frames of the clip, at the working size; cuts run in ``pool``.

    Raises InputError when nothing of the background is in view.
    """
    # What stands still around the head is background, what moves with it is hair: a first plate
    # tells them apart before any colour is known.
    plate = estimate_plate(images, _passed_by(seeds), _sure(seeds))
    step = max(1, len(images) // config.colour_model_frames)
    chosen = range(0, len(images), step)
    # One picture of many frames, so that one mixture describes the whole clip.
    picture = np.concatenate([_halve(images[i]) for i in chosen])
    masks = [_guess(images[i], seeds[i], plate) for i in chosen]
    if not any(np.isin(mask, (cv2.GC_BGD, cv2.GC_PR_BGD)).any() for mask in masks):
        raise InputError(
            "matte: the fitted head fills the picture, no background is in view; "
            "crop the video with more room around the head"
        )
    # The first cuts show more of the background, the next are made with it.
    for _ in range(_ROUNDS):
        foreground, background = _fit_colours(picture, masks)
        model = ClipModel(foreground, background, plate)
        people = [person for person, _ in pool.map(cut, images, seeds, repeat(model))]
        clear = [_clear(person, seed) for person, seed in zip(people, seeds, strict=True)]
        plate = estimate_plate(images, clear, _sure(seeds))
        masks = [_guess(images[i], seeds[i], plate, people[i]) for i in chosen]
    model = ClipModel(foreground, background, plate)
    for _ in range(_USUAL_ROUNDS):
        people = [p for p, _ in pool.map(cut, images, seeds, repeat(model), repeat(True))]
        clear = [_clear(person, seed) for person, seed in zip(people, seeds, strict=True)]
        plate = estimate_plate(images, clear, _sure(seeds))
        model = ClipModel(foreground, background, plate, UsualPerson.of(people, seeds))
    return model


def _fit_colours(
    picture: NDArray[np.uint8], masks: list[NDArray[np.uint8]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mixtures (person, background) of a picture at half the masks' size."""
    mask = np.concatenate([m[::2, ::2] for m in masks])
    foreground, background = np.zeros(_MIXTURE_SIZE), np.zeros(_MIXTURE_SIZE)
    cv2.setRNGSeed(0)  # the mixtures start from k-means
    cv2.grabCut(picture, mask, _NO_BOX, background, foreground, 3, cv2.GC_INIT_WITH_MASK)
    return foreground, background


def _clear(person: NDArray[np.bool_], seeds: Seeds) -> NDArray[np.bool_]:
    """Where a frame shows background, with room around the person."""
    near = cv2.distanceTransform((~person).astype(np.uint8), cv2.DIST_L2, 3)
    margin = _MARGIN * seeds.head_size
    return (near > margin) & (seeds.outside > margin)


def _passed_by(seeds: list[Seeds]) -> list[NDArray[np.bool_]]:
    """Pixels outside each drawn head by which the head moved: only there does standing still tell
    a wall from hair. Clothes keep still as a wall does."""
    distance = np.stack([s.outside / s.head_size for s in seeds])
    telling = (np.ptp(distance, axis=0) > _PASSING) | (distance.min(0) > _HAIR)
    return [(d > _MARGIN) & telling & ~s.clothes for d, s in zip(distance, seeds, strict=True)]


def _sure(seeds: list[Seeds]) -> list[NDArray[np.bool_]]:
    return [s.background for s in seeds]


def _halve(image: NDArray[np.uint8]) -> NDArray[Any]:
    height, width = image.shape[:2]
    size = ((width + 1) // 2, (height + 1) // 2)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _guess(
    image: NDArray[np.uint8],
    seeds: Seeds,
    plate: BackgroundPlate,
    person: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """GrabCut's mask before colours are known: seeds, and beside them what moves or differs."""
    mask = _initial_mask(seeds, person)
    if not plate.still(seeds.background):
        return mask
    evidence = plate.compare(image, seeds.background)
    free = ~seeds.background & ~seeds.foreground
    near = (seeds.outside < _HAIR * seeds.head_size) & ~seeds.clothes & free
    moving = near & (plate.moving if person is None else ~plate.known)
    depth = cv2.distanceTransform(moving.astype(np.uint8), cv2.DIST_L2, 3)
    with np.errstate(invalid="ignore"):
        if person is None:
            mask[free & (moving | (evidence.chroma > _OTHER))] = cv2.GC_PR_FGD
        mask[free & (evidence.difference < _SAME)] = cv2.GC_BGD
    deep = depth > 0.03 * seeds.head_size
    # What a cut left to the background and what yet never kept still is hair that it missed.
    mask[deep if person is None else deep & (evidence.unseen_other | plate.moving)] = cv2.GC_FGD
    return mask


def cut(
    image: NDArray[np.uint8], seeds: Seeds, model: ClipModel, coarse: bool = False
) -> tuple[NDArray[np.bool_], PlateEvidence]:
    """The person in a frame [h, w, 3]: one connected piece without holes, [h, w].

    ``coarse`` cuts at half the size.
    """
    evidence = model.plate.compare(image, seeds.background)
    mask = _initial_mask(seeds)
    with np.errstate(invalid="ignore"):
        same = (evidence.difference < _SAME) & (seeds.inside < 0.06 * seeds.head_size)
        other = (evidence.chroma > _OTHER) & ~seeds.background
    other |= evidence.unseen_other & (seeds.outside < _HAIR * seeds.head_size)
    same &= ~seeds.foreground
    # A pocket of hair or clothes that never moved looks like background; only what hangs together
    # with the sure background or the picture's edge is.
    mask[same & _attached(same, seeds.background | (seeds.edge & same))] = cv2.GC_BGD
    strong = cv2.erode(other.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    mask[strong & ~same & _attached(strong, seeds.foreground)] = cv2.GC_FGD
    if model.usual is not None and model.plate.still(seeds.background):
        usually = model.usual.at(seeds, mask.shape) > _USUALLY
        colour: NDArray[Any] = cv2.blur(image, (3, 3)).astype(np.float32)
        unlike = np.linalg.norm(colour - evidence.background, axis=-1) > _UNLIKE
        mask[usually & unlike & ~model.plate.known & (mask != cv2.GC_BGD)] = cv2.GC_FGD
    grab = _grab_half if coarse else _grab
    return _one_piece(grab(image, mask, model), seeds), evidence


def _grab(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], model: ClipModel, sharper: float = 1.0
) -> NDArray[np.bool_]:
    """GrabCut of the open pixels with the clip's colours, [h, w]; changes ``mask``.

    ``sharper`` multiplies what colours weigh against the length of the outline.
    """
    foreground, background = model.foreground.copy(), model.background.copy()
    for mixture in (foreground, background):
        mixture[:, _COVARIANCES:] /= sharper
    cv2.grabCut(image, mask, _NO_BOX, background, foreground, 1, cv2.GC_EVAL_FREEZE_MODEL)
    return (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)


def _grab_half(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], model: ClipModel
) -> NDArray[np.bool_]:
    """The same at half the size: a quarter of the time. The band in which alpha is solved for
    afterwards is wider than the pixel that is lost."""
    height, width = mask.shape
    half = _halve(image)
    small = cv2.resize(mask, half.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    # A quarter of the pixels along half the outline: colours must weigh twice as much.
    cover = _grab(half, np.asarray(small, np.uint8), model, sharper=2.0).astype(np.float32)
    person = cv2.resize(cover, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    return (person | (mask == cv2.GC_FGD)) & (mask != cv2.GC_BGD)


def _initial_mask(seeds: Seeds, person: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """GrabCut's mask from the seeds; between them by an earlier cut, or by nearness."""
    probable = seeds.outside < 0.08 * seeds.head_size if person is None else person
    mask = np.where(probable, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    mask[seeds.background] = cv2.GC_BGD
    mask[seeds.foreground] = cv2.GC_FGD
    return mask


def _attached(mask: NDArray[np.bool_], seed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pieces of mask | seed that contain some of the seed."""
    _, pieces = cv2.connectedComponents((mask | seed).astype(np.uint8), connectivity=4)
    wanted = np.zeros(int(pieces.max()) + 1, bool)
    wanted[pieces[seed]] = True
    wanted[0] = False
    return wanted[pieces]


def _one_piece(person: NDArray[np.bool_], seeds: Seeds) -> NDArray[np.bool_]:
    """Drop what hangs by a thread or not at all, and fill holes."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    opened: NDArray[Any] = cv2.morphologyEx(person.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    opened |= seeds.foreground.astype(np.uint8)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    if count > 1:
        inner: Any = np.bincount(pieces[seeds.foreground], minlength=count)
        inner[0] = 0
        best = int(inner.argmax()) if inner.any() else 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        opened = (pieces == best).astype(np.uint8)
    # Holes are what the background cannot reach from the picture's edge; the bottom edge is the
    # person's.
    empty = (opened == 0).astype(np.uint8)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(empty, connectivity=4)
    height, width = empty.shape
    limit = 0.15 * seeds.head_size**2
    for k in range(1, count):
        left, top, w, h, area = stats[k]
        touches = left == 0 or top == 0 or left + w == width
        if not touches and (top + h < height or area < limit):
            opened[pieces == k] = 1
    return opened > 0
