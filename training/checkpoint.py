"""The state of an unfinished training: a safetensors file, so that resuming needs no pickle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cag_avatar.errors import InputError
from cag_avatar.files import replacing

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint", "training_fingerprint"]


@dataclass(frozen=True)
class Checkpoint:
    """What is needed to go on as if nothing had happened."""

    iteration: int
    """Next iteration."""
    seconds: float
    """Time spent so far."""
    parameters: dict[str, Tensor]
    """Trained tensors by name."""
    moments: dict[str, Tensor]
    """Adam's state: '<parameter>.exp_avg', '<parameter>.exp_avg_sq', '<parameter>.step'."""
    corrections: Tensor
    """Refined motion, [T, 12 + E]."""
    attention: Tensor | None
    """Attention weights kept since an earlier iteration, if any."""


def training_fingerprint(config: dict[str, object], dataset: Path) -> str:
    """Short hash of the settings and of the dataset's numbers: what a checkpoint belongs to."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    digest.update((dataset / "tracking.safetensors").read_bytes())
    return digest.hexdigest()[:16]


def save_checkpoint(path: Path, fingerprint: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; one already there is replaced once the new one is whole."""
    tensors = {f"parameter.{k}": v.detach() for k, v in checkpoint.parameters.items()}
    tensors |= {f"moment.{k}": v.detach() for k, v in checkpoint.moments.items()}
    tensors["corrections"] = checkpoint.corrections
    if checkpoint.attention is not None:
        tensors["attention"] = checkpoint.attention
    metadata = {
        "format": "cag_avatar-checkpoint",
        "fingerprint": fingerprint,
        "iteration": str(checkpoint.iteration),
        "seconds": repr(checkpoint.seconds),
    }
    with replacing(path) as temporary:
        save_file(
            {k: v.cpu().contiguous().clone() for k, v in tensors.items()}, temporary, metadata
        )


def load_checkpoint(path: Path, fingerprint: str) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        InputError: it is no checkpoint, truncated, or belongs to other settings or data.
    """
    try:
        with safe_open(path, "pt") as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: no checkpoint, or truncated ({error}); start afresh with --no-resume"
        ) from error
    if metadata.get("format") != "cag_avatar-checkpoint":
        raise InputError(f"{path}: not a checkpoint; start afresh with --no-resume")
    if metadata.get("fingerprint") != fingerprint:
        raise InputError(
            f"{path}: made with other settings or another dataset; repeat those or start afresh "
            "with --no-resume"
        )
    if not all(torch.isfinite(t).all() for t in tensors.values()):
        raise InputError(f"{path}: holds NaN or infinity; start afresh with --no-resume")

    def group(prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

    return Checkpoint(
        iteration=int(metadata["iteration"]),
        seconds=float(metadata["seconds"]),
        parameters=group("parameter."),
        moments=group("moment."),
        corrections=tensors["corrections"],
        attention=tensors.get("attention"),
    )
