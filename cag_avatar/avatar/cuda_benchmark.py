"""How long a live frame takes on a CUDA device: stages, one picture, many, and several avatars.

Times of the device are by CUDA events. Each stage is a CUDA graph of its own here, so that their
sum is a little more than the one graph that is drawn live.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cag_avatar.avatar.benchmark import (
    EXPONENT_RANGE,
    FrameTimes,
    cost_exponent,
    driving_of,
    first_frame,
    resampled,
)
from cag_avatar.avatar.cuda_avatar import CudaAvatar, Driving
from cag_avatar.avatar.graph_runner import full_precision
from cag_avatar.avatar.model import Avatar
from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.rendering.rasterizer import get_rasterizer

__all__ = ["bench_cuda", "time_cuda_frames", "time_stages", "time_stream"]

_WARM_UP = 3


def _frames(avatar: Avatar, batch: int, count: int) -> list[Driving]:
    """``count`` batches of different codes and poses."""
    codes, poses, torso = driving_of(avatar, batch * count)
    return [
        (codes[n : n + batch], poses[n : n + batch], torso) for n in range(0, batch * count, batch)
    ]


def time_cuda_frames(live: CudaAvatar, repetitions: int) -> FrameTimes:
    """Frames one by one, code to uint8 picture on the host. Parts: ``draw`` and ``read-back`` by
    events, ``fill`` for the rest: launching, waiting, writing into the message."""
    frames = _frames(live.avatar, 1, 16)
    out = np.empty((1, live.camera.height, live.camera.width, 3), np.uint8)
    times = FrameTimes()
    for i in range(repetitions + _WARM_UP):
        start = time.perf_counter()
        live.render_batch(*frames[i % len(frames)], out)
        whole = time.perf_counter() - start
        if i >= _WARM_UP:
            stages = live.stages
            times.add(whole, {**stages, "fill": whole - sum(stages.values())})
    return times


@torch.no_grad()
def time_stages(live: CudaAvatar, repetitions: int) -> dict[str, list[float]]:
    """Milliseconds of each part of a frame on the device (frame_program.STAGES), by events."""
    program = live.program(1)
    inputs = torch.from_numpy(live.example(program)).to(program.device)
    stream = torch.cuda.Stream(program.device)
    stream.wait_stream(torch.cuda.current_stream(program.device))
    parts = program.stages(inputs)
    graphs: dict[str, torch.cuda.CUDAGraph] = {}
    with full_precision():
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                for _, part in parts:
                    part()
        stream.synchronize()
        for name, part in parts:
            graphs[name] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graphs[name], stream=stream, capture_error_mode="thread_local"):
                part()
    laps: dict[str, list[float]] = {name: [] for name in graphs}
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(len(graphs) + 1)]
    for i in range(repetitions + _WARM_UP):
        with torch.cuda.stream(stream):
            marks[0].record(stream)
            for mark, graph in zip(marks[1:], graphs.values(), strict=True):
                graph.replay()
                mark.record(stream)
        marks[-1].synchronize()
        if i >= _WARM_UP:
            for name, before, after in zip(graphs, marks, marks[1:], strict=False):
                laps[name].append(before.elapsed_time(after))
    return laps


def time_stream(live: CudaAvatar, batch: int, repetitions: int) -> float:
    """Pictures a second of ``batch`` together, read-back overlapped with the next batch."""
    frames = _frames(live.avatar, batch, 4)
    given = (frames[i % len(frames)] for i in range(repetitions + _WARM_UP))
    pictures = live.stream(given)
    for _ in islice(pictures, _WARM_UP):
        pass
    start = time.perf_counter()
    count = sum(len(p) for p in pictures)
    return count / (time.perf_counter() - start)


@torch.no_grad()
def _time_plain(avatar: Avatar, camera: PinholeCamera, repetitions: int) -> list[float]:
    """Milliseconds of frames as training computes them on the device: network in float32, nothing
    kept, gsplat as it comes, read back."""
    device = torch.device("cuda")
    own = copy.deepcopy(avatar).to(device).eval()
    rasterizer = get_rasterizer("cuda")
    view, white = torch.eye(4, device=device), torch.ones(3, device=device)
    laps = []
    for i, (code, pose, torso) in enumerate(_frames(avatar, 1, repetitions + _WARM_UP)):
        start = time.perf_counter()
        given = (torch.as_tensor(v).to(device) for v in (code[0], pose[0], torso))
        g = own.gaussians(*given)
        image = rasterizer.render(
            g.means, g.quaternions, g.scales, g.opacities, g.colors, view, camera, white
        ).image
        image.mul(255).add_(0.5).clamp_(0, 255).to(torch.uint8).cpu()
        if i >= _WARM_UP:
            laps.append(1e3 * (time.perf_counter() - start))
    return laps


def bench_cuda(
    avatar: Avatar,
    path: Path | str,
    size: int = 512,
    repetitions: int = 60,
    resolutions: tuple[int, ...] = (64, 96, 128, 192, 256, 352),
    sizes: tuple[int, ...] = (256, 512, 768, 1024),
    batch: int = 16,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """All figures of the live path on this CUDA device, in one run.

    Args:
        avatar: on the CPU.
        path: its file, for the start of a fresh process.
        size: side of the pictures, pixels.
        repetitions: frames of each measurement.
        resolutions: of the UV atlas, for the cost of Gaussians.
        sizes: of the pictures, for the cost of pixels.
        batch: pictures drawn together: of one avatar, and of as many avatars.
        note: told what is measured.

    Returns:
        Plain JSON values with the keys of ``bench_live``, but ``one_thread`` is None, and
        ``device`` (the card's name), ``stream_fps`` (frames a second with overlapped read-back),
        ``device_stages_ms`` (by stage, on the device alone) and ``batch`` ({size, views_per_s,
        avatars_per_s}: pictures a second of one avatar, and of as many avatars). ``fps`` is of
        frames one by one.

    Raises:
        InputError: the avatar has no record, or the CUDA device cannot be used.
        MissingDependencyError: gsplat is not installed.
    """
    if avatar.record is None:
        raise InputError("avatar: has no capture record, so no camera; set .record")
    of_size = avatar.record.camera.resized
    note("live and plain frames")
    drawn = CudaAvatar(avatar, of_size(size, size))
    live = time_cuda_frames(drawn, repetitions).summary()
    plain_ms = float(np.median(_time_plain(avatar, of_size(size, size), max(3, repetitions // 3))))
    stages = {
        name: {"median": float(np.median(v)), "p95": float(np.percentile(v, 95))}
        for name, v in time_stages(drawn, repetitions).items()
    }
    streamed = time_stream(drawn, 1, 10 * repetitions)
    note(f"{batch} together")
    views = time_stream(drawn, batch, repetitions)
    several = CudaAvatar([avatar] * batch, of_size(size, size))
    persons = time_stream(several, batch, repetitions)
    del several
    curve, pixels = [], []
    for resolution in resolutions:
        dense = resampled(avatar, resolution)
        note(f"{dense.num_gaussians:,} Gaussians")
        found = time_cuda_frames(CudaAvatar(dense, of_size(size, size)), repetitions).summary()
        curve.append({"gaussians": dense.num_gaussians, **found})
    for side in sizes:
        note(f"{side} x {side} pixels")
        found = time_cuda_frames(CudaAvatar(avatar, of_size(side, side)), repetitions).summary()
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
        **first_frame(path, size, "cuda"),
        "device": torch.cuda.get_device_name(),
        "device_stages_ms": stages,
        "stream_fps": streamed,
        "batch": {"size": batch, "views_per_s": views, "avatars_per_s": persons},
        "gaussians": avatar.num_gaussians,
        "size": size,
        "threads": torch.get_num_threads(),
        "live_basis": None,
        "plain_ms": plain_ms,
        "ratio_to_plain": plain_ms / live["frame_ms"]["median"],
        "one_thread": None,
        "cost_exponent": exponent,
        "by_gaussians": curve,
        "by_size": pixels,
    }
