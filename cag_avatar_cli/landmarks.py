"""``cag-avatar tie-landmarks``."""

from __future__ import annotations

from pathlib import Path

from cag_avatar_training.progress import bar

from cag_avatar.head_models import head_model_path, load_head_model
from cag_avatar.tracking.landmark_tying import TyingConfig, tie_landmarks
from cag_avatar_cli.options import OutputPath

_DEFAULT: Path = head_model_path("anny").with_name("anny_landmarks.json")


def command(
    output: OutputPath = _DEFAULT,
    renders: int = 200,
    seed: int = 0,
) -> None:
    """Tie MediaPipe's 478 landmarks to the head model's surface by rendering heads.

    Args:
        output: file to write; by default the one that the package loads.
        renders: heads rendered.
        seed: of identities, expressions and poses.
    """
    with bar("heads") as progress:
        embedding = tie_landmarks(
            load_head_model(), TyingConfig(renders=renders, seed=seed), progress
        )
    embedding.save(output)
    spread = float(embedding.spread.median())
    print(
        f"landmarks: {output} (median spread {100 * spread:.1f} % of the distance between the eyes)"
    )
