"""``cag-avatar demo``: the whole path on a synthetic person."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from cag_avatar_training.config import RefinementConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.evaluation import evaluate
from cag_avatar_training.preprocess import preprocess
from cag_avatar_training.profiles import profile_config
from cag_avatar_training.progress import bar
from cag_avatar_training.report import write_report
from cag_avatar_training.synthetic import SynthesisConfig, synthesize
from cag_avatar_training.trainer import train
from rich.console import Console

from cag_avatar import __version__
from cag_avatar.avatar.file import load_avatar
from cag_avatar.files import replacing
from cag_avatar_cli.options import OutputPath
from cag_avatar_node.live import LiveConfig, run_live

#: Live seconds when nobody watches (CI).
_UNATTENDED_SECONDS = 10.0
# Whoever tries a program waits minutes for it, not longer: these two are cut for time.
_REFINEMENT = RefinementConfig(at=(0.35, 0.65), steps=4)
_MEASURED_EVERY = 2


def command(
    output: OutputPath = Path("out/demo"),
    seconds: float = 10.0,
    iterations: int = 1000,
    seed: int = 0,
    live_seconds: float | None = None,
    port: int = 8008,
) -> None:
    """Synthesize a person, make an avatar of them, report, and drive it live through ROS 2.

    Steps that an earlier run finished with the same settings are not done again.

    Args:
        output: folder for everything that is made.
        seconds: length of the synthetic capture.
        iterations: frames shown in training.
        seed: of the person, the motion and the training.
        live_seconds: how long the live page stays; by default until Ctrl-C, or 10 s when the
            environment variable CI is set.
        port: of the live page.
    """
    console = Console()
    start = time.perf_counter()
    settings = {
        "version": __version__, "seconds": seconds, "iterations": iterations, "seed": seed,
    }  # fmt: skip
    _forget_other_run(output, settings)
    capture, folder, avatar = output / "capture.mp4", output / "dataset", output / "avatar.cag"
    evaluation = output / "evaluation"

    console.rule("1/5 a synthetic person on video")
    if not capture.is_file():
        with bar("synthesize") as progress:
            synthesize(SynthesisConfig(out=capture, seed=seed, seconds=seconds), progress)
    console.rule("2/5 video to dataset")
    if not (folder / "dataset.json").is_file():
        preprocess(capture, folder)
    dataset = Dataset.open(folder)
    console.rule("3/5 dataset to avatar")
    if not avatar.is_file():
        config = replace(
            profile_config("quick"), iterations=iterations, seed=seed, refinement=_REFINEMENT
        )
        train(dataset, avatar, config, output / "training", resume=True)
    console.rule("4/5 held-out frames")
    loaded = load_avatar(avatar)
    with bar("evaluate") as progress:
        metrics = evaluate(
            loaded, dataset, evaluation, every=_MEASURED_EVERY,
            show=lambda what, done, total: progress(done, total),
        )  # fmt: skip
    shutil.copyfile(evaluation / "side_by_side.png", output / "side_by_side.png")

    console.rule("5/5 live through ROS 2")
    unattended = _UNATTENDED_SECONDS if os.environ.get("CI") else None
    live = run_live(
        LiveConfig(
            avatar=avatar, video=capture, port=port, frame_path=output / "live.png",
            duration_s=live_seconds if live_seconds is not None else unattended,
        ),
        announce=console.print,
    )  # fmt: skip
    best = metrics["refined"]
    training = metrics["protocol"]["training"]
    summary = {
        **{name: best[name] for name in ("psnr", "ssim", "l1", "stlpips")},
        "as_tracked": metrics["as_tracked"],
        "train_seconds": training["seconds"],
        "live_fps": live.live_fps,
        "latency_ms_p50": live.latency_ms_p50,
        "latency_ms_p95": live.latency_ms_p95,
        "total_seconds": round(time.perf_counter() - start, 1),
        "protocol": metrics["protocol"],
    }
    with replacing(output / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n")
    figures = {
        "Gaussians": loaded.num_gaussians,
        "training seconds": training["seconds"],
        "live frames a second": live.live_fps,
        "latency ms, median": live.latency_ms_p50,
        "latency ms, 95th percentile": live.latency_ms_p95,
    }
    pictures = {
        "Held-out frames: capture above, avatar below": output / "side_by_side.png",
        "The last frame that came off the ROS topic": output / "live.png",
    }
    write_report(output / "report.html", "cag_avatar demo", dataset, metrics, pictures, figures)
    console.print(
        f"\nheld-out PSNR {best['psnr']:.2f} dB (as tracked {metrics['as_tracked']['psnr']:.2f}), "
        f"SSIM {best['ssim']:.4f}; live {live.live_fps:.1f} frames/s, latency "
        f"{live.latency_ms_p50} ms\nlook at {output / 'report.html'}; all of it lies in {output}/"
    )


def _forget_other_run(output: Path, settings: dict[str, Any]) -> None:
    """Remove what a run with other settings left, so that nothing of it is taken for this one's."""
    note = output / "settings.json"
    try:
        same = json.loads(note.read_text()) == settings
    except (OSError, ValueError):
        same = False
    if not same:
        for name in ("dataset", "capture.truth", "training", "evaluation"):
            shutil.rmtree(output / name, ignore_errors=True)
        for name in ("capture.mp4", "avatar.cag", "summary.json", "report.html", "live.png"):
            (output / name).unlink(missing_ok=True)
        with replacing(note) as temporary:
            temporary.write_text(json.dumps(settings) + "\n")
