"""What a fit solves for, and the outline that it is held to."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from cag_avatar.geometry import rigid_transform

__all__ = ["FitState", "Silhouette"]


@dataclass(frozen=True)
class FitState:
    """Shared shape and focal length, and every frame's pose and code."""

    shape: Tensor
    """Shape vector [S] (ShapeSpace)."""
    focal: float
    """Focal length, pixels."""
    centre: tuple[float, float]
    """Principal point, pixels."""
    rotation: Tensor
    """Head rotation, canonical to camera space, [T, 3, 3]."""
    translation: Tensor
    """Head translation, metres, [T, 3]."""
    code: Tensor
    """Expression codes, [T, E]."""

    def head_pose(self) -> Tensor:
        """Canonical to camera space, [T, 4, 4]."""
        return rigid_transform(self.rotation, self.translation)

    def at(self, frames: Tensor) -> FitState:
        """The state of some frames."""
        return replace(
            self,
            rotation=self.rotation[frames],
            translation=self.translation[frames],
            code=self.code[frames],
        )


@dataclass(frozen=True)
class Silhouette:
    """Points on the rim of the mesh that should lie on the rim of the picture's head."""

    mean: Tensor
    """Rest positions of the mean head, [T, K, 3]."""
    shape: Tensor
    """Shape basis at the points, [T, S, K, 3]; S = 0 when ``mean`` already is the person's."""
    normal: Tensor
    """Unit normal in the picture, [T, K, 2]."""
    target: Tensor
    """Where the picture's rim is, pixels, [T, K, 2]."""
    weight: Tensor
    """[T, K], zero where there is no point."""

    def at(self, frames: Tensor) -> Silhouette:
        """The points of some frames."""
        return Silhouette(*(getattr(self, f)[frames] for f in self.__dataclass_fields__))
