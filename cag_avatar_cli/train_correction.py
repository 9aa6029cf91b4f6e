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

#: Passes and pictures in a step, where pictures are read.
_PICTURE_EPOCHS, _PICTURE_BATCH = 14, 128


def command(
    output: OptionalOutputPath = None,
    folder: Path = Path("out/landmark_correction"),
    subjects: int = 166,
    first_seed: int = 1000,
    frames: int = 84,
    epochs: int | None = None,
    seed: int = 0,
    pictures: bool = False,
) -> None:
    """Learn the face landmarker's errors from rendered subjects, whose truth is known.

    There are two networks: one for live frames that sees what the landmarker finds, and one for
    clips that reads the pictures too (--pictures).

    Args:
        output: file to write; by default the bundled one, which tracking uses.
        folder: for what was found on each subject; subjects already there are used again.
        subjects: synthetic persons to render.
        first_seed: seed of the first; the others follow.
        frames: pictures of each.
        epochs: passes of the training through the pictures; by default 30, with --pictures 14.
        seed: of the training.
        pictures: train the network that reads pictures.
    """
    config = CorrectionConfig(
        subjects=subjects, first_seed=first_seed, frames=frames, seed=seed, pictures=pictures,
        epochs=epochs or (_PICTURE_EPOCHS if pictures else CorrectionConfig.epochs),
        batch=_PICTURE_BATCH if pictures else CorrectionConfig.batch,
        held_out_every=min(CorrectionConfig.held_out_every, subjects),
    )  # fmt: skip
    model = load_head_model("anny")
    embedding = load_landmark_embedding(model)
    target = output or correction_path(model.name, pictures)
    with progress_bars() as progress:
        rendering = progress.add_task("subjects", total=subjects)
        stages = ("measure",) if pictures else ("measure", "train")
        training = {name: progress.add_task(name, total=None) for name in stages}
        rendered = render_subjects(
            folder,
            model,
            config,
            lambda done, total: progress.update(rendering, completed=done, total=total),
        )
        data = with_truth(rendered, model, embedding)
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
