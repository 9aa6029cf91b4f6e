"""Settings that define an avatar's structure; stored in its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

from cag_avatar.errors import InputError
from cag_avatar.fusion.cross_attention import AttentionName
from cag_avatar.fusion.factory import FusionName
from cag_avatar.head_models.base import REGIONS

__all__ = ["AvatarConfig"]


#: Numbers of the context that a Gaussian's own matrix reads.
_LOCAL = 16


def _default_density() -> dict[str, float]:
    # Chosen on the Anny atlas at 128 x 128: 15,600 Gaussians, 1 mm apart on upper teeth (the
    # gaps between them), 2 mm on lips, 3 to 4 mm on the face, 12 mm on the shoulders.
    return {
        "face_skin": 1.25,
        "lips": 3.0,
        "teeth_upper": 3.0,
        "teeth_lower": 2.0,
        "eye_left": 1.3,
        "eye_right": 1.3,
        "ears": 2.5,
        "scalp": 0.85,
        "shoulders": 1.2,
    }


def _default_bounds() -> dict[str, float]:
    # Hair stands well off the scalp and clothes off the shoulders; teeth and eyes are rigid.
    return {
        "teeth_upper": 0.004,
        "teeth_lower": 0.004,
        "eye_left": 0.003,
        "eye_right": 0.003,
        "scalp": 0.04,
        "shoulders": 0.03,
        "neck": 0.015,
    }


@dataclass(frozen=True)
class AvatarConfig:
    """Structure of an avatar."""

    uv_resolution: int = 128
    """Texels along each side of the UV atlas; one Gaussian a covered texel."""
    density: dict[str, float] = field(default_factory=_default_density)
    """Factor on uv_resolution for named regions; 1 elsewhere."""
    fusion: FusionName = "cross-attention"
    """How the expression code reaches the Gaussians."""
    neck_tokens: bool = True
    """Also drive the offsets by the rotation of the head relative to the torso."""
    octaves: int = 8
    """Frequencies of the positional encoding."""
    position_scale: float = 0.15
    """Length that the positional encoding takes as 1, metres."""
    heads: int = 4
    """Attention heads."""
    head_size: int = 16
    """Length of a head's query, key and value."""
    attention: AttentionName = "gates"
    """How cross-attention weighs tokens: ``gates`` that open or close for each token by itself and
    start from how far it moves the surface there, or a ``softmax`` over all tokens."""
    local_size: int = -1
    """Numbers of the context that each Gaussian also maps to offsets by a matrix of its own; 0:
    none, -1: 16 with cross-attention, none with the fusions that it is compared with."""
    width: int = 96
    """Neurons in a hidden layer of the offset network."""
    depth: int = 3
    """Hidden layers of the offset network."""
    max_offset: float = 0.01
    """Largest position offset along each axis, metres, where max_region_offset says nothing."""
    max_region_offset: dict[str, float] = field(default_factory=_default_bounds)
    """Largest position offset in named regions, metres."""
    max_rotation: float = 0.5
    """Bound of each imaginary part of the rotation offset (real part 1), before normalising."""
    max_log_scale: float = 0.7
    """Bound of the change of each log-scale."""
    max_color: float = 0.25
    """Bound of the expression-dependent change of each colour channel; 0 switches it off. The paper
    keeps colours fixed."""
    sh_degree: int = 1
    """Degree of the spherical harmonics, 0 to 2; directions are taken in the head's frame."""

    def __post_init__(self) -> None:
        """Raise InputError on a value that makes no sense."""
        self._require("uv_resolution", 2, 1024)
        self._require("octaves", 0, 16)
        self._require("position_scale", 1e-3, 10)
        self._require("heads", 1, 64)
        self._require("head_size", 1, 256)
        self._require("local_size", -1, 256)
        self._require("width", 1, 1024)
        self._require("depth", 1, 16)
        self._require("max_offset", 0, 0.2)
        self._require("max_rotation", 0, 2)
        self._require("max_log_scale", 0, 3)
        self._require("max_color", 0, 1)
        self._require("sh_degree", 0, 2)
        if self.fusion not in get_args(FusionName):
            raise InputError(
                f"fusion: unknown '{self.fusion}', choose from {', '.join(get_args(FusionName))}"
            )
        if self.attention not in get_args(AttentionName):
            raise InputError(f"attention: unknown '{self.attention}', choose from gates, softmax")
        for name in ("density", "max_region_offset"):
            for region, value in getattr(self, name).items():
                if region not in REGIONS:
                    raise InputError(f"{name}: no region '{region}' (have {', '.join(REGIONS)})")
                if not 0 <= value < 64:
                    raise InputError(f"{name}: {value} of '{region}' must not be negative or huge")

    @property
    def local_numbers(self) -> int:
        """``local_size`` with -1 resolved."""
        if self.local_size >= 0:
            return self.local_size
        return _LOCAL if self.fusion == "cross-attention" else 0

    def _require(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise InputError(f"{name}: {value} must lie in {low} .. {high}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config") -> AvatarConfig:
        """Inverse of :meth:`to_dict`. Raises InputError on an unknown field or wrong type."""
        known = {f.name: f for f in fields(cls)}
        unknown = set(values) - set(known)
        if unknown:
            raise InputError(f"{where}: unknown field '{sorted(unknown)[0]}'")
        defaults = cls()
        for name, value in values.items():
            expected = type(getattr(defaults, name))
            if not isinstance(value, expected) and not (expected is float and type(value) is int):
                raise InputError(f"{where}: {name} must be {expected.__name__}, is {value!r}")
        return cls(**dict(values))
