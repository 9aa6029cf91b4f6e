"""The head model interface: a skinned mesh with identity, an expression code and named regions."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from cag_avatar.head_models.arkit import (
    ARKIT_INDEX,
    MAX_GAZE_PITCH,
    MAX_GAZE_YAW,
    arkit_source,
)

__all__ = ["HEAD_MODEL_KINDS", "MAX_GAZE_PITCH", "MAX_GAZE_YAW", "REGIONS", "HeadModel"]

#: Named regions; every face of the mesh carries the index of one of them. A model need not have
#: all of them (FLAME has no teeth).
REGIONS: tuple[str, ...] = (
    "face_skin",
    "lips",
    "teeth_upper",
    "teeth_lower",
    "tongue",
    "mouth_cavity",
    "eye_left",
    "eye_right",
    "ears",
    "scalp",
    "neck",
    "shoulders",
)

#: Forward-mode differentiation has one state for all threads of a process.
_FORWARD_MODE = threading.Lock()

#: Kinds of head model by the name that files carry; subclasses of HeadModel enter themselves.
HEAD_MODEL_KINDS: dict[str, type[HeadModel]] = {}


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadModel(ABC):
    """A head mesh with an identity basis, an expression code, joints, UVs and regions.

    V vertices, F faces, I identity components, E expression coefficients, J joints; canonical space
    (metres, x to the subject's left, y up, z out of the face, origin midway between the eyeballs of
    the mean head).

    A subclass says what a code does: ``joint_names``, :meth:`express` and :meth:`joint_transforms`,
    and where they differ from ARKit's the bounds, the neutral code and the tokens. It is named by
    ``kind`` in files (``class Mine(HeadModel, kind="mine")``), and lists the tensors it adds in
    ``tensor_shapes``; that is all that saving, loading, Gaussians, fusion and rendering need.
    """

    kind: ClassVar[str]
    """Name of the subclass in files."""
    embeddable: ClassVar[bool] = True
    """Whether an avatar file may carry the model; otherwise it names it, and the model's own file
    is needed to open the avatar."""
    tensor_shapes: ClassVar[dict[str, tuple[str | int, ...]]] = {
        "vertices": ("V", 3),
        "faces": ("F", 3),
        "uv": ("U", 2),
        "face_uv": ("F", 3),
        "identity_basis": ("I", "V", 3),
        "skinning": ("V", "J"),
        "neck_pivot": (3,),
        "eye_left": ("L",),
        "eye_right": ("R",),
        "face_region": ("F",),
        "vertex_region": ("V",),
    }
    """Tensor fields and their shapes; a letter stands for the same number everywhere."""
    index_bounds: ClassVar[dict[str, str]] = {
        "faces": "V",
        "face_uv": "U",
        "eye_left": "V",
        "eye_right": "V",
        "face_region": "regions",
        "vertex_region": "regions",
    }
    """Tensor fields that hold indices (int64), and what each counts."""

    name: str
    """Name of the model, stored in every file that depends on its topology."""
    expression_names: tuple[str, ...]
    """Name of each coefficient of a code."""
    vertices: Tensor
    """Mean rest head, [V, 3] float32."""
    faces: Tensor
    """Triangles, counter-clockwise seen from outside, [F, 3] int64."""
    uv: Tensor
    """Texture coordinates in [0, 1], v up, one atlas without overlaps, [U, 2] float32."""
    face_uv: Tensor
    """Corner indices into ``uv``, [F, 3] int64."""
    identity_basis: Tensor
    """Offsets per unit-variance identity component, [I, V, 3] float32."""
    skinning: Tensor
    """Weights over ``joint_names``, [V, J] float32, rows sum to 1."""
    neck_pivot: Tensor
    """Point in which the neck bends, canonical space, [3] float32."""
    eye_left: Tensor
    """Vertex indices of the left eyeball, int64; empty if the model has none."""
    eye_right: Tensor
    """Vertex indices of the right eyeball, int64; empty if the model has none."""
    face_region: Tensor
    """Index into REGIONS of each face, [F] int64."""
    vertex_region: Tensor
    """Index into REGIONS of each vertex, [V] int64."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Source and licence, as text."""
    file: Path | None = None
    """File that the model was read from."""

    def __init_subclass__(cls, kind: str, **keywords: object) -> None:
        super().__init_subclass__(**keywords)
        cls.kind = kind
        HEAD_MODEL_KINDS[kind] = cls

    @property
    @abstractmethod
    def joint_names(self) -> tuple[str, ...]:
        """Name of each joint; a model without joints has one, the head."""

    @abstractmethod
    def express(self, rest: Tensor, code: Tensor) -> Tensor:
        """Add the expression: rest [V, 3], code [B, E] -> canonical vertices [B, V, 3].

        What joints move (eyeballs, a jaw that turns) is not moved here.
        """

    @abstractmethod
    def joint_transforms(
        self, rest: Tensor, code: Tensor, head_pose: Tensor, torso_pose: Tensor
    ) -> Tensor:
        """Transform of every joint, canonical space to camera space.

        Args:
            rest: rest head [V, 3].
            code: expression codes [B, E].
            head_pose: canonical to camera space, [B, 4, 4].
            torso_pose: canonical to camera space, [B, 4, 4].

        Returns:
            [B, J, 4, 4] in the order of ``joint_names``.
        """

    @property
    def num_identity(self) -> int:
        """Number of identity components I."""
        return int(self.identity_basis.shape[0])

    @property
    def num_expression(self) -> int:
        """Number of expression coefficients E."""
        return len(self.expression_names)

    @property
    def neutral_code(self) -> Tensor:
        """The code of the rest head, [E]."""
        return self.vertices.new_zeros(self.num_expression)

    @property
    def code_low(self) -> Tensor:
        """Smallest sensible coefficients, [E]; -inf where there is no bound."""
        return self.vertices.new_zeros(self.num_expression)

    @property
    def code_high(self) -> Tensor:
        """Largest sensible coefficients, [E]; inf where there is no bound."""
        return self.vertices.new_ones(self.num_expression)

    @property
    def code_deviation(self) -> Tensor:
        """How far a coefficient strays from what ARKit scores suggest (arkit_to_code()), [E].

        Standard deviations, for fitting.
        """
        return self.vertices.new_full((self.num_expression,), 0.25)

    @property
    def code_tokens(self) -> tuple[str, ...]:
        """Name of the token that each coefficient belongs to, E of them.

        Coefficients that mean something only together (the six numbers of a rotation) share one.
        """
        return self.expression_names

    @property
    def eye_vertices(self) -> tuple[Tensor, Tensor]:
        """Vertex indices of the left and the right eyeball, int64; may be empty."""
        return self.eye_left, self.eye_right

    def arkit_to_code(self, arkit: Tensor) -> Tensor:
        """ARKIT_NAMES coefficients [B, 52] -> codes [B, E], as far as there is a mapping.

        Here by name: ARKit's own, or with _L and _R for Left and Right as in ICT-FaceKit. A
        coefficient with another name stays neutral.
        """
        code = self.neutral_code.to(arkit).repeat(len(arkit), 1)
        for index, name in enumerate(self.expression_names):
            source = arkit_source(name)
            if source is not None:
                code[:, index] = arkit[:, ARKIT_INDEX[source]]
        return code

    def region_faces(self, *names: str) -> Tensor:
        """Indices of faces in any of the named regions, int64. Raises KeyError on a bad name."""
        wanted = torch.zeros(len(REGIONS), dtype=torch.bool)
        for name in names:
            if name not in REGIONS:
                raise KeyError(f"no region '{name}'; choose from {', '.join(REGIONS)}")
            wanted[REGIONS.index(name)] = True
        return torch.nonzero(wanted[self.face_region]).flatten()

    def region_vertices(self, *names: str) -> Tensor:
        """Indices of the vertices used by faces of the named regions, int64."""
        return torch.unique(self.faces[self.region_faces(*names)])

    def rest_vertices(self, identity: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Rest head [V, 3] of an identity [I], with optional vertex offsets [V, 3] in metres."""
        flat = self.identity_basis.reshape(self.num_identity, -1)
        rest = self.vertices + (identity @ flat).reshape(-1, 3)
        return rest if offsets is None else rest + offsets

    def eye_centres(self, rest: Tensor) -> Tensor:
        """Centres of the eyeballs of a rest head [V, 3]: [2, 3] (left, right); NaN for none."""
        return torch.stack([rest[index].mean(0) for index in self.eye_vertices])

    def skin(self, canonical: Tensor, joints: Tensor) -> Tensor:
        """Linear blend skinning: canonical [B, V, 3], joints [B, J, 4, 4] -> camera [B, V, 3]."""
        # Every joint moves every vertex, then the weights blend the results: with few joints one
        # matrix product is ten times quicker than blending a matrix for every vertex.
        batch, vertices = canonical.shape[:2]
        count = joints.shape[1]
        stacked = joints[:, :, :3].reshape(batch, count * 3, 4)
        moved = torch.baddbmm(
            stacked[:, None, :, 3], canonical, stacked[:, :, :3].transpose(1, 2)
        ).reshape(batch, vertices, count, 3)
        return (moved * self.skinning[..., None]).sum(2)

    def posed_vertices(
        self, rest: Tensor, code: Tensor, head_pose: Tensor, torso_pose: Tensor
    ) -> Tensor:
        """Vertices in camera space [B, V, 3]: expression, then skinning.

        Arguments as for :meth:`joint_transforms`.
        """
        joints = self.joint_transforms(rest, code, head_pose, torso_pose)
        return self.skin(self.express(rest, code), joints)

    def local_points(
        self, rest: Tensor, code: Tensor, faces: Tensor, barycentric: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Surface points in the head's own frame, head and torso together, and their Jacobian.

        Here by forward differentiation of the whole mesh, right for every model and slow.

        Args:
            rest: rest head [V, 3].
            code: expression codes [T, E].
            faces: face of each point, [N] int64.
            barycentric: weights of that face's corners, [N, 3].

        Returns:
            Positions [T, N, 3], canonical axes, metres, and their derivative by the code
            [T, E, N, 3].
        """
        still = torch.eye(4, dtype=code.dtype, device=code.device)[None]

        def points(one: Tensor) -> Tensor:
            posed = self.posed_vertices(rest, one[None], still, still)[0]
            return (posed[self.faces[faces]] * barycentric[..., None]).sum(1)

        with _FORWARD_MODE:
            jacobian = [torch.func.jacfwd(points)(one).permute(2, 0, 1) for one in code]
        return torch.stack([points(one) for one in code]), torch.stack(jacobian)
