"""A low-rank basis of an avatar's offsets, for live use; ``distillation.py`` makes it.

offsets(psi) ~ mean + sum_k w_k(psi) B_k. The weights are not learned: the offset network itself is
run, but only on the few Gaussians whose offsets tell most about all others, and the weights are the
least-squares solution there. So a code that was never seen is answered by the network, not
interpolated between codes that were.

B is kept in 8 bits, with a step for each component, output and BLOCK Gaussians: a frame reads all
of it, and its time is that of reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.fusion.offsets import NUM_OUTPUTS

__all__ = ["BLOCK", "OffsetBasis"]

#: Gaussians that share a step of the basis; frame.c works on as many together.
BLOCK = 64


@dataclass(frozen=True)
class OffsetBasis:
    """Basis of rank K for the offsets (as in ``Offsets``: metres, rotation, log-scale, colour) of N
    Gaussians."""

    mean: NDArray[np.float32]
    """[12, padded N]; the padding, up to a multiple of BLOCK, is zero."""
    levels: NDArray[np.int8]
    """Basis in steps, [N / BLOCK, 12, K, BLOCK]."""
    step: NDArray[np.float32]
    """[N / BLOCK, 12, K]."""
    rows: NDArray[np.int32]
    """Gaussians that the network is run on, [M]."""
    solve: NDArray[np.float32]
    """Their offsets minus the mean, [M, 12] flattened -> weights: [K, 12 M]."""
    protocol: dict[str, Any] = field(default_factory=dict, compare=False)
    """How it was made and its error, as plain JSON values."""

    @property
    def rank(self) -> int:
        """Number K of components."""
        return int(self.levels.shape[2])

    def weights(self, known: NDArray[np.floating]) -> NDArray[np.float32]:
        """Weights [K] of the offsets [M, 12] that ``rows`` have."""
        return np.asarray(self.solve @ (known - self.mean[:, self.rows].T).ravel(), np.float32)

    def offsets(self, weights: NDArray[np.floating]) -> NDArray[np.float32]:
        """Offsets [12, padded N] of weights [K], before they are cut at the avatar's limits."""
        scaled = np.asarray(weights, np.float32) * self.step  # [N / BLOCK, 12, K]
        total = np.einsum("bok,bokl->obl", scaled, self.levels.astype(np.float32))
        return np.asarray(self.mean + total.reshape(NUM_OUTPUTS, -1), np.float32)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, for a file."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "protocol"}

    @classmethod
    def of_tensors(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        gaussians: int,
        protocol: dict[str, Any],
        where: str,
    ) -> OffsetBasis:
        """Inverse of :meth:`tensors`. Raises InputError naming ``where`` and the field."""
        blocks = -(-gaussians // BLOCK)
        levels = arrays.get("levels")
        rank = levels.shape[2] if levels is not None and levels.ndim == 4 else 0
        count = len(arrays["rows"]) if "rows" in arrays else 0
        expected: dict[str, tuple[tuple[int, ...], Any]] = {
            "mean": ((NUM_OUTPUTS, blocks * BLOCK), np.float32),
            "levels": ((blocks, NUM_OUTPUTS, rank, BLOCK), np.int8),
            "step": ((blocks, NUM_OUTPUTS, rank), np.float32),
            "rows": ((count,), np.int32),
            "solve": ((rank, NUM_OUTPUTS * count), np.float32),
        }
        for name, (shape, dtype) in expected.items():
            array = arrays.get(name)
            if array is None or array.shape != shape or array.dtype != dtype:
                raise InputError(
                    f"{where}: live basis: field '{name}' is missing or not {np.dtype(dtype).name} "
                    f"{list(shape)}; run 'cag-avatar compile'"
                )
            if array.dtype == np.float32 and not np.isfinite(array).all():
                raise InputError(f"{where}: live basis: field '{name}' holds NaN or infinity")
        if count and not 0 <= arrays["rows"].min() <= arrays["rows"].max() < gaussians:
            raise InputError(
                f"{where}: live basis: field 'rows' names Gaussians that are not there"
            )
        return cls(**{name: arrays[name] for name in expected}, protocol=protocol)
