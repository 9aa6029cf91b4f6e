"""How long a live frame takes, stage by stage, and what it costs with more Gaussians and pixels."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cag_avatar.avatar.compiled import CompiledAvatar
from cag_avatar.avatar.distillation import quantised, sample_driving
from cag_avatar.avatar.fidelity import plain_picture
from cag_avatar.avatar.model import Avatar
from cag_avatar.avatar.offset_basis import BLOCK, OffsetBasis
from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.rendering.rasterizer import Backend

__all__ = [
    "EXPONENT_RANGE",
    "FrameTimes",
    "bench_live",
    "cost_exponent",
    "driving_of",
    "first_frame",
    "resampled",
    "time_frames",
]

#: Different codes and poses that are drawn in turn.
_CODES = 16
#: Gaussian counts from which the cost exponent is taken.
EXPONENT_RANGE = (13_000, 100_000)


class FrameTimes:
    """Times of frames, milliseconds; ``stages`` [T] by name, ``whole`` [T]."""

    def __init__(self) -> None:
        self.whole: list[float] = []
        self.stages: dict[str, list[float]] = {}

    def add(self, whole: float, stages: dict[str, float]) -> None:
        """Seconds of one frame."""
        self.whole.append(1e3 * whole)
        for name, seconds in stages.items():
            self.stages.setdefault(name, []).append(1e3 * seconds)

    def summary(self) -> dict[str, Any]:
        """Medians and 95th percentiles, milliseconds, and frames a second at the median."""
        median = float(np.median(self.whole))
        return {
            "frame_ms": {"median": median, "p95": float(np.percentile(self.whole, 95))},
            "fps": 1e3 / median,
            "stages_ms": {
                name: {"median": float(np.median(v)), "p95": float(np.percentile(v, 95))}
                for name, v in self.stages.items()
            },
        }


def driving_of(avatar: Avatar, count: int = _CODES) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [count, E] and head poses [count, 4, 4] to time, and the torso's pose [4, 4].

    Raises:
        InputError: the avatar has no record.
    """
    record = avatar.record
    if record is None:
        raise InputError("avatar: has no capture record, so no codes to sample; set .record")
    codes, poses = sample_driving(record, count, np.random.default_rng(2))
    torso = torch.from_numpy(record.neutral_torso_pose.astype(np.float32))
    return torch.from_numpy(codes), torch.from_numpy(poses), torso


def time_frames(
    avatar: Avatar, camera: PinholeCamera, repetitions: int, threads: int | None = None
) -> FrameTimes:
    """Time the live path of an avatar, code to uint8 picture; stages as in compiled.STAGES, and
    ``drive`` for what precedes them (tokens, weights of the basis or network, joints)."""
    codes, poses, torso = driving_of(avatar)
    with _torch_threads(threads):
        live = CompiledAvatar(avatar, camera, basis=avatar.live_basis, threads=threads)
        out = np.empty((camera.height, camera.width, 3), np.uint8)
        times = FrameTimes()
        for i in range(repetitions + 3):
            start = time.perf_counter()
            live.render(codes[i % _CODES], poses[i % _CODES], torso, out)
            whole = time.perf_counter() - start
            if i >= 3:
                stages = live.stages
                times.add(whole, {"drive": whole - sum(stages.values()), **stages})
    return times


def time_plain(avatar: Avatar, camera: PinholeCamera, repetitions: int) -> list[float]:
    """Milliseconds of frames as training computes them (fidelity.plain_picture())."""
    codes, poses, torso = driving_of(avatar)
    avatar = avatar.eval()
    laps = []
    for i in range(repetitions + 2):
        start = time.perf_counter()
        plain_picture(avatar, codes[i % _CODES], poses[i % _CODES], torso, camera)
        laps.append(1e3 * (time.perf_counter() - start))
    return laps[2:]


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def resampled(avatar: Avatar, uv_resolution: int) -> Avatar:
    """The avatar with Gaussians at another density of the UV atlas, to see what they cost.

    Each takes the attributes, and the rows of the live basis, of the trained one that is nearest at
    rest; scales shrink as the distance between neighbours does.
    """
    config = replace(avatar.config, uv_resolution=uv_resolution)
    made = Avatar(config, avatar.head, avatar.rest, record=avatar.record).eval()
    points = avatar.binding.rest_points.numpy()
    _, nearest = cKDTree(points).query(made.binding.rest_points.numpy())
    index = torch.from_numpy(nearest)
    shrink = 0.5 * np.log(made.num_gaussians / avatar.num_gaussians)
    with torch.no_grad():
        for name, value in avatar.attributes.named_parameters():
            getattr(made.attributes, name).copy_(value[index])
        made.attributes.log_scale.sub_(shrink)
        made.fusion.load_state_dict(avatar.fusion.state_dict())
        made.network.load_state_dict(avatar.network.state_dict())
        if made.local is not None and avatar.local is not None:
            made.local.weight.copy_(avatar.local.weight[index])
    basis = avatar.live_basis
    if basis is not None:
        made.live_basis = _resampled_basis(basis, nearest)
    return made.requires_grad_(False)


def _resampled_basis(basis: OffsetBasis, nearest: NDArray[np.integer]) -> OffsetBasis:
    """Rows ``nearest`` [N] of a basis; the network is run on as many Gaussians as before."""
    count = len(nearest)
    blocks = -(-count // BLOCK)
    rows = np.concatenate([nearest, np.zeros(blocks * BLOCK - count, nearest.dtype)])
    block, lane = rows // BLOCK, rows % BLOCK
    values = basis.levels[block, :, :, lane] * basis.step[block]  # [N, 12, K]
    levels, step = quantised(values.transpose(2, 0, 1))
    first = {int(g): i for i, g in reversed(list(enumerate(nearest)))}
    # A Gaussian that nobody is nearest to is asked for through any other: times stay true.
    asked = np.array([first.get(int(g), 0) for g in basis.rows], np.int32)
    return replace(
        basis,
        mean=np.ascontiguousarray(basis.mean[:, rows]),
        levels=levels,
        step=step,
        rows=asked,
    )


def cost_exponent(counts: list[int], milliseconds: list[float]) -> float:
    """Exponent e of time ~ count^e, least squares over logarithms. Needs two counts."""
    slope, _ = np.polyfit(np.log(counts), np.log(milliseconds), 1)
    return float(slope)


_FIRST_FRAME = """
import json, sys, time
start = float(sys.argv[3])
from cag_avatar.avatar.animator import Animator
animator = Animator.load(sys.argv[1], sys.argv[4], (int(sys.argv[2]),) * 2)
animator.render(animator.rest_code)
first = time.time() - start
for _ in range(30):
    animator.render(animator.rest_code)
# Not getrusage(): its maximum begins with that of the process that started this one.
with open("/proc/self/status") as status:
    peak = next(line for line in status if line.startswith("VmHWM"))
print(json.dumps({"first_frame_s": first, "rss_mb": int(peak.split()[1]) / 1024}))
"""


def first_frame(path: Path | str, size: int, backend: Backend = "cpu") -> dict[str, float]:
    """Start a process that loads an avatar file and draws: seconds from its start to the first
    picture, and its largest resident memory after 30 more, MiB."""
    command = [
        sys.executable, "-c", _FIRST_FRAME, str(path), str(size), repr(time.time()), backend,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(f"{path}: the process that draws it failed: {lines[-1]}")
    values: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return values


def bench_live(
    avatar: Avatar,
    path: Path | str,
    size: int = 512,
    repetitions: int = 60,
    resolutions: tuple[int, ...] = (64, 96, 128, 192, 256, 352),
    sizes: tuple[int, ...] = (256, 512, 768, 1024),
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """All figures of the live path on this machine, in one run.

    Args:
        avatar: on the CPU.
        path: its file, for the start of a fresh process.
        size: side of the pictures, pixels.
        repetitions: frames of each measurement.
        resolutions: of the UV atlas, for the cost of Gaussians.
        sizes: of the pictures, for the cost of pixels.
        note: told what is measured.

    Returns:
        Plain JSON values: fps, ratio_to_plain, rss_mb, first_frame_s, stages_ms, cost_exponent, and
        the curves behind them.

    Raises:
        InputError: the avatar has no record.
        NativeUnavailableError: the compiled renderer cannot be used here.
    """
    if avatar.record is None:
        raise InputError("avatar: has no capture record, so no camera; set .record")
    camera = avatar.record.camera
    note("live and plain frames, in turns")
    parts, plain = [], []
    for _ in range(4):  # in turns, so that both meet the same machine
        parts.append(time_frames(avatar, camera.resized(size, size), max(1, repetitions // 4)))
        plain += time_plain(avatar, camera.resized(size, size), max(1, repetitions // 12))
    times = FrameTimes()
    for part in parts:
        times.whole += part.whole
        for name, values in part.stages.items():
            times.stages.setdefault(name, []).extend(values)
    live = times.summary()
    plain_ms = float(np.median(plain))
    note("one thread")
    single = time_frames(avatar, camera.resized(size, size), repetitions, threads=1).summary()
    curve = []
    for resolution in resolutions:
        dense = resampled(avatar, resolution)
        note(f"{dense.num_gaussians:,} Gaussians")
        found = time_frames(dense, camera.resized(size, size), repetitions).summary()
        curve.append({"gaussians": dense.num_gaussians, **found})
    pixels = []
    for side in sizes:
        note(f"{side} x {side} pixels")
        found = time_frames(avatar, camera.resized(side, side), repetitions).summary()
        pixels.append({"size": side, **found})
    note("start of a fresh process")
    low, high = EXPONENT_RANGE
    within = [c for c in curve if 0.9 * low <= c["gaussians"] <= 1.1 * high]
    exponent = None
    if len(within) > 1:
        exponent = cost_exponent(
            [c["gaussians"] for c in within], [c["frame_ms"]["median"] for c in within]
        )
    return {
        **live,
        **first_frame(path, size),
        "gaussians": avatar.num_gaussians,
        "size": size,
        "threads": torch.get_num_threads(),
        "live_basis": None if avatar.live_basis is None else avatar.live_basis.rank,
        "plain_ms": plain_ms,
        "ratio_to_plain": plain_ms / live["frame_ms"]["median"],
        "one_thread": single,
        "cost_exponent": exponent,
        "by_gaussians": curve,
        "by_size": pixels,
    }
