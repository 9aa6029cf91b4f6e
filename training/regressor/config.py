"""Settings of a regressor's training."""

from __future__ import annotations

from dataclasses import dataclass

from cag_avatar.errors import InputError

__all__ = ["RegressorConfig"]


@dataclass(frozen=True)
class RegressorConfig:
    """Settings of the training; seconds on a CPU."""

    components: int = 120
    """Principal components of the input."""
    hidden: int = 256
    """Units of each of the two hidden layers."""
    steps: int = 2000
    """Steps of AdamW."""
    batch: int = 128
    """Faces a step."""
    rate: float = 3e-3
    """Learning rate."""
    weight_decay: float = 0.1
    """Of AdamW."""
    noise: float = 0.05
    """Standard deviation of the noise on the components, whose mean square is 1."""
    made_up: int = 6000
    """Made-up faces."""
    score_noise: float = 0.1
    """Standard deviation of the noise on a made-up face's scores: they are hardly more than a
    guess."""
    shares: tuple[float, ...] = (0.3, 0.5, 0.7)
    """Shares of made-up faces in a batch, of which cross-validation takes the best."""
    folds: int = 3
    """Parts of the training frames, each a stretch of time, for the cross-validation."""
    trial: float = 0.15
    """Length of a trial of the cross-validation, as a share of ``steps``."""
    seed: int = 0
    """Of all random numbers."""

    def __post_init__(self) -> None:
        for name in ("components", "hidden", "steps", "batch", "made_up"):
            if getattr(self, name) < 1:
                raise InputError(f"regressor: {name} must be at least 1")
        if self.folds < 2:
            raise InputError(f"regressor: folds {self.folds} must be at least 2")
        if not self.shares or not all(0 <= share < 1 for share in self.shares):
            raise InputError(f"regressor: shares {self.shares} must lie in [0, 1)")
        if not 0 < self.trial <= 1:
            raise InputError(f"regressor: trial {self.trial} must lie in (0, 1]")
