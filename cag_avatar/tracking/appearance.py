"""What a face looks like at points of its mesh: picture features robust to light, a template."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.head_models.base import REGIONS, HeadModel
from cag_avatar.tracking.landmark_embedding import load_landmark_embedding

__all__ = ["CHANNELS", "FeaturePlanes", "Template", "face_points", "feature_planes"]

#: Feature channels: grey and red minus green.
CHANNELS = 2

#: Weights of red, green and blue in a channel; contrast below which it counts as noise (grey
#: levels); gain. Chroma separates lips from skin under any light, but video codecs halve it.
_CHANNELS = ((0.3, 0.59, 0.11), 6.0, 1.0), ((1.0, -1.0, 0.0), 4.0, 0.7)
#: Blur left to the level's own pixels: a picture is shrunk until about this many remain.
_LEVEL_BLUR = 1.75
#: Half widths, in blurs, of the windows of the local mean and of the local contrast.
_MEAN_WINDOW, _CONTRAST_WINDOW = 12.0, 18.0
#: How densely points are drawn, by region. Eyeballs roll and their highlights do not; teeth, tongue
#: and the mouth's inside are seen at times only; hair moves on its own.
_DENSITY = {"face_skin": 1.0, "lips": 2.0, "ears": 0.5}
#: Landmarks round which points lie three times as dense: corners of the eyes, brows, mouth.
_DETAIL = (33, 133, 263, 362, 105, 334, 70, 300, 61, 291, 0, 17)
_DETAIL_RADIUS = 0.018  # metres
_OUTLIER = 0.6  # feature units; a textured point's features have deviation 1


@dataclass(frozen=True)
class FeaturePlanes:
    """Features of the picture round a face, with their slopes."""

    planes: NDArray[np.float32]
    """Feature, its slope along x, along y (per pixel of the picture), each of every channel:
    [h, w, 3 * CHANNELS]."""
    origin: tuple[int, int]
    """The picture's pixel (x, y) at the upper left corner of the planes."""
    shrink: int
    """Pixels of the picture per pixel of the planes."""

    def sample(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bilinear samples [N, 3 * CHANNELS] at pixels [N, 2]; the nearest inside when outside."""
        rows, columns, depth = self.planes.shape
        at = (pixels - np.array(self.origin, np.float32)) / np.float32(self.shrink)
        x = np.clip(at[:, 0] - np.float32(0.5), 0, columns - 1.001)
        y = np.clip(at[:, 1] - np.float32(0.5), 0, rows - 1.001)
        left, top = x.astype(np.int64), y.astype(np.int64)
        right = (x - left).astype(np.float32)[:, None]
        low = (y - top).astype(np.float32)[:, None]
        flat = self.planes.reshape(-1, depth)
        first = top * columns + left
        upper = flat[first] * (1 - right) + flat[first + 1] * right
        first += columns
        lower = flat[first] * (1 - right) + flat[first + 1] * right
        return upper * (1 - low) + lower * low


def feature_planes(
    image: NDArray[np.uint8], box: tuple[float, float, float, float], blur: float
) -> FeaturePlanes:
    """Band-passed, locally normalised grey and red-green chroma of a part of a picture.

    A feature is a channel minus its local mean over its local contrast, which takes slow changes of
    light (exposure, a lamp aside, shading) out of the picture.

    Args:
        image: RGB, [H, W, 3] uint8.
        box: part that is sampled later: left, top, right, bottom, pixels; a margin is added.
        blur: standard deviation of the low-pass, pixels of the picture.
    """
    shrink = max(1, round(blur / _LEVEL_BLUR))
    margin = 6 * blur + shrink
    height, width = image.shape[:2]
    left = int(np.clip(box[0] - margin, 0, width - 3 * shrink))
    top = int(np.clip(box[1] - margin, 0, height - 3 * shrink))
    columns = max(int(np.clip(box[2] + margin, 0, width) - left) // shrink, 3)
    rows = max(int(np.clip(box[3] + margin, 0, height) - top) // shrink, 3)
    part = image[top : top + rows * shrink, left : left + columns * shrink].astype(np.float32)
    if shrink > 1:  # averaging whole blocks keeps pixel coordinates exact
        part = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    # A block average has the variance (shrink^2 - 1) / 12; the Gaussian adds the rest.
    sigma = max(blur**2 - (shrink**2 - 1) / 12, 0.01) ** 0.5 / shrink
    mean = int(_MEAN_WINDOW * sigma) | 1
    contrast = int(_CONTRAST_WINDOW * sigma) | 1
    planes = np.empty((rows, columns, 3 * CHANNELS), np.float32)
    for k, (mix, noise, gain) in enumerate(_CHANNELS):
        plain = cv2.transform(part, np.array([mix], np.float32))
        smooth = np.asarray(cv2.GaussianBlur(plain, (0, 0), sigma), np.float32)
        band = smooth - _twice_averaged(smooth, mean)
        variance = _twice_averaged(band * band, contrast)
        feature = band * (gain / np.sqrt(np.maximum(variance, 0) + noise**2))
        planes[..., k] = feature
        planes[..., CHANNELS + k] = cv2.Sobel(
            feature, cv2.CV_32F, 1, 0, ksize=1, scale=0.5 / shrink
        )
        planes[..., 2 * CHANNELS + k] = cv2.Sobel(
            feature, cv2.CV_32F, 0, 1, ksize=1, scale=0.5 / shrink
        )
    return FeaturePlanes(planes, (left, top), shrink)


def _twice_averaged(plane: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Two box filters: a window without corners, at a cost that its size does not change."""
    return cv2.blur(cv2.blur(plane, (size, size)), (size, size))  # type: ignore[return-value]


def face_points(model: HeadModel, rest: Tensor, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points spread over the skin of face and ears and the lips: faces [N], barycentric [N, 3].

    Uniform by area, denser round eyes, brows and mouth; none on the back of the head and the neck.

    Args:
        model: the head model.
        rest: rest vertices of the person, [V, 3] metres.
        count: number of points N.
        seed: of the drawing.
    """
    random = np.random.default_rng(seed)
    faces, vertices = model.faces.numpy(), rest.numpy()
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1)
    centre = corners.mean(1)
    region = model.face_region.numpy()
    density = np.zeros(len(faces))
    for name, value in _DENSITY.items():
        density[region == REGIONS.index(name)] = value
    detail = load_landmark_embedding(model).points(rest, model.faces)[list(_DETAIL)].numpy()
    distance = np.linalg.norm(centre[:, None, :2] - detail[None, :, :2], axis=-1).min(1)
    density *= 1 + 2 * np.exp(-((distance / _DETAIL_RADIUS) ** 2))
    frontal = (centre[:, 2] > -0.09) & (normal[:, 2] > -0.2 * area)
    density *= area * frontal
    chosen = random.choice(len(faces), count, p=density / density.sum())
    cut = np.sort(random.random((count, 2)), 1)
    barycentric = np.stack([cut[:, 0], cut[:, 1] - cut[:, 0], 1 - cut[:, 1]], 1)
    return torch.from_numpy(chosen), torch.from_numpy(barycentric).float()


@dataclass(frozen=True)
class Template:
    """Features of the surface points as most frames see them."""

    mean: Tensor
    """[N, CHANNELS]."""
    variance: Tensor
    """Over the frames, [N, CHANNELS]."""
    usable: Tensor
    """Points seen often enough, with texture, [N] bool."""

    @classmethod
    def build(cls, values: Tensor, slopes: Tensor, visible: Tensor, least_slope: float) -> Template:
        """Robust mean by re-weighted least squares (Geman-McClure).

        Args:
            values: samples [T, N, CHANNELS].
            slopes: [T, N, CHANNELS, 2].
            visible: [T, N] bool.
            least_slope: root mean square slope below which a point carries no information.
        """
        seen = visible.to(values.dtype)[..., None]
        count = seen.sum(0).clamp(min=1.0)
        mean = (values * seen).sum(0) / count
        for _ in range(4):
            weight = seen / (1 + ((values - mean) / _OUTLIER) ** 2) ** 2
            mean = (values * weight).sum(0) / weight.sum(0).clamp(min=1e-3)
        variance = (seen * (values - mean).clamp(-1.5, 1.5) ** 2).sum(0) / count
        steep = (slopes.square().sum((-1, -2)) * seen[..., 0]).sum(0) / count[..., 0]
        usable = (visible.sum(0) >= min(3, len(visible))) & (steep > least_slope**2)
        return cls(mean, variance, usable)

    def spread(self) -> float:
        """Mean variance of the usable points: falls as the frames agree better."""
        return float(self.variance[self.usable].mean()) if bool(self.usable.any()) else 0.0


def sample_all(planes: Iterable[FeaturePlanes], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Features [T, N, CHANNELS] and slopes [T, N, CHANNELS, 2] of T frames at pixels [T, N, 2]."""
    at = pixels.numpy()
    out = torch.from_numpy(np.stack([p.sample(q) for p, q in zip(planes, at, strict=True)]))
    out = out.unflatten(-1, (3, CHANNELS))
    return out[..., 0, :], torch.stack([out[..., 1, :], out[..., 2, :]], -1)
