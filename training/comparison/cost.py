"""What a fusion and its network cost when an avatar is driven."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from cag_avatar.avatar.inference import PreparedAvatar
from cag_avatar.avatar.model import Avatar

__all__ = ["InferenceCost", "inference_costs"]

_ROUNDS = 30
_WARM_UP = 5


@dataclass(frozen=True)
class InferenceCost:
    """Of one avatar, driven with everything kept that does not depend on the frame."""

    network_ms: float
    """Time from code and poses to the offsets of all Gaussians: median of 30 frames, ms."""
    parameters: int
    """Numbers learned in fusion, offset network and the Gaussians' own matrices."""
    multiply_adds: float
    """Multiplications of matrix products per Gaussian and frame."""
    gaussians: int
    """Number of Gaussians."""
    dtype: str
    """Of the network when it was timed."""


def inference_costs(avatars: Mapping[str, Avatar]) -> dict[str, InferenceCost]:
    """Time avatars on this machine's CPU, turn by turn so that its moods fall on all alike.

    Args:
        avatars: by name, with their records.
    """
    prepared = {name: PreparedAvatar(avatar) for name, avatar in avatars.items()}
    frames = {}
    for name, avatar in avatars.items():
        assert avatar.record is not None
        poses = (avatar.record.neutral_head_pose, avatar.record.neutral_torso_pose)
        middle = (avatar.record.code_min + avatar.record.code_max) / 2
        values = [torch.from_numpy(np.asarray(v, np.float32)) for v in (middle, *poses)]
        frames[name] = (values[0], values[1], values[2])
    times: dict[str, list[float]] = {name: [] for name in avatars}
    for turn in range(_WARM_UP + _ROUNDS):
        for name, avatar_ in prepared.items():
            start = time.perf_counter()
            avatar_.raw_offsets(*frames[name])
            if turn >= _WARM_UP:
                times[name].append(time.perf_counter() - start)
    costs = {}
    for name, avatar_ in prepared.items():
        own = avatar_.avatar
        counted = PreparedAvatar(avatars[name], torch.float32)  # compiled code is not seen
        with FlopCounterMode(display=False) as counter:
            counted.raw_offsets(*frames[name])
        learned = [*own.fusion.parameters(), *own.network.parameters()]
        learned += [] if own.local is None else list(own.local.parameters())
        costs[name] = InferenceCost(
            network_ms=round(1000 * float(np.median(times[name])), 3),
            parameters=sum(p.numel() for p in learned),
            multiply_adds=round(counter.get_total_flops() / 2 / own.num_gaussians, 1),
            gaussians=own.num_gaussians,
            dtype=str(avatar_.dtype).removeprefix("torch."),
        )
    return costs
