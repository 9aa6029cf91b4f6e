"""Makes the low-rank basis that stands for an avatar's offset network live (``offset_basis.py``).

The network is run on sampled codes and poses, its offsets' main directions are kept, and Gaussians
are chosen from whose offsets the weights of those directions follow: discrete empirical
interpolation (Chaturantabut and Sorensen, SIAM J. Sci. Comput. 32, 2010), by pivoted QR.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray

from cag_avatar.avatar.inference import PreparedAvatar
from cag_avatar.avatar.model import Avatar
from cag_avatar.avatar.offset_basis import BLOCK, OffsetBasis
from cag_avatar.avatar.record import CaptureRecord
from cag_avatar.errors import InputError
from cag_avatar.fusion.offsets import NUM_OUTPUTS
from cag_avatar.geometry import rotation_vector_to_matrix

__all__ = ["DEFAULT_RANK", "fit_offset_basis", "quantised", "sample_driving"]

#: 53 dB against the network on a trained avatar of 13,394 Gaussians; 64 gave 50, 192 gave 55.
DEFAULT_RANK = 96
#: Codes that are sampled, and Gaussians that the network is run on, for each component.
_OVERSAMPLING = 4
#: Offsets that matter alike: metres, rotation, log-scale, colour.
_UNITS = (0.001,) * 3 + (0.05,) * 3 + (0.05,) * 3 + (0.02,) * 3


def sample_driving(
    record: CaptureRecord, count: int, generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Codes [count, E] and head poses [count, 4, 4] as an avatar meets them live.

    Half of the codes follow the distribution of the training codes, half are drawn coefficient by
    coefficient from their ranges. Heads turn and move within the ranges of training.
    """
    low, high = record.code_min, record.code_max
    codes = low + (high - low) * generator.random((count, len(low)))
    if record.distribution is not None:
        seen = record.distribution
        along = generator.normal(size=(count // 2, len(seen.deviation)))
        along = np.clip(along, seen.low, seen.high) * seen.deviation
        codes[: count // 2] = np.clip(
            seen.mean + along @ seen.basis, np.minimum(low, 0), np.maximum(high, 1)
        )
    motion = record.pose_min + (record.pose_max - record.pose_min) * generator.random((count, 6))
    poses = np.tile(record.neutral_head_pose, (count, 1, 1))
    turn = rotation_vector_to_matrix(torch.from_numpy(motion[:, :3])).numpy()
    poses[:, :3, :3] = turn @ poses[:, :3, :3]
    poses[:, :3, 3] += motion[:, 3:]
    return codes.astype(np.float32), poses.astype(np.float32)


@torch.inference_mode()
def fit_offset_basis(
    avatar: Avatar,
    rank: int = DEFAULT_RANK,
    samples: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> OffsetBasis:
    """Measure an avatar's offsets at sampled codes and keep their ``rank`` main directions.

    Args:
        avatar: with its capture record, on the CPU.
        rank: components; cut where the samples have fewer.
        samples: codes and poses to measure (sample_driving()); None: four times the rank.
        seed: of the samples.
        progress: called with the samples done and their number.

    Raises:
        InputError: the avatar has no record, or rank or samples make no sense.
    """
    if avatar.record is None:
        raise InputError("avatar: has no capture record, so no codes to sample; set .record")
    samples = _OVERSAMPLING * rank if samples is None else samples
    if not 1 <= rank <= 1024 or not rank < samples <= 100_000:
        raise InputError(f"rank {rank} must lie in 1 .. 1024, and samples {samples} above it")
    prepared = PreparedAvatar(avatar, dtype=torch.float32)
    own, n = prepared.avatar, avatar.num_gaussians
    codes, poses = sample_driving(avatar.record, samples, np.random.default_rng(seed))
    torso = torch.from_numpy(avatar.record.neutral_torso_pose.astype(np.float32))
    units = np.tile(np.asarray(_UNITS, np.float32), n)
    table = np.empty((samples, n * NUM_OUTPUTS), np.float32)
    for i in range(samples):
        raw = prepared.raw_offsets(torch.from_numpy(codes[i]), torch.from_numpy(poses[i]), torso)
        table[i] = (torch.tanh(raw) * own.offset_limits).numpy().ravel() / units
        if progress is not None:
            progress(i + 1, samples)
    mean = table.mean(0)
    table -= mean
    # The small Gram matrix has the same singular values; its vectors give the directions.
    values, vectors = np.linalg.eigh((table @ table.T).astype(np.float64))
    kept = np.argsort(values)[::-1][:rank]
    kept = kept[values[kept] > 1e-9 * values.max()]
    directions = (vectors[:, kept] / np.sqrt(values[kept])).T.astype(np.float32) @ table
    rows = _telling_rows(directions, n)
    known = directions.reshape(len(kept), n, NUM_OUTPUTS)[:, rows].reshape(len(kept), -1)
    solve = np.linalg.pinv(known.T.astype(np.float64)) / np.tile(_UNITS, len(rows))
    padding = -n % BLOCK
    physical = (directions * units).reshape(len(kept), n, NUM_OUTPUTS)
    levels, step = quantised(np.pad(physical, ((0, 0), (0, padding), (0, 0))))
    centre = np.pad((mean * units).reshape(n, NUM_OUTPUTS), ((0, padding), (0, 0))).T
    return OffsetBasis(
        np.ascontiguousarray(centre),
        levels,
        step,
        rows.astype(np.int32),
        solve.astype(np.float32),
        {"rank": len(kept), "samples": samples, "seed": seed},
    )


def _telling_rows(directions: NDArray[np.float32], gaussians: int) -> NDArray[np.int64]:
    """Gaussians that determine the weights of directions [K, 12 N] best, sorted."""
    remaining = directions.copy().reshape(len(directions), gaussians, NUM_OUTPUTS)
    chosen: set[int] = set()
    wanted = min(_OVERSAMPLING * len(directions), gaussians)
    while len(chosen) < wanted:
        flat = remaining.reshape(len(directions), -1)
        # The most telling of those left: only they can be pivots, and QR of all takes seconds.
        strongest = np.argsort((flat * flat).sum(0))[::-1][: 64 * len(directions)]
        _, pivot = scipy.linalg.qr(flat[:, strongest], mode="r", pivoting=True)
        new = list(dict.fromkeys(strongest[pivot[: len(directions)]] // NUM_OUTPUTS))
        chosen.update(int(g) for g in new[: wanted - len(chosen)])
        remaining[:, new] = 0
    return np.array(sorted(chosen))


def quantised(basis: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Basis [K, padded N, 12] -> levels [N / BLOCK, 12, K, BLOCK] and steps [N / BLOCK, 12, K]."""
    blocks = basis.reshape(len(basis), -1, BLOCK, NUM_OUTPUTS).transpose(1, 3, 0, 2)
    step = np.abs(blocks).max(-1) / 127
    levels = np.rint(blocks / np.maximum(step, 1e-30)[..., None]).astype(np.int8)
    return np.ascontiguousarray(levels), np.ascontiguousarray(step, np.float32)
