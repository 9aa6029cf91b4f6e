"""``cag-avatar bench``."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from cag_avatar_training.config import TrainConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.trainer import Trainer
from rich.console import Console
from rich.table import Table

from cag_avatar.avatar.benchmark import bench_live
from cag_avatar.avatar.cuda_benchmark import bench_cuda
from cag_avatar.avatar.file import load_avatar
from cag_avatar.errors import InputError
from cag_avatar.files import replacing
from cag_avatar.native.library import NativeUnavailableError
from cag_avatar.rendering.benchmark import head_scene, time_rendering
from cag_avatar.rendering.rasterizer import get_rasterizer
from cag_avatar_cli.options import Backend

#: Training iterations before the first that counts.
_WARM_UP = 20


def command(
    avatar: Annotated[Path | None, tyro.conf.Positional] = None,
    dataset: Path | None = None,
    size: int = 512,
    repetitions: int = 60,
    backend: Annotated[Backend, tyro.conf.arg(aliases=["--device"])] = "auto",
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    plot: Path | None = None,
) -> None:
    """Time the live path of an avatar, the rasteriser, and training, in one run on this machine.

    Without an avatar, the rasteriser alone, on a synthetic head of 13,000 Gaussians. With one: each
    stage of a live frame (median and 95th percentile), the ratio to the plain path (float32, the
    training-time network, one step after the other; both measured in turns), one thread, the cost
    of 3,000 to 100,000 Gaussians and of 256 to 1024 pixels, and the start of a fresh process; on a
    CUDA device its stages by events, frames with overlapped read-back, and batches of 16 views and
    of 16 avatars. Other programs that use the cores make all of it slower.

    Args:
        avatar: *.cag file.
        dataset: also time training iterations on this dataset, at 256 x 256 and 512 x 512, of
            frames that have been read before.
        size: width and height of the pictures.
        repetitions: of each measurement.
        backend: rasteriser.
        json_path: file to write the live figures to.
        plot: PNG file to draw the cost of Gaussians and pixels in; needs pip install
            'cag_avatar[attention]'.
    """
    console = Console()
    rasterizer = get_rasterizer(backend)
    threads = torch.get_num_threads()
    if avatar is not None:
        if rasterizer.name == "torch":
            raise InputError("bench: torch has no live path: pass --backend cpu or cuda")
        measure = bench_cuda if rasterizer.name == "cuda" else bench_live
        opened = load_avatar(avatar)
        try:
            with console.status("starting") as status:
                figures = measure(
                    opened, avatar, size, repetitions, note=lambda text: status.update(text)
                )
        except NativeUnavailableError as error:
            raise InputError(f"the compiled renderer cannot be used here: {error}") from error
        _print_live(console, figures)
        if json_path is not None:
            with replacing(json_path) as temporary:
                temporary.write_text(json.dumps(figures, indent=2) + "\n")
            print(f"figures: {json_path}")
        if plot is not None:
            from cag_avatar.insight.cost_curves import draw_cost_curves

            draw_cost_curves(figures, plot)
            print(f"curves: {plot}")
    table = Table(title=f"{rasterizer.name} rasteriser, {threads} threads, {size} x {size}")
    table.add_column("stage")
    table.add_column("median ms", justify="right")
    scene = head_scene(size=size)
    times = time_rendering(rasterizer, scene, repetitions)
    count = len(scene.means)
    table.add_row(f"rasterise {count} Gaussians, forward", f"{times.forward_ms:.1f}")
    table.add_row(
        f"rasterise {count} Gaussians, forward + backward", f"{times.forward_backward_ms:.1f}"
    )
    if dataset is not None:
        for height in (256, 512):
            ms = _training_iteration(Dataset.open(dataset), height, repetitions, backend)
            table.add_row(
                f"training iteration at {height} px ({1000 / ms:.1f} a second)", f"{ms:.1f}"
            )
    console.print(table)


def _print_live(console: Console, figures: dict[str, Any]) -> None:
    device = figures.get("device")
    table = Table(
        title=f"live frame, {figures['gaussians']:,} Gaussians, {figures['size']} x "
        f"{figures['size']}, " + (f"{figures['threads']} threads" if device is None else device)
    )
    table.add_column("stage")
    table.add_column("median ms", justify="right")
    table.add_column("p95 ms", justify="right")
    rows = {**figures["stages_ms"], "whole frame": figures["frame_ms"]}
    parts = figures.get("device_stages_ms", {})
    rows |= {f"draw: {name}": value for name, value in parts.items()}
    for name, value in rows.items():
        table.add_row(name, f"{value['median']:.2f}", f"{value['p95']:.2f}")
    console.print(table)
    exponent = figures["cost_exponent"]
    if device is None:
        more = f"; one thread {figures['one_thread']['frame_ms']['median']:.1f} ms"
    else:
        batch = figures["batch"]
        more = (
            f"; {figures['stream_fps']:.0f} frames/s with overlapped read-back; "
            f"{batch['size']} together: {batch['views_per_s']:.0f} pictures/s of one avatar, "
            f"{batch['avatars_per_s']:.0f} of as many avatars"
        )
    lines = [
        f"{figures['fps']:.0f} frames/s, {figures['ratio_to_plain']:.1f} x the plain path "
        f"({figures['plain_ms']:.1f} ms){more}",
        f"first picture {figures['first_frame_s']:.1f} s after the start of a process, "
        f"{figures['rss_mb']:.0f} MiB resident",
        "Gaussians: "
        + ", ".join(
            f"{c['gaussians']:,} {c['frame_ms']['median']:.1f} ms" for c in figures["by_gaussians"]
        ),
        "cost exponent from 13,000 to 100,000 Gaussians: "
        + ("not measured" if exponent is None else f"{exponent:.2f}"),
        "pixels: "
        + ", ".join(f"{c['size']} {c['frame_ms']['median']:.1f} ms" for c in figures["by_size"]),
    ]
    for line in lines:
        console.print(line)


def _training_iteration(dataset: Dataset, height: int, repetitions: int, backend: Backend) -> float:
    """Median milliseconds of a training iteration at one resolution."""
    trainer = Trainer(dataset, TrainConfig(backend=backend, sizes=((0.0, height),)))
    for iteration in range(_WARM_UP + repetitions):
        trainer.dataset.frame(trainer.frame_at(iteration), height)
    return _median(trainer.step, repetitions, warm_up=_WARM_UP)


def _median(work: Callable[[], object], repetitions: int, warm_up: int = 3) -> float:
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
