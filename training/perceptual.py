"""Perceptual distance: shift-tolerant LPIPS (Ghildyal and Liu, ECCV 2022).

The weights come from the PyPI package stlpips_pytorch 0.0.2 (BSD). Its module is not imported: it
needs torchvision. Only its weight files are read, into the network defined here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cag_avatar.errors import InputError, MissingDependencyError

__all__ = ["PerceptualNet", "ShiftTolerantLpips", "distance_in", "load_perceptual"]

PerceptualNet = Literal["alex", "vgg"]

#: Smallest image side the networks take: their padding must fit after all halvings.
MIN_SIZE = 64

# Each stage is a list of layers; the features after it are compared. "c" is a convolution with the
# package's name for its weights, stride 1 and the given padding; "blur" halves the size after a
# binomial filter on a mirrored border; "max" is a maximum over k x k with stride 1.
_ALEX = (
    (("c", "slice1.0", 2), ("blur",), ("relu",)),
    (("max", 3), ("blur",), ("c", "slice2.5", 2), ("relu",)),
    (("max", 3), ("blur",), ("c", "slice3.9", 1), ("relu",)),
    (("c", "slice4.11", 1), ("relu",)),
    (("c", "slice5.13", 1), ("relu",)),
)
_VGG = (
    (("c", "slice1.0", 1), ("relu",), ("c", "slice1.2", 1), ("relu",)),
    (("max", 2), ("blur",), ("c", "slice2.6", 1), ("relu",), ("c", "slice2.8", 1), ("relu",)),
    *(
        (
            ("max", 2),
            ("blur",),
            *(step for k in (0, 2, 4) for step in (("c", f"slice{s}.{first + k}", 1), ("relu",))),
        )
        for s, first in ((3, 12), (4, 20), (5, 28))
    ),
)
_STAGES: dict[str, tuple[tuple[tuple[object, ...], ...], ...]] = {"alex": _ALEX, "vgg": _VGG}
_BORDER = 2


class ShiftTolerantLpips(nn.Module):
    """Distance of two images in the feature space of a frozen network.

    Args:
        net: "alex" (fast) or "vgg".
        weights: tensors of the package's file.
    """

    def __init__(self, net: PerceptualNet, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.net = net
        self._weights = {
            name: value.float().contiguous(memory_format=torch.channels_last)
            if value.ndim == 4
            else value.float()
            for name, value in weights.items()
        }
        taps = torch.tensor([1.0, 2.0, 1.0])
        self._blur = taps[:, None] * taps[None, :] / 16

    @property
    def description(self) -> str:
        """Name for protocols."""
        return f"ST-LPIPS {self.net} (stlpips_pytorch 0.0.2)"

    def features(self, image: Tensor) -> list[Tensor]:
        """Unit-length features after each stage: image [H, W, 3] in [0, 1] -> five [1, C, h, w]."""
        if min(image.shape[:2]) < MIN_SIZE:
            raise InputError(
                f"image: {tuple(image.shape[:2])}, ST-LPIPS needs {MIN_SIZE} px a side"
            )
        w = self._weights
        x = image.permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
        x = (2 * x - 1 - w["scaling_layer.shift"]) / w["scaling_layer.scale"]
        result = []
        for stage in _STAGES[self.net]:
            for step in stage:
                x = self._layer(step, x)
            norm = (x.square().sum(1, keepdim=True) + 1e-20).sqrt()
            result.append(x / (norm + 1e-10))
        return result

    def _layer(self, step: tuple[object, ...], x: Tensor) -> Tensor:
        kind = step[0]
        if kind == "relu":
            return functional.relu(x)
        if kind == "max":
            return functional.max_pool2d(x, int(str(step[1])), stride=1)
        if kind == "blur":
            channels = x.shape[1]
            padded = functional.pad(x, (_BORDER,) * 4, mode="reflect")
            kernel = self._blur.to(x).expand(channels, 1, 3, 3)
            return functional.conv2d(padded, kernel, stride=2, groups=channels)
        name = f"net.{step[1]}"
        return functional.conv2d(
            x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"],
            padding=int(str(step[2])),
        )  # fmt: skip

    def forward(self, image: Tensor, target: Tensor | list[Tensor]) -> Tensor:
        """Distance (a scalar, 0 for equal images); differentiable in ``image``.

        Args:
            image: [H, W, 3] in [0, 1].
            target: image of the same size, or its features().
        """
        total = image.new_zeros(())
        for plane in self.distance_maps(image, target):
            total = total + plane.mean()
        return total

    def distance_maps(self, image: Tensor, target: Tensor | list[Tensor]) -> list[Tensor]:
        """What each stage adds to the distance at each place, five [h, w]; arguments as forward().

        The distance is the sum of their means.
        """
        reference = target if isinstance(target, list) else self.features(target)
        return [
            functional.conv2d((x - y).square(), self._weights[f"lin{stage}.model.1.weight"])[0, 0]
            for stage, (x, y) in enumerate(zip(self.features(image), reference, strict=True))
        ]


def distance_in(maps: Sequence[Tensor], mask: Tensor) -> float:
    """The part of a distance that belongs to a mask [H, W] (bool): each stage's map is averaged
    with the share of the mask in each of its cells as weight; NaN where the mask is empty."""
    total = 0.0
    for plane in maps:
        size = (plane.shape[0], plane.shape[1])
        weight = functional.adaptive_avg_pool2d(mask[None, None].to(plane), size)[0, 0]
        total += float((plane * weight).sum() / weight.sum())
    return total


@lru_cache(maxsize=4)
def load_perceptual(net: PerceptualNet = "alex", device: str = "cpu") -> ShiftTolerantLpips:
    """Load the metric to a device. Raises MissingDependencyError if the package is absent."""
    package = importlib.util.find_spec("stlpips_pytorch")
    if package is None or not package.submodule_search_locations:
        raise MissingDependencyError("stlpips_pytorch", "the perceptual loss and metric", "train")
    folder = Path(next(iter(package.submodule_search_locations)))
    file = folder / "weights" / "vST0.0" / f"{net}_shift_tolerant.pth"
    if not file.is_file():
        raise InputError(f"{file}: missing; install stlpips_pytorch==0.0.2")
    weights = torch.load(file, map_location=device, weights_only=True)
    return ShiftTolerantLpips(net, weights).eval()
