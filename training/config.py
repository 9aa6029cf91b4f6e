"""Settings of training, refinement and their schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cag_avatar_training.perceptual import PerceptualNet
from cag_avatar_training.split import Split, split_frames

from cag_avatar.avatar.config import AvatarConfig
from cag_avatar.errors import InputError
from cag_avatar.rendering.rasterizer import Backend

__all__ = ["EarlyStopConfig", "LearningRates", "LossConfig", "RefinementConfig", "TrainConfig"]


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"{name}: {value} must lie in {low} .. {high}")


@dataclass(frozen=True)
class LossConfig:
    """Losses (eqs. 8 and 9) and the schedule of the perceptual term."""

    huber_delta: float = 0.1
    """Delta of the Huber loss."""
    mouth_weight: float = 40.0
    """lambda_mouth of eq. 8."""
    perceptual_weight: float = 0.003
    """lambda_lips of eq. 9; 0 switches the term off. The paper's 0.05, in the few hundred
    iterations that a short training leaves it, mottles the skin and costs over 1 dB."""
    perceptual_net: PerceptualNet = "alex"
    """Network of ST-LPIPS."""
    perceptual_from: float = 0.6
    """Fraction of the iterations after which the term acts. The paper's own schedule (never within
    its 15,000 iterations) is 1."""
    perceptual_every: int = 4
    """The term is computed every so many iterations, its weight multiplied to make up for it."""
    perceptual_crop: int = 128
    """Side of the random square on which it is computed, pixels."""

    def __post_init__(self) -> None:
        """Raise InputError on a value out of range."""
        _check("huber_delta", self.huber_delta, 1e-4, 10)
        _check("mouth_weight", self.mouth_weight, 0, 1e4)
        _check("perceptual_weight", self.perceptual_weight, 0, 100)
        _check("perceptual_from", self.perceptual_from, 0, 1)
        _check("perceptual_every", self.perceptual_every, 1, 1000)
        _check("perceptual_crop", self.perceptual_crop, 64, 4096)


@dataclass(frozen=True)
class LearningRates:
    """Adam's rates. Those of the Gaussians are 3D Gaussian splatting's."""

    network: float = 2e-3
    """Fusion and offset network. The paper's 1e-4 learns nothing in a few thousand iterations."""
    network_decay: float = 20.0
    """Factor by which the network's rate falls, exponentially, over the training."""
    color_base: float = 2.5e-3
    """Spherical harmonics of degree 0."""
    color_rest: float = 1.25e-4
    """Spherical harmonics of the higher degrees."""
    opacity: float = 0.05
    """Logits of the opacities."""
    scale: float = 5e-3
    """Log-scales."""
    rotation: float = 1e-3
    """Quaternions."""
    local: float = 4e-3
    """Matrices of the Gaussians' own (AvatarConfig.local_size); falls as the network's."""
    attribute_decay: float = 1.0
    """Factor by which the Gaussians' rates fall over the training (1 as in the paper)."""

    def __post_init__(self) -> None:
        """Raise InputError on a value out of range."""
        for name, value in vars(self).items():
            low, high = (1.0, 1e6) if name.endswith("decay") else (0.0, 1.0)
            _check(f"rates.{name}", value, low, high)


@dataclass(frozen=True)
class RefinementConfig:
    """Photometric refinement of poses and codes against the frozen avatar.

    The defaults are for training frames, which are refined several times; :meth:`for_held_out` is
    for frames that are refined once and measured.
    """

    at: tuple[float, ...] = (0.2, 0.4, 0.6)
    """Fractions of the iterations at which the training frames are refined; empty: never."""
    steps: int = 8
    """Adam steps a frame."""
    final_rate: float = 0.3
    """Share of the rates that is left at the last step; they fall exponentially."""
    size: int = 256
    """Image height, pixels."""
    rotation_rate: float = 2e-3
    """Adam rate of head and torso rotation, radians."""
    translation_rate: float = 5e-4
    """Adam rate of head and torso translation, metres."""
    code_rate: float = 0.02
    """Adam rate of the coefficients."""
    rotation_sigma: float = 0.05
    """Expected error of tracked rotations, radians: the prior's standard deviation."""
    translation_sigma: float = 0.01
    """Expected error of tracked translations, metres."""
    code_sigma: float = 0.2
    """Expected error of tracked coefficients."""
    prior_weight: float = 1e-4
    """Weight of the prior to the tracked values, beside the Huber loss of eq. 8."""
    temporal_weight: float = 1e-4
    """Weight of the pull towards the mean of the two neighbouring frames."""

    def __post_init__(self) -> None:
        """Raise InputError on a value out of range."""
        for fraction in self.at:
            _check("refinement.at", fraction, 0, 1)
        _check("refinement.steps", self.steps, 0, 1000)
        _check("refinement.size", self.size, 32, 4096)
        _check("refinement.final_rate", self.final_rate, 1e-3, 1)
        for name in ("rotation_sigma", "translation_sigma", "code_sigma"):
            _check(f"refinement.{name}", getattr(self, name), 1e-6, 10)

    @classmethod
    def for_held_out(cls) -> RefinementConfig:
        """For held-out frames. Three times as many steps gain another 0.3 dB where the face is one
        that training never showed, with codes still farther from the tracked ones."""
        return cls(steps=30, final_rate=0.05)


@dataclass(frozen=True)
class EarlyStopConfig:
    """Stopping when some frames, taken out of the training frames for it, gain no more.

    They are measured (PSNR as tracked) from the last resolution of the schedule on.
    """

    patience: int = 0
    """Measurements without a gain after which training stops; 0: never, no frames are taken out."""
    every: int = 100
    """Iterations between measurements."""
    frames: int = 8
    """Frames taken out."""
    gain: float = 0.02
    """Smallest gain that counts, dB."""

    def __post_init__(self) -> None:
        """Raise InputError on a value out of range."""
        _check("early_stop.patience", self.patience, 0, 1000)
        _check("early_stop.every", self.every, 1, 100_000)
        _check("early_stop.frames", self.frames, 1, 1000)
        _check("early_stop.gain", self.gain, 0, 10)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the result of a training, but the data."""

    avatar: AvatarConfig = field(default_factory=AvatarConfig)
    """Structure of the avatar."""
    iterations: int = 5000
    """Frames shown to the network."""
    seed: int = 0
    """Seed of the weights and of the order of the frames."""
    split: Split = "last"
    """Which frames are held out."""
    sizes: tuple[tuple[float, int], ...] = ((0.0, 256), (0.4, 512))
    """Progressive resolution: (fraction of the iterations, image height in pixels)."""
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """RGB behind the person, 0 to 1."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Losses."""
    rates: LearningRates = field(default_factory=LearningRates)
    """Learning rates."""
    max_growth: float = 3.0
    """How many times its initial size a Gaussian may reach along each axis. What is seen from one
    side only puts no bound on the depth, and a needle that fits one frame shows in another."""
    local_smoothing: float = 2.0
    """How strongly each Gaussian's own matrix is drawn to its neighbours' (local_smoothing.py), per
    unit of its learning rate; 0: not at all. Expressions that training never saw come out cleaner,
    those that it saw a little softer."""
    initial_colors: bool = True
    """Start from the colours that the camera saw; off starts from mid-grey, as the paper."""
    attention_every: int = 4
    """Attention weights are computed, and W_Q and W_K trained, every so many iterations: they do
    not depend on the frame and change slowly."""
    gradient_fraction: float = 0.25
    """Share of the Gaussians from which fusion and network learn in an iteration, drawn by the size
    of their gradients; 1 is exact."""
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    """Refinement of the training frames."""
    early_stop: EarlyStopConfig = field(default_factory=EarlyStopConfig)
    """Stopping before the last iteration."""
    backend: Backend = "auto"
    """Rasteriser."""
    profile: str = "standard"
    """Set of settings that these started from, see profiles.py: a note for the protocol."""

    def __post_init__(self) -> None:
        """Raise InputError on a value out of range."""
        _check("iterations", self.iterations, 1, 10_000_000)
        _check("gradient_fraction", self.gradient_fraction, 0.01, 1)
        _check("max_growth", self.max_growth, 1, 1e6)
        _check("local_smoothing", self.local_smoothing, 0, 1000)
        _check("attention_every", self.attention_every, 1, 1000)
        _check("seed", self.seed, 0, 2**31 - 1)
        split_frames(1000, self.split, source=range(500, 1000))
        if not self.sizes or self.sizes[0][0] != 0:
            raise InputError("sizes: the first resolution must start at 0")
        fractions = [fraction for fraction, _ in self.sizes]
        if fractions != sorted(fractions) or fractions[-1] > 1:
            raise InputError(f"sizes: fractions {fractions} must rise from 0 to at most 1")
        for _, size in self.sizes:
            _check("sizes", size, 32, 4096)
        for channel in self.background:
            _check("background", channel, 0, 1)

    def size_at(self, iteration: int) -> int:
        """Image height of an iteration."""
        done = iteration / self.iterations
        return [size for fraction, size in self.sizes if done >= fraction][-1]

    def refinements(self) -> list[int]:
        """Iterations before which the training frames are refined."""
        if self.refinement.steps == 0:
            return []
        return sorted({round(fraction * self.iterations) for fraction in self.refinement.at})

    def to_dict(self) -> Mapping[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
