"""How well the tracked motion agrees with that of the pictures, under shifts and mirroring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cag_avatar_training.validation.evidence import Evidence
from numpy.typing import NDArray

__all__ = ["Agreement", "Floats", "compare_motion", "compare_series"]

Floats = NDArray[np.float64]

#: Difference of motions, eye distances, beyond which a point only counts as wrong: the flow of a
#: single point may be anything.
_CLIP = 0.1


@dataclass(frozen=True)
class Agreement:
    """Squared differences of two motions over time, for each shift."""

    shifts: tuple[int, ...]
    """Row t is compared with picture t - shift: the row that describes it lies ``shift`` later."""
    residual: Floats
    """Sum of squared differences by shift and frame, [S, N]."""
    energy: Floats
    """Sum of the pictures' squared motion by frame, [N]."""
    samples: Floats
    """Number of values in each sum, [N]."""
    first: int
    """Frame number of the first of the N."""

    def explained(self, shift: int = 0, part: slice = slice(None)) -> float:
        """Share of the pictures' motion that is explained, 1 at best; nan of no motion."""
        energy = self.energy[part].sum()
        if energy <= 0:
            return float("nan")
        return 1 - float(self.residual[self.shifts.index(shift), part].sum() / energy)

    def best(self, part: slice = slice(None)) -> int:
        """The shift that explains most."""
        return self.shifts[int(self.residual[:, part].sum(1).argmin())]

    def motion(self, part: slice = slice(None)) -> float:
        """Root mean square motion between frames."""
        return float(np.sqrt(self.energy[part].sum() / max(1.0, self.samples[part].sum())))

    def preferred(self, shift: int, piece: int, part: slice = slice(None)) -> float:
        """Share of the clip's pieces of so many frames, weighed by their motion, where ``shift``
        explains more than none does."""
        gain = (self.residual[self.shifts.index(0)] - self.residual[self.shifts.index(shift)])[part]
        energy = self.energy[part]
        edges = np.arange(0, len(gain), max(1, piece))
        if len(edges) == 0 or energy.sum() <= 0:
            return 0.0
        weight = np.add.reduceat(energy, edges)
        return float((weight * (np.add.reduceat(gain, edges) > 0)).sum() / weight.sum())


def _compare(
    seen: Floats, good: NDArray[np.bool_], tracked: Floats, clip: float, most: int
) -> Agreement:
    """Motions [N, K, C]; ``good`` [N, K]."""
    total = len(seen)
    most = max(0, min(most, (total - 1) // 2))
    middle = slice(most, total - most)
    shifts = tuple(range(-most, most + 1))
    usable = good[middle].astype(np.float64)

    def clipped(values: Floats) -> Floats:
        squares = np.minimum((values**2).sum(-1), clip**2)
        return np.asarray((squares * usable).sum(1))

    residual = [clipped(seen[middle] - tracked[most + s : total - most + s]) for s in shifts]
    return Agreement(shifts, np.stack(residual), clipped(seen[middle]), usable.sum(1), most)


def compare_motion(evidence: Evidence, most: int, mirrored: bool = False) -> Agreement:
    """Optical flow against the motion of the mesh's points, in eye distances.

    Args:
        evidence: of the dataset.
        most: largest shift.
        mirrored: use the flow of the mirrored pictures.
    """
    unit = evidence.unit[:-1, None, None]
    flow = evidence.mirrored_flow if mirrored else evidence.flow
    good = evidence.mirrored_good if mirrored else evidence.flow_good
    good = good & evidence.consecutive()[:, None]
    tracked = np.diff(evidence.points.astype(np.float64), axis=0)
    return _compare(flow / unit, good, tracked / unit, _CLIP, most)


def compare_series(seen: Floats, good: NDArray[np.bool_], tracked: Floats, most: int) -> Agreement:
    """Changes of measured quantities [T, C] against those of the mesh; ``good`` [T] frames.

    Each quantity counts in units of its own usual change.
    """
    step = np.diff(seen, axis=0)
    usable = good[1:] & good[:-1]
    usual = step[usable].std(0) + 1e-9 if usable.any() else np.ones(seen.shape[1])
    return _compare(
        (step / usual)[..., None],
        np.repeat(usable[:, None], seen.shape[1], 1),
        (np.diff(tracked, axis=0) / usual)[..., None],
        8.0,
        most,
    )
