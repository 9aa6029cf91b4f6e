"""``cag-avatar tie-landmarks``."""

from __future__ import annotations

from pathlib import Path

from cag_avatar_training.landmark_correction import read_subjects, tie_to_subjects
from cag_avatar_training.progress import bar

from cag_avatar.head_models import load_head_model
from cag_avatar.tracking.landmark_embedding import landmark_path, load_landmark_embedding
from cag_avatar.tracking.landmark_tying import TyingConfig, tie_landmarks
from cag_avatar_cli.options import OptionalOutputPath


def command(
    output: OptionalOutputPath = None,
    head_model: str = "anny",
    renders: int = 200,
    seed: int = 0,
    subjects: Path | None = None,
) -> None:
    """Tie MediaPipe's 478 landmarks to a head model's surface by rendering heads.

    The bundled head's landmarks were tied to plain renders, then those on the wrong part of the
    face were mended, with --subjects, by the persons of 'cag-avatar train-correction'.

    Args:
        output: file to write; by default the one beside the head model that is loaded with it.
        head_model: name of the head model, or its file.
        renders: heads rendered.
        seed: of identities, expressions and poses.
        subjects: the folder that 'cag-avatar train-correction' rendered into: mend the landmarks
            that are there by those persons, and render nothing.
    """
    model = load_head_model(head_model)
    target = output or landmark_path(model)
    if subjects is not None:
        data = read_subjects(subjects, model)
        with bar("landmarks") as progress:
            embedding = tie_to_subjects(data, model, load_landmark_embedding(model), progress)
    else:
        with bar("heads") as progress:
            embedding = tie_landmarks(model, TyingConfig(renders=renders, seed=seed), progress)
    embedding.save(target)
    spread = float(embedding.spread.median())
    print(
        f"landmarks: {target} (median spread {100 * spread:.1f} % of the distance between the eyes)"
    )
