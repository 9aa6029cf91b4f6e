"""``cag-avatar bench``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from cag_avatar_training.config import TrainConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.trainer import Trainer
from rich.console import Console
from rich.table import Table

from cag_avatar.avatar.animator import Animator
from cag_avatar.avatar.file import load_avatar
from cag_avatar.avatar.inference import PreparedAvatar
from cag_avatar.rendering.benchmark import RenderScene, head_scene, time_rendering
from cag_avatar.rendering.rasterizer import get_rasterizer
from cag_avatar_cli.options import Backend

#: Training iterations before the first that counts.
_WARM_UP = 20


def command(
    avatar: Annotated[Path | None, tyro.conf.Positional] = None,
    dataset: Path | None = None,
    size: int = 512,
    repetitions: int = 50,
    backend: Backend = "auto",
) -> None:
    """Median times of the stages, in one run on this machine.

    Args:
        avatar: *.cag file; without one, a synthetic head of 13,000 Gaussians.
        dataset: also time training iterations on this dataset, at 256 x 256, of frames that have
            been read before.
        size: width and height of the pictures.
        repetitions: of each measurement.
        backend: rasteriser.
    """
    console = Console()
    rasterizer = get_rasterizer(backend)
    table = Table(title=f"{rasterizer.name}, {torch.get_num_threads()} threads, {size} x {size}")
    table.add_column("stage")
    table.add_column("median ms", justify="right")
    if avatar is None:
        scene = head_scene(size=size)
    else:
        scene = _avatar_scene(avatar, size, table, repetitions, backend)
    times = time_rendering(rasterizer, scene, repetitions)
    count = len(scene.means)
    table.add_row(f"rasterise {count} Gaussians, forward", f"{times.forward_ms:.1f}")
    table.add_row(
        f"rasterise {count} Gaussians, forward + backward", f"{times.forward_backward_ms:.1f}"
    )
    if dataset is not None:
        trainer = Trainer(Dataset.open(dataset), TrainConfig(backend=backend))
        height = trainer.config.size_at(0)
        for iteration in range(_WARM_UP + repetitions):
            trainer.dataset.frame(trainer.frame_at(iteration), height)
        ms = _median(trainer.step, repetitions, warm_up=_WARM_UP)
        table.add_row(
            f"training iteration at {height} px ({1000 / ms:.1f} a second)",
            f"{ms:.1f}",
        )
    console.print(table)


def _avatar_scene(
    path: Path, size: int, table: Table, repetitions: int, backend: Backend
) -> RenderScene:
    animator = Animator(load_avatar(path), backend, (size, size))
    record = animator.record
    prepared = PreparedAvatar(load_avatar(path))
    code = torch.from_numpy(np.asarray(record.code_max, dtype=np.float32)) * 0.3
    head = torch.from_numpy(record.neutral_head_pose).float()
    torso = torch.from_numpy(record.neutral_torso_pose).float()
    with torch.inference_mode():
        ms = _median(lambda: prepared.gaussians(code, head, torso), repetitions)
        gaussians = prepared.gaussians(code, head, torso)
    table.add_row("animate (mesh, fusion, offsets)", f"{ms:.1f}")
    whole = _median(lambda: animator.render(code.numpy()), repetitions)
    table.add_row(f"whole frame ({1000 / whole:.0f} a second)", f"{whole:.1f}")
    return RenderScene(
        means=gaussians.means.clone(),
        quaternions=gaussians.quaternions.clone(),
        scales=gaussians.scales.clone(),
        opacities=gaussians.opacities.clone(),
        colors=gaussians.colors.clone(),
        view_matrix=torch.eye(4),
        camera=animator.camera,
        background=torch.ones(3),
    )


def _median(work: Callable[[], object], repetitions: int, warm_up: int = 3) -> float:
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
