"""The network that reads a picture of the face beside the landmarks, and its training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from cag_avatar_training.landmark_correction.config import CorrectionConfig
from cag_avatar_training.landmark_correction.descent import (
    descend,
    perceptron,
    perceptron_arrays,
)
from numpy.typing import NDArray
from torch import Tensor, nn

from cag_avatar.tracking.face_pictures import (
    FACE_SIDE,
    MOUTH_SHAPE,
    PLANES,
    FacePlanes,
    network_planes,
)

__all__ = ["PictureExamples", "train_picture_network"]

#: Channels of the convolutions on the picture of the face and of the mouth; numbers that each says.
_FACE_CHANNELS, _MOUTH_CHANNELS, _READ = (16, 32, 64, 64), (16, 32, 64), 128
#: Changes of the contrast of both pictures and of the shown one alone, of its brightness, and of
#: single pixels, in units of the person's contrast: cameras differ more than rendered pictures.
_CONTRAST, _OWN_CONTRAST, _BRIGHTNESS, _GRAIN = 0.15, 0.05, 0.1, 0.05
#: Share of the steps in which the learning rate rises.
_WARM_UP = 0.05


@dataclass(frozen=True)
class PictureExamples:
    """Pictures of N examples, shared by those that are mirror images of each other."""

    planes: FacePlanes
    """Of M pictures."""
    typical: FacePlanes
    """Of S persons, one picture each."""
    picture: NDArray[np.int64]
    """Of each example, [N] in 0..M-1."""
    person: NDArray[np.int64]
    """Of each example, [N] in 0..S-1."""
    mirrored: NDArray[np.bool_]
    """Whether an example shows the mirror image, [N]."""


def train_picture_network(
    inputs: Tensor,
    targets: Tensor,
    pictures: PictureExamples,
    loss: Callable[[Tensor, Tensor], Tensor],
    config: CorrectionConfig,
    progress: Callable[[int, int], None] | None,
) -> dict[str, NDArray]:
    """Train towers and layers together.

    Args:
        inputs: what the landmarks say of N examples, [N, I].
        targets: [N, O].
        pictures: of the examples.
        loss: of outputs and targets.
        config: of the training.
        progress: called with steps done and their number.

    Returns:
        Arrays as ``PictureReader`` and ``LandmarkCorrection`` name them.
    """
    shown = [torch.from_numpy(x) for x in (pictures.planes.face, pictures.planes.mouth)]
    usual = [torch.from_numpy(x) for x in (pictures.typical.face, pictures.typical.mouth)]
    picture, person = torch.from_numpy(pictures.picture), torch.from_numpy(pictures.person)
    mirrored = torch.from_numpy(pictures.mirrored)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = _Network(inputs.shape[1], targets.shape[1], config)

        def miss(index: Tensor) -> Tensor:
            flip = mirrored[index]
            planes = [_flipped(x[picture[index]], flip) for x in shown]
            typical = [_flipped(x[person[index]], flip) for x in usual]
            seen = [_varied(network_planes(*x)) for x in zip(planes, typical, strict=True)]
            x = inputs[index]
            x = x + config.input_noise * torch.randn_like(x)
            return loss(network(x, *seen), targets[index])

        descend(network, _one_cycle, miss, len(inputs), config, progress)
    return network.arrays()


def _one_cycle(
    optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    rate = optimizer.param_groups[0]["lr"]
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=_WARM_UP
    )


class _Tower(nn.Module):
    def __init__(self, channels: tuple[int, ...], shape: tuple[int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, (height, width) = 2 * PLANES, shape
        for after in channels:
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.SiLU()]
            before, height, width = after, -(-height // 2), -(-width // 2)
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(before * height * width, _READ)

    def forward(self, planes: Tensor) -> Tensor:
        return self.out(self.layers(planes).flatten(1))  # type: ignore[no-any-return]

    def arrays(self, name: str) -> dict[str, NDArray]:
        """With each batch normalization folded into its convolution."""
        out = {f"{name}.weight": _numbers(self.out.weight), f"{name}.bias": _numbers(self.out.bias)}
        layers: list[Any] = list(self.layers)
        for k, (conv, norm) in enumerate(zip(layers[::3], layers[1::3], strict=True)):
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            bias = (conv.bias - norm.running_mean) * scale + norm.bias
            out[f"{name}{k}.weight"] = _numbers(conv.weight * scale[:, None, None, None])
            out[f"{name}{k}.bias"] = _numbers(bias)
        return out


class _Network(nn.Module):
    def __init__(self, inputs: int, outputs: int, config: CorrectionConfig) -> None:
        super().__init__()
        self.face = _Tower(_FACE_CHANNELS, (FACE_SIDE, FACE_SIDE))
        self.mouth = _Tower(_MOUTH_CHANNELS, MOUTH_SHAPE)
        self.drop = nn.Dropout(config.dropout)
        self.layers = perceptron(inputs + 2 * _READ, outputs, config)

    def forward(self, inputs: Tensor, face: Tensor, mouth: Tensor) -> Tensor:
        read = self.drop(torch.cat([self.face(face), self.mouth(mouth)], 1))
        return self.layers(torch.cat([inputs, read], 1))  # type: ignore[no-any-return]

    def arrays(self) -> dict[str, NDArray]:
        towers = self.face.arrays("face") | self.mouth.arrays("mouth")
        return towers | perceptron_arrays(self.layers)


def _numbers(value: Tensor) -> NDArray[Any]:
    return value.detach().numpy().copy()


def _flipped(planes: Tensor, mirrored: Tensor) -> Tensor:
    return torch.where(mirrored[:, None, None, None], planes.flip(-1), planes)


def _varied(planes: Tensor) -> Tensor:
    """Contrast, brightness and grain as cameras differ; [B, 2 * PLANES, H, W]."""
    change, usual = planes[:, :PLANES], planes[:, PLANES:]
    count = (len(planes), PLANES, 1, 1)
    common = 1 + _CONTRAST * torch.randn(count)
    usual = usual * common
    shown = (change * common + usual) * (1 + _OWN_CONTRAST * torch.randn(count))
    shown = shown + _BRIGHTNESS * torch.randn(count)
    grain = _GRAIN * torch.rand(len(planes), 1, 1, 1)
    return torch.cat([shown + grain * torch.randn_like(shown) - usual, usual], 1)
