"""Codes and poses of the frames of a dataset, as tracked or as refined."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from cag_avatar_training.dataset import Tracking
from torch import Tensor

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
    def tracked(cls, tracking: Tracking, device: torch.device | None = None) -> Motion:
        """Copies of a dataset's tracked values, on ``device`` (the CPU by default)."""
        return cls(
            torch.tensor(tracking.codes, device=device),
            torch.tensor(tracking.head_pose, device=device),
            torch.tensor(tracking.torso_pose, device=device),
        )

    def clone(self) -> Motion:
        """A deep copy."""
        return Motion(self.codes.clone(), self.head_pose.clone(), self.torso_pose.clone())

    def cpu(self) -> Motion:
        """The same on the CPU."""
        return Motion(self.codes.cpu(), self.head_pose.cpu(), self.torso_pose.cpu())

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
