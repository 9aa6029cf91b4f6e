"""``cag-avatar train-correction``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cag_avatar_training.landmark_correction import (
    CorrectionConfig,
    learn_correction,
    render_subjects,
    with_truth,
)
from cag_avatar_training.progress import progress_bars

from cag_avatar.head_models import load_head_model
from cag_avatar.tracking.landmark_correction import correction_path
from cag_avatar.tracking.landmark_embedding import load_landmark_embedding
from cag_avatar_cli.options import OptionalOutputPath


def command(
    output: OptionalOutputPath = None,
    folder: Path = Path("out/landmark_correction"),
    subjects: int = 166,
    first_seed: int = 1000,
    frames: int = 84,
    epochs: int = 30,
    seed: int = 0,
) -> None:
    """Learn the face landmarker's errors from rendered subjects, whose truth is known.

    Args:
        output: file to write; by default the bundled one, which tracking uses.
        folder: for what was found on each subject; subjects already there are used again.
        subjects: synthetic persons to render.
        first_seed: seed of the first; the others follow.
        frames: pictures of each.
        epochs: passes of the training through the pictures.
        seed: of the training.
    """
    config = CorrectionConfig(
        subjects=subjects, first_seed=first_seed, frames=frames, epochs=epochs, seed=seed,
        held_out_every=min(CorrectionConfig.held_out_every, subjects),
    )  # fmt: skip
    model = load_head_model("anny")
    embedding = load_landmark_embedding(model)
    target = output or correction_path(model.name)
    with progress_bars() as progress:
        rendering = progress.add_task("subjects", total=subjects)
        training = {name: progress.add_task(name, total=None) for name in ("measure", "train")}
        pictures = render_subjects(
            folder,
            model,
            config,
            lambda done, total: progress.update(rendering, completed=done, total=total),
        )
        data = with_truth(pictures, model, embedding)
        correction = learn_correction(
            data, model, embedding, config,
            lambda stage, done, total: progress.update(
                training[stage], completed=done, total=total
            ),
        )  # fmt: skip
    correction.save(target)
    figures: Any = correction.protocol["held_out"]
    before, after = (figures[f"landmark_rmse_pct_{when}"] for when in ("before", "after"))
    print(
        f"landmark correction: {target} ({target.stat().st_size / 1e6:.1f} MB)\n"
        f"subjects: {folder / 'subjects'} ({len(data)}, {correction.protocol['frames']} pictures)\n"
        f"held-out subjects: landmarks off by {before:.2f} % of the distance between the eyes, "
        f"{after:.2f} % after the correction"
    )
