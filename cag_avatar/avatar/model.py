"""The avatar: a head mesh, Gaussians on its surface, and a network that moves them further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cag_avatar.avatar.compiled_compose import can_compile, compiled_compose
from cag_avatar.avatar.config import AvatarConfig
from cag_avatar.avatar.offset_basis import OffsetBasis
from cag_avatar.avatar.record import CaptureRecord
from cag_avatar.errors import InputError
from cag_avatar.fusion.encoding import encode_positions, encoded_size
from cag_avatar.fusion.factory import make_fusion
from cag_avatar.fusion.local import LocalOffsets
from cag_avatar.fusion.offsets import (
    OffsetNetwork,
    Offsets,
    bounded_offsets,
    offset_limits,
)
from cag_avatar.fusion.reach import token_reach
from cag_avatar.fusion.tokens import driving_values, token_groups, token_names
from cag_avatar.gaussians.attributes import GaussianAttributes, Gaussians
from cag_avatar.gaussians.carry import carry
from cag_avatar.gaussians.surface import SurfaceBinding
from cag_avatar.gaussians.uv_sampling import SurfaceSamples, sample_uv
from cag_avatar.head_models.base import REGIONS, HeadModel
from cag_avatar.rendering.spherical_harmonics import SH_CONSTANT, spherical_harmonics_basis

__all__ = ["Avatar", "compose"]

#: Head model tensors that an avatar has its own of, or does not need.
_PERSONAL = ("vertices", "identity_basis")


def compose(
    binding: SurfaceBinding,
    vertices: Tensor,
    offsets: Offsets,
    rotation: Tensor,
    log_scale: Tensor,
    opacity: Tensor,
    color: Callable[[Tensor], Tensor],
) -> Gaussians:
    """Final Gaussians from the posed mesh, offsets and attributes (eq. 7).

    Args:
        binding: Gaussians to triangles.
        vertices: posed, [V, 3].
        offsets: bounded outputs of the offset network.
        rotation: rest quaternions, not normalised, [N, 4].
        log_scale: rest log-scales, [N, 3].
        opacity: in (0, 1), [N].
        color: RGB [N, 3] before the offset, of surface points [N, 3].
    """
    carried = carry(binding, vertices, offsets.position, offsets.rotation, rotation)
    return Gaussians(
        means=carried.means,
        quaternions=carried.quaternions,
        scales=(log_scale + offsets.log_scale).exp(),
        opacities=opacity,
        colors=(color(carried.points) + offsets.color).clamp_min(0),
    )


class Avatar(nn.Module):
    """An animatable head of N Gaussians, driven by E coefficients and two poses.

    Args:
        config: structure.
        head: the head model; what is needed of it is copied.
        rest: rest vertices of the person, canonical space, metres, [V, 3].
        samples: where the Gaussians sit; sampled by ``config`` if None.
        record: camera, neutral poses, ranges; may be set later, needed to save.

    Raises:
        InputError: shapes do not fit.
    """

    def __init__(
        self,
        config: AvatarConfig,
        head: HeadModel,
        rest: Tensor,
        samples: SurfaceSamples | None = None,
        record: CaptureRecord | None = None,
    ) -> None:
        super().__init__()
        if rest.shape != head.vertices.shape:
            raise InputError(
                f"rest: shape {list(rest.shape)}, {head.name} has {list(head.vertices.shape)}"
            )
        self.config = config
        self._head_class = type(head)
        self._head_fields: dict[str, Any] = {
            "name": head.name,
            "expression_names": head.expression_names,
            "metadata": head.metadata,
            "file": head.file,
        }
        self.record = record
        #: Stands for the offset network live; None until the avatar is compiled.
        self.live_basis: OffsetBasis | None = None
        if samples is None:
            samples = sample_uv(head, config.uv_resolution, config.density)
        self.register_buffer("rest", rest.detach().clone())
        # In the file, so that it needs nothing else, unless the model's licence forbids that.
        self._head_tensors = tuple(n for n in head.tensor_shapes if n not in _PERSONAL)
        for name in self._head_tensors:
            value = getattr(head, name).clone()
            self.register_buffer(name, value, persistent=head.embeddable)
        for name in ("neutral_code", "code_low", "code_high"):
            self.register_buffer(name, getattr(head, name).clone(), persistent=False)
        for name in ("face", "barycentric", "uv", "region"):
            self.register_buffer(f"sample_{name}", getattr(samples, name).clone())
        self.binding = SurfaceBinding(samples, self.faces, self.rest)
        self.attributes = GaussianAttributes(
            self.binding.rest_points, self.binding.gaussian_rest_frames, config.sh_degree
        )
        encoding = encoded_size(config.octaves)
        groups = token_groups(token_names(head.code_tokens, config.neck_tokens))
        self.fusion = make_fusion(
            config.fusion, encoding, len(groups), config.heads, config.head_size, groups,
            config.attention,
        )  # fmt: skip
        self.network = OffsetNetwork(encoding, self.fusion.context_size, config.width, config.depth)
        embedded = encode_positions(self.binding.rest_points, config.octaves, config.position_scale)
        self.register_buffer("encoding", embedded, persistent=False)
        reach = None
        if config.fusion == "cross-attention" and config.attention == "gates":
            reach = token_reach(
                head, rest, self.binding.corner, self.binding.barycentric, config.neck_tokens
            )
        self.register_buffer("reach", reach, persistent=False)
        bounds = torch.tensor(
            [config.max_region_offset.get(name, config.max_offset) for name in REGIONS]
        )
        limits = offset_limits(
            bounds[samples.region], config.max_rotation, config.max_log_scale, config.max_color
        )
        self.register_buffer("offset_limits", limits, persistent=False)
        local = min(config.local_numbers, self.fusion.context_size)
        gain = torch.ones_like(limits)
        gain[:, :3] = (config.max_offset / limits[:, :3].clamp(min=1e-9)).clamp(max=1)
        self.local = LocalOffsets(local, gain) if local else None

    rest: Tensor
    faces: Tensor
    neck_pivot: Tensor
    neutral_code: Tensor
    code_low: Tensor
    code_high: Tensor
    sample_face: Tensor
    sample_barycentric: Tensor
    sample_uv: Tensor
    sample_region: Tensor
    encoding: Tensor
    reach: Tensor | None
    offset_limits: Tensor

    @property
    def head_name(self) -> str:
        """Name of the head model."""
        return str(self._head_fields["name"])

    @property
    def expression_names(self) -> tuple[str, ...]:
        """Name of each coefficient of a code."""
        names: tuple[str, ...] = self._head_fields["expression_names"]
        return names

    @property
    def num_gaussians(self) -> int:
        """Number of Gaussians N."""
        return int(self.sample_face.shape[0])

    def in_regions(self, *names: str) -> Tensor:
        """Which Gaussians belong to one of the named regions of the mesh (REGIONS), [N] bool."""
        chosen = torch.tensor([name in names for name in REGIONS], device=self.sample_region.device)
        return chosen[self.sample_region]

    @property
    def head(self) -> HeadModel:
        """The person's head as a head model without identity components."""
        return self._head_class(
            vertices=self.rest,
            identity_basis=self.rest.new_zeros(0, *self.rest.shape),
            **{name: getattr(self, name) for name in self._head_tensors},
            **self._head_fields,
        )

    def head_tensors(self) -> list[Tensor]:
        """What it has of its head model, the person aside."""
        return [getattr(self, name) for name in self._head_tensors]

    def posed_vertices(self, code: Tensor, head_pose: Tensor, torso_pose: Tensor) -> Tensor:
        """The mesh in camera space, [V, 3]; arguments as for gaussians()."""
        return self.head.posed_vertices(self.rest, code[None], head_pose[None], torso_pose[None])[0]

    def tokens(self, code: Tensor, head_pose: Tensor, torso_pose: Tensor) -> Tensor:
        """Psi [D] of a frame, zero at rest; arguments as for gaussians()."""
        change = code - self.neutral_code
        return driving_values(change, head_pose, torso_pose, self.config.neck_tokens)

    def attention(self, rows: Tensor | None = None) -> Tensor | None:
        """What the fusion knows of the Gaussians alone (Fusion.static); of some ``rows`` [R]."""
        encoding, reach = self.encoding, self.reach
        if rows is not None:
            encoding, reach = encoding[rows], None if reach is None else reach[rows]
        return self.fusion.static(encoding, reach)

    def decode(
        self,
        network: OffsetNetwork,
        first: Tensor,
        context: Tensor,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Raw offsets of the network and of the Gaussians' own matrices, [R, 12].

        Args:
            network: the avatar's, or a copy in another precision.
            first: what OffsetNetwork.static() gives, [R, width].
            context: [R, C] or [1, C].
            rows: Gaussians meant, [R]; all if None.
        """
        raw = network.from_static(first, context)
        return raw if self.local is None else raw + self.local(context, rows)

    def raw_offsets(self, code: Tensor, head_pose: Tensor, torso_pose: Tensor) -> Tensor:
        """Outputs of the offset network before they are bounded, [N, 12] (eqs. 5 and 6)."""
        context = self.fusion.context(self.attention(), self.tokens(code, head_pose, torso_pose))
        return self.decode(self.network, self.network.static(self.encoding), context)

    def base_colors(self, points: Tensor, head_pose: Tensor) -> Tensor:
        """RGB [N, 3] of Gaussians at ``points`` (camera space, [N, 3]) seen from the camera.

        Spherical harmonics are taken of the direction from the camera in the head's frame: the head
        turns under a fixed light, so they stand for its shading as much as for gloss.
        """
        color = 0.5 + SH_CONSTANT * self.attributes.color_base[:, 0]
        if self.config.sh_degree == 0:
            return color
        directions = points @ head_pose[:3, :3].to(points.dtype)
        basis = spherical_harmonics_basis(self.config.sh_degree, directions)
        # One product after the other: summing over a middle axis is several times slower.
        for index, coefficient in enumerate(self.attributes.color_rest.unbind(1), start=1):
            color = torch.addcmul(color, basis[:, index, None], coefficient)
        return color

    def gaussians(
        self,
        code: Tensor,
        head_pose: Tensor,
        torso_pose: Tensor,
        raw: Tensor | None = None,
        vertices: Tensor | None = None,
        *,
        plain: bool = False,
    ) -> Gaussians:
        """The Gaussians of one frame; differentiable in all arguments and parameters.

        Args:
            code: expression code, [E].
            head_pose: canonical to camera space, [4, 4].
            torso_pose: canonical to camera space, [4, 4].
            raw: outputs of raw_offsets() to use instead of running the network, [N, 12].
            vertices: result of posed_vertices() to use instead of posing the mesh, [V, 3].
            plain: compose them in torch also where compiled code would.
        """
        if vertices is None:
            vertices = self.posed_vertices(code, head_pose, torso_pose)
        if raw is None:
            raw = self.raw_offsets(code, head_pose, torso_pose)
        attributes = self.attributes
        if not plain and can_compile(vertices, raw, head_pose, self.config.sh_degree):
            return compiled_compose(
                self.binding, vertices, raw, self.offset_limits, attributes, self.config.sh_degree,
                head_pose[:3, :3],
            )  # fmt: skip
        return compose(
            self.binding,
            vertices,
            bounded_offsets(raw, self.offset_limits),
            attributes.rotation,
            attributes.log_scale,
            attributes.opacity_logit.sigmoid(),
            lambda points: self.base_colors(points, head_pose),
        )
