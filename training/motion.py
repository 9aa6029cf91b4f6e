"""Codes and poses of the frames of a dataset, as tracked or as refined."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cag_avatar_training.dataset import Tracking

__all__ = ["Motion"]


@dataclass
class Motion:
    """The driving signals of T frames; refinement writes into it."""

    codes: Tensor
    """[T, E] float32."""
    head_pose: Tensor
    """Canonical to camera space, [T, 4, 4] float32."""
    torso_pose: Tensor
    """Canonical to camera space, [T, 4, 4] float32."""

    @classmethod
    def tracked(cls, tracking: Tracking) -> Motion:
        """Copies of a dataset's tracked values."""
        return cls(
            torch.from_numpy(tracking.codes.copy()),
            torch.from_numpy(tracking.head_pose.copy()),
            torch.from_numpy(tracking.torso_pose.copy()),
        )

    def clone(self) -> Motion:
        """A deep copy."""
        return Motion(self.codes.clone(), self.head_pose.clone(), self.torso_pose.clone())

    def frame(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Code [E], head pose and torso pose [4, 4] of one frame."""
        return self.codes[index], self.head_pose[index], self.torso_pose[index]

    def tensors(self) -> dict[str, Tensor]:
        """Named tensors, for a checkpoint."""
        return {
            "codes": self.codes,
            "head_pose": self.head_pose,
            "torso_pose": self.torso_pose,
        }
