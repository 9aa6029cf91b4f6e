"""Labels of the parts of a face that a trainer weighs or leaves out: eyes, lips, mouth, teeth."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from cag_avatar_training.parts import PARSING_LABELS
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models.base import REGIONS
from cag_avatar.tracking.face_landmarker import EYE_LIDS

__all__ = [
    "EYE_LEFT",
    "EYE_RIGHT",
    "INNER_LIP",
    "OUTER_LIP",
    "FaceParser",
    "Parser",
    "TeethColours",
    "checked_landmarks",
    "cheek_green",
    "fill_contour",
    "survey_teeth",
]

_LOG = logging.getLogger(__name__)

#: MediaPipe's landmarks along the lips' outer and inner edges and the two eyes' openings, in order
#: around.
OUTER_LIP: tuple[int, ...] = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375,
    291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)  # fmt: skip
INNER_LIP: tuple[int, ...] = (
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324,
    308, 415, 310, 311, 312, 13, 82, 81, 80, 191,
)  # fmt: skip
EYE_RIGHT, EYE_LEFT = EYE_LIDS
#: Landmarks on the cheeks, whose skin tells how bright a frame is.
_CHEEKS = (50, 280, 205, 425, 36, 266, 101, 330)

_SHIFT = 4  # fractional bits of OpenCV's polygon corners
_MESH_MOUTH = tuple(
    REGIONS.index(name) for name in ("lips", "teeth_upper", "teeth_lower", "tongue", "mouth_cavity")
)
#: Blur, in mouth widths, that takes the steps of single triangles off the mesh's outline.
_SMOOTH = 0.04
#: An opening narrower than this share of its width is shut: landmarks never meet exactly.
_SHUT_MOUTH, _SHUT_EYE = 0.035, 0.05
#: MediaPipe's eye contour runs along the lids' outer edges: it is drawn in by this share of its
#: width.
_LID = 0.03
#: Frames whose mouth is open widest, from which the colours of teeth are learned.
_TEETH_FRAMES = 24
#: Least pixels of teeth and of open mouth in these frames to go by.
_TEETH_PIXELS = 60
#: Green, relative to the cheeks', above which a pixel may be a tooth at all, and the brightness of
#: the darkest tooth relative to bright ones.
_TEETH_LEAST, _TEETH_SHADED = 0.30, 0.45
#: Redness of teeth relative to the lips', at most; 0 to 0.4 in the clips looked at.
_TEETH_REDNESS = 0.6


@dataclass(frozen=True)
class TeethColours:
    """What sets teeth apart from gums, tongue and the dark in one clip."""

    green: float
    """Least green, in units of the cheeks' green in the same frame. Flesh is dark in green."""
    redness: float
    """Largest (red - green) / (red + green)."""

    def find(
        self, image: NDArray[np.uint8], inside: NDArray[np.bool_], skin: float
    ) -> NDArray[np.bool_]:
        """Teeth among the pixels ``inside`` of an open mouth, [h, w].

        Args:
            image: [h, w, 3], RGB.
            inside: the open mouth, [h, w].
            skin: green of the cheeks in this frame.
        """
        green, redness = _colour_features(image, skin)
        teeth = ((green > self.green) & (redness < self.redness) & inside).astype(np.uint8)
        # A glint on a wet tongue is as bright as a tooth, but a speck.
        count, pieces, stats, _ = cv2.connectedComponentsWithStats(teeth, connectivity=8)
        least = max(4.0, 0.01 * inside.sum())
        small = [k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] < least]
        return (teeth > 0) & ~np.isin(pieces, small)


class Parser(Protocol):
    """Labels the frames of a clip."""

    def parse(
        self,
        image: NDArray[np.uint8],
        alpha: NDArray[np.uint8],
        landmarks: NDArray[Any],
        head: NDArray[Any] | None = None,
    ) -> NDArray[np.uint8]:
        """Label a frame: see FaceParser.parse()."""
        ...


class FaceParser:
    """Labels the frames of a clip from landmarks, the fitted head and the picture.

    Lips and mouth: the outline of the fitted head's mouth region, held to within ``mouth_margin``
    of the outer lip's landmarks, together with what these enclose. The open mouth is what the inner
    lip's landmarks enclose; teeth are its bright, little red pixels. Eyes: what the landmarks of
    the lids enclose.

    Args:
        teeth: the clip's, from survey_teeth(); None: no teeth are labelled.
        mouth_margin: how far the head's region may reach beyond the landmarks, in mouth widths; at
            0 the lips are what the landmarks enclose.
    """

    def __init__(self, teeth: TeethColours | None, mouth_margin: float = 0.06) -> None:
        if not 0 <= mouth_margin <= 1:
            raise InputError(f"matte: mouth_margin {mouth_margin} must lie between 0 and 1")
        self._teeth = teeth
        self._margin = mouth_margin

    def parse(
        self,
        image: NDArray[np.uint8],
        alpha: NDArray[np.uint8],
        landmarks: NDArray[Any],
        head: NDArray[Any] | None = None,
    ) -> NDArray[np.uint8]:
        """Label a frame: [H, W] uint8, values index PARSING_LABELS.

        Args:
            image: [H, W, 3], RGB.
            alpha: its matte, [H, W]; the person is where it is at least one half.
            landmarks: MediaPipe's, [478, 2 or 3], pixels, centres at + 0.5.
            head: the fitted head drawn into the frame, [H, W]: -1 or an index into REGIONS; without
                it the lips go by the landmarks alone.

        Raises InputError on shapes that do not fit, or landmarks that are not finite.
        """
        height, width = alpha.shape
        if image.shape != (height, width, 3) or (head is not None and head.shape != alpha.shape):
            raise InputError(
                f"parsing: image {image.shape} and alpha {alpha.shape} differ in size"
                + ("" if head is None else f", or from the head's {head.shape}")
            )
        points = checked_landmarks(landmarks)
        plane = (alpha > 127).astype(np.uint8)
        for name, contour in (("eye_left", EYE_LEFT), ("eye_right", EYE_RIGHT)):
            plane[_eye(points[list(contour)], width, height)] = PARSING_LABELS.index(name)
        box = _mouth_box(points, width, height)
        if box is None:
            return plane
        window = points - (box[1].start, box[0].start)
        part = None if head is None else head[box]
        lips, inside = self._mouth(window, part, plane[box].shape)
        labels = plane[box]  # a view
        labels[lips] = PARSING_LABELS.index("lips")
        labels[inside] = PARSING_LABELS.index("mouth_interior")
        if self._teeth is not None and inside.any():
            teeth = self._teeth.find(image[box], inside, cheek_green(image, points))
            labels[teeth] = PARSING_LABELS.index("teeth")
        return plane

    def _mouth(
        self, points: NDArray[np.float64], head: NDArray[Any] | None, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(the whole mouth, what is open of it) in a window around it."""
        height, width = shape
        outer = points[list(OUTER_LIP)]
        mouth = fill_contour(outer, width, height)
        across = float(np.linalg.norm(outer[0] - outer[10]))
        radius = round(self._margin * across)
        if head is not None and radius > 0:
            region = _filled(np.isin(head, _MESH_MOUTH))
            smooth = cv2.GaussianBlur(region.astype(np.float32), (0, 0), max(_SMOOTH * across, 0.3))
            mouth |= (smooth > 0.5) & _grown(mouth, radius)
        inner = points[list(INNER_LIP)]
        if _opening(inner) < _SHUT_MOUTH:
            return mouth, np.zeros_like(mouth)
        return mouth, fill_contour(inner, width, height) & mouth


def survey_teeth(
    frames: Callable[[int], NDArray[np.uint8]], landmarks: NDArray[Any]
) -> TeethColours | None:
    """Learn a clip's colours of teeth from the frames whose mouth is open widest.

    Args:
        frames: frame i, [H, W, 3], RGB; a few are asked for, one at a time, ascending.
        landmarks: of every frame, [T, 478, 2 or 3], pixels.

    Returns None when no teeth show in these frames.
    """
    points = np.asarray(landmarks, np.float64)[..., :2]
    openings = np.array([_opening(frame[list(INNER_LIP)]) for frame in points])
    # Some of each stretch of the clip, so that one long vowel does not stand for all.
    chosen = [
        int(part[openings[part].argmax()])
        for part in np.array_split(np.arange(len(points)), min(_TEETH_FRAMES, len(points)))
    ]
    green_in, red_in, red_lips = [], [], []
    for t in chosen:
        if openings[t] < 2 * _SHUT_MOUTH:
            continue
        image = frames(t)
        height, width = image.shape[:2]
        box = _mouth_box(points[t], width, height)
        if box is None:
            continue
        window = points[t] - (box[1].start, box[0].start)
        rows, columns = image[box].shape[:2]
        inside = fill_contour(window[list(INNER_LIP)], columns, rows)
        lips = fill_contour(window[list(OUTER_LIP)], columns, rows) & ~_grown(inside, 1)
        green, redness = _colour_features(image[box], cheek_green(image, points[t]))
        green_in.append(green[inside])
        red_in.append(redness[inside])
        red_lips.append(redness[lips])
    if not green_in:
        return None
    green, redness = np.concatenate(green_in), np.concatenate(red_in)
    flesh = float(np.median(np.concatenate(red_lips)))
    if len(green) < _TEETH_PIXELS:
        return None
    split = _otsu(green)
    bright = green > max(split, _TEETH_LEAST)
    if bright.sum() < _TEETH_PIXELS:
        return None
    # Teeth are less red than the lips; a bright class that is not is a lit tongue.
    enamel = float(np.percentile(redness[bright], 25))
    if enamel > _TEETH_REDNESS * flesh:
        _LOG.info("parsing: nothing in the open mouth is less red than the lips; no teeth labelled")
        return None
    limit = (enamel + flesh) / 2
    lit = float(np.percentile(green[bright & (redness < limit)], 75))
    # A clip of smiles holds hardly any dark: shaded teeth are not to be taken for it.
    least = max(min(split, _TEETH_SHADED * lit), _TEETH_LEAST)
    return TeethColours(least, limit)


def fill_contour(points: NDArray[Any], width: int, height: int) -> NDArray[np.bool_]:
    """Pixels inside a closed contour [n, 2] (pixels, centres at + 0.5), [height, width]."""
    mask = np.zeros((height, width), np.uint8)
    corners = np.rint((points - 0.5) * 2**_SHIFT).clip(-(2**24), 2**24).astype(np.int32)
    cv2.fillPoly(mask, [corners], 1, cv2.LINE_8, _SHIFT)
    return mask > 0


def checked_landmarks(landmarks: NDArray[Any]) -> NDArray[np.float64]:
    """The landmarks' x and y, [478, 2]. Raises InputError on another shape, NaN or infinity."""
    points = np.asarray(landmarks, dtype=np.float64)
    least = max((*OUTER_LIP, *EYE_LEFT, *_CHEEKS))
    if points.ndim != 2 or points.shape[0] <= least or points.shape[1] not in (2, 3):
        raise InputError(f"parsing: landmarks have shape {points.shape}, expected [478, 2 or 3]")
    points = points[:, :2]
    if not np.isfinite(points).all():
        raise InputError("parsing: landmarks are not finite")
    return points


def _eye(contour: NDArray[np.float64], width: int, height: int) -> NDArray[np.bool_]:
    if _opening(contour) < _SHUT_EYE:
        return np.zeros((height, width), bool)
    along = np.linalg.norm(contour[0] - contour[8])
    centre = contour.mean(0)
    gaps = contour - centre
    lengths = np.linalg.norm(gaps, axis=1, keepdims=True)
    drawn_in = gaps * np.maximum(1 - _LID * along / np.maximum(lengths, 1e-6), 0)
    return fill_contour(centre + drawn_in, width, height)


def _opening(contour: NDArray[Any]) -> float:
    """Area of a closed contour over the square of its width: about 0.6 of height by width."""
    x, y = contour[:, 0], contour[:, 1]
    area = 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))
    across = np.linalg.norm(contour[0] - contour[len(contour) // 2])
    return area / max(float(across) ** 2, 1e-9)


def _mouth_box(points: NDArray[Any], width: int, height: int) -> tuple[slice, slice] | None:
    """Rows and columns of the mouth with room around it; None outside the picture."""
    lips = points[list(OUTER_LIP)]
    margin = 0.5 * np.linalg.norm(lips[0] - lips[10]) + 2
    low = np.floor(lips.min(0) - margin).clip(0, (width, height)).astype(int)
    high = np.ceil(lips.max(0) + margin).clip(0, (width, height)).astype(int)
    if (high - low).min() < 2:
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])


def cheek_green(image: NDArray[np.uint8], points: NDArray[Any]) -> float:
    """Median green of the cheeks' skin, at least 1; landmarks [478, 2] in pixels."""
    height, width = image.shape[:2]
    at = points[list(_CHEEKS)].astype(int).clip(1, (width - 2, height - 2))
    patches = [image[y - 1 : y + 2, x - 1 : x + 2, 1] for x, y in at]
    return max(float(np.median(patches)), 1.0)


def _colour_features(
    image: NDArray[np.uint8], skin: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Green in units of the skin's, and (red - green) / (red + green), [h, w]."""
    red, green = image[..., 0].astype(np.float32), image[..., 1].astype(np.float32)
    return green / np.float32(skin), (red - green) / (red + green + 8)


def _otsu(values: NDArray[Any]) -> float:
    """The split of two classes with the largest variance between them (Otsu 1979)."""
    scaled = np.rint(values / max(float(values.max()), 1e-6) * 255).astype(np.uint8)
    level, _ = cv2.threshold(scaled[None], 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return float(level) / 255 * float(values.max())


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without its holes."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    result = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(result, outlines, -1, 1, cv2.FILLED)
    return result > 0


def _grown(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    side = 2 * radius + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0
