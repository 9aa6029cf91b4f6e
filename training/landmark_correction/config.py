"""Settings of the landmark correction's training."""

from __future__ import annotations

from dataclasses import dataclass

from cag_avatar.errors import InputError

__all__ = ["RESERVED_SEEDS", "CorrectionConfig"]

#: Synthetic subjects on which tracking is tuned (1 to 5) and measured (101 to 105).
RESERVED_SEEDS = frozenset([*range(1, 6), *range(101, 106)])


@dataclass(frozen=True)
class CorrectionConfig:
    """What to render and how to learn. Raises InputError, naming the field, on a bad value."""

    subjects: int = 166
    """Synthetic subjects, at least 2."""
    first_seed: int = 1000
    """Seed of the first subject; the others follow. None may be one of RESERVED_SEEDS."""
    frames: int = 84
    """Pictures of each subject."""
    size: int = 384
    """Width and height of a picture, pixels."""
    identity_spread: float = 0.75
    """Standard deviation of the identity coefficients, wider than that of a synthetic clip."""
    identity_limit: float = 1.8
    """Largest identity coefficient."""
    held_out_every: int = 8
    """Every so many-th subject is kept out of the measured training; the final one has all."""
    epochs: int = 30
    """Passes through the pictures."""
    seed: int = 0
    """Of the network's start, of the order of the pictures and of the noise."""
    components: int = 200
    """Principal components of the input."""
    clip_components: int = 60
    """The first so many of them tell what is typical of a clip, too."""
    error_components: int = 80
    """Principal components of the landmarks' errors."""
    hidden: int = 384
    """Units of each of the two hidden layers."""
    dropout: float = 0.15
    """Share of hidden units left out in a step."""
    input_noise: float = 0.15
    """Standard deviation of the noise on the inputs, in that of a component."""
    learning_rate: float = 1e-3
    """AdamW's, at the start; it falls to zero as a half cosine."""
    weight_decay: float = 0.05
    """AdamW's."""
    batch: int = 256
    """Pictures in a step."""
    pictures: bool = False
    """Read pictures too: more exact, but slower, and for clips alone."""

    def __post_init__(self) -> None:
        def require(good: bool, name: str, rule: str) -> None:
            if not good:
                raise InputError(f"{name}: {getattr(self, name)!r} must be {rule}")

        require(2 <= self.subjects <= 100000, "subjects", "between 2 and 100000")
        require(0 <= self.first_seed < 2**30, "first_seed", "between 0 and 1073741823")
        taken = sorted(RESERVED_SEEDS.intersection(self.seeds))
        require(
            not taken, "first_seed",
            f"such that no subject is one that tracking is measured on (seed {taken[:1]})",
        )  # fmt: skip
        require(2 <= self.frames <= 10000, "frames", "between 2 and 10000")
        require(64 <= self.size <= 4096 and self.size % 2 == 0, "size", "even, between 64 and 4096")
        require(0 <= self.identity_spread <= 3, "identity_spread", "between 0 and 3")
        require(0 <= self.identity_limit <= 5, "identity_limit", "between 0 and 5")
        require(
            2 <= self.held_out_every <= self.subjects, "held_out_every",
            "at least 2 and at most the number of subjects",
        )  # fmt: skip
        require(1 <= self.epochs <= 10000, "epochs", "between 1 and 10000")
        require(0 <= self.seed < 2**31, "seed", "between 0 and 2147483647")
        require(1 <= self.components <= 1000, "components", "between 1 and 1000")
        require(
            0 <= self.clip_components <= self.components, "clip_components",
            "at least 0 and at most components",
        )  # fmt: skip
        require(1 <= self.error_components <= 956, "error_components", "between 1 and 956")
        require(1 <= self.hidden <= 8192, "hidden", "between 1 and 8192")
        require(0 <= self.dropout < 1, "dropout", "at least 0 and below 1")
        require(0 <= self.input_noise <= 10, "input_noise", "between 0 and 10")
        require(0 < self.learning_rate <= 1, "learning_rate", "above 0 and at most 1")
        require(0 <= self.weight_decay <= 10, "weight_decay", "between 0 and 10")
        require(1 <= self.batch <= 1 << 20, "batch", "between 1 and 1048576")

    @property
    def seeds(self) -> range:
        """Seeds of the subjects."""
        return range(self.first_seed, self.first_seed + self.subjects)

    @property
    def held_out(self) -> range:
        """Seeds of the subjects that the measured training does not see."""
        return self.seeds[:: self.held_out_every]
