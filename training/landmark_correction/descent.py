"""What the two networks of the landmark correction share: their last layers, and how they learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from cag_avatar_training.landmark_correction.config import CorrectionConfig
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["descend", "perceptron", "perceptron_arrays"]


def perceptron(inputs: int, outputs: int, config: CorrectionConfig) -> nn.Sequential:
    """Two hidden layers."""
    hidden = config.hidden
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Dropout(config.dropout),
        nn.Linear(hidden, hidden), nn.SiLU(), nn.Dropout(config.dropout),
        nn.Linear(hidden, outputs),
    )  # fmt: skip


def perceptron_arrays(network: nn.Sequential) -> dict[str, NDArray[Any]]:
    """Its layers as ``LandmarkCorrection`` names them."""
    arrays = {}
    for k, layer in enumerate(x for x in network if isinstance(x, nn.Linear)):
        arrays[f"weight{k}"] = layer.weight.detach().numpy()
        arrays[f"bias{k}"] = layer.bias.detach().numpy()
    return arrays


def descend(
    network: nn.Module,
    schedule: Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler],
    loss: Callable[[Tensor], Tensor],
    count: int,
    config: CorrectionConfig,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Train a network in batches drawn anew in every epoch; at last it is in evaluation mode.

    Args:
        network: to train.
        schedule: of the learning rate, from the optimizer and the number of steps.
        loss: of some of the examples, by their numbers [B].
        count: number of examples.
        config: of the training.
        progress: called with steps done and their number.
    """
    optimizer = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    steps = config.epochs * -(-count // config.batch)
    rate = schedule(optimizer, steps)
    network.train()
    done = 0
    for _ in range(config.epochs):
        for index in torch.randperm(count).split(config.batch):
            miss = loss(index)
            optimizer.zero_grad()
            miss.backward()
            optimizer.step()
            rate.step()
            done += 1
            if progress is not None and (done % 20 == 0 or done == steps):
                progress(done, steps)
    network.eval()
