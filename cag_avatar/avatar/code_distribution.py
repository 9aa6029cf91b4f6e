"""Which expression codes an avatar has seen: their principal components and their limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError

__all__ = ["CodeDistribution", "soft_clamp"]

#: Share of the variance that the components keep, and how many they are at most.
_VARIANCE, _COMPONENTS = 0.99, 30
#: Percentiles of the training codes that limit a component.
_LIMITS = (1.0, 99.0)


def soft_clamp(
    values: NDArray[np.float64],
    low: NDArray[np.float64] | float,
    high: NDArray[np.float64] | float,
    margin: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """Identity inside [low, high]; beyond, the excess bends towards ``margin``, smoothly."""
    inside = np.clip(values, low, high)
    safe = np.maximum(margin, 1e-9)
    return np.asarray(inside + safe * np.tanh((values - inside) / safe))


@dataclass(frozen=True)
class CodeDistribution:
    """Training codes [T, E] as mean, K principal components and what lies outside of them."""

    rest: NDArray[np.float64]
    """The avatar's own code at rest, measured as a driver's is (resting_code()), [E]."""
    mean: NDArray[np.float64]
    """[E]."""
    basis: NDArray[np.float64]
    """Orthonormal directions, [K, E]."""
    deviation: NDArray[np.float64]
    """Standard deviation along each, [K]."""
    low: NDArray[np.float64]
    """Smallest value of each component, in deviations, [K]."""
    high: NDArray[np.float64]
    """Largest value of each component, in deviations, [K]."""
    residual: float
    """Largest distance from the subspace, in units of coefficients."""

    @classmethod
    def of(cls, codes: NDArray[np.floating], rest: NDArray[np.floating]) -> CodeDistribution:
        """Measure codes [T, E]; ``rest`` [E] always counts as seen."""
        values = np.asarray(codes, np.float64)
        mean = values.mean(0)
        _, singular, directions = np.linalg.svd(values - mean, full_matrices=False)
        variance = singular**2
        total = float(variance.sum())
        kept = 0
        if total > 1e-12:
            kept = int(np.searchsorted(np.cumsum(variance) / total, _VARIANCE)) + 1
        basis = directions[: min(kept, _COMPONENTS)]
        deviation = singular[: len(basis)] / np.sqrt(len(values))
        offsets = np.concatenate([values, np.asarray(rest, np.float64)[None]]) - mean
        along = offsets @ basis.T / deviation
        outside = np.linalg.norm(offsets - (along * deviation) @ basis, axis=1)
        low, high = np.percentile(along[:-1], _LIMITS, axis=0)
        return cls(
            rest=np.asarray(rest, np.float64),
            mean=mean,
            basis=basis,
            deviation=deviation,
            low=np.minimum(low, along[-1]),
            high=np.maximum(high, along[-1]),
            residual=float(max(np.percentile(outside[:-1], _LIMITS[1]), outside[-1])),
        )

    def clamp(
        self, code: NDArray[np.float64], margin: float, residual_margin: float
    ) -> NDArray[np.float64]:
        """Bring a code [E] near what was seen; inside the limits nothing changes.

        Args:
            code: any code, [E].
            margin: how far a component may go beyond its limits, in its deviations.
            residual_margin: how much farther from the subspace than seen, in coefficients.
        """
        offset = code - self.mean
        along = self.basis @ offset / self.deviation
        outside = offset - (along * self.deviation) @ self.basis
        distance = float(np.linalg.norm(outside))
        if distance > self.residual:
            wanted = soft_clamp(np.array([distance]), 0.0, self.residual, residual_margin)
            outside = outside * (wanted[0] / distance)
        held = soft_clamp(along, self.low, self.high, margin)
        return np.asarray(self.mean + (held * self.deviation) @ self.basis + outside)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {f.name: np.asarray(getattr(self, f.name)).tolist() for f in fields(self)}

    @classmethod
    def from_dict(cls, values: Any, where: str) -> CodeDistribution:
        """Inverse of :meth:`to_dict`. Raises InputError naming ``where`` and the field."""
        if not isinstance(values, Mapping):
            raise InputError(f"{where}: is not an object")
        arrays: dict[str, NDArray[np.float64]] = {}
        for item in fields(cls):
            try:
                array = np.asarray(values[item.name], dtype=np.float64)
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{where}: field '{item.name}' is missing or not numeric"
                ) from error
            if not np.isfinite(array).all():
                raise InputError(f"{where}: field '{item.name}' holds NaN or infinity")
            arrays[item.name] = array
        count, size = len(np.atleast_1d(arrays["deviation"])), len(np.atleast_1d(arrays["mean"]))
        if count == 0 and arrays["basis"].size == 0:
            arrays["basis"] = np.zeros((0, size))
        shapes: dict[str, tuple[int, ...]] = {
            "rest": (size,), "mean": (size,), "basis": (count, size), "deviation": (count,),
            "low": (count,), "high": (count,), "residual": (),
        }  # fmt: skip
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise InputError(
                    f"{where}: field '{name}' has shape {list(arrays[name].shape)}, expected "
                    f"{list(shape)}"
                )
        gram = arrays["basis"] @ arrays["basis"].T
        if np.abs(gram - np.eye(count)).max(initial=0.0) > 1e-3:
            raise InputError(f"{where}: field 'basis' is not orthonormal")
        if (arrays["deviation"] <= 0).any() or (arrays["low"] > arrays["high"]).any():
            raise InputError(f"{where}: deviations must be positive, and low below high")
        residual = float(arrays.pop("residual"))
        if residual < 0:
            raise InputError(f"{where}: field 'residual' must not be negative")
        return cls(**arrays, residual=residual)
