"""Codes and poses to Gaussians in one go for many frames: what a GPU runs live.

Does what ``Avatar.gaussians`` does, with everything that belongs to the avatar alone computed
beforehand, a leading axis for several states, views or avatars, and tensors whose shapes do not
depend on values: nothing is read back to the host, so a CUDA graph may hold all of it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cag_avatar.avatar.model import Avatar
from cag_avatar.avatar.offset_basis import OffsetBasis
from cag_avatar.avatar.surface_motion import SurfaceMotion
from cag_avatar.errors import InputError
from cag_avatar.fusion.concat import ConcatFusion
from cag_avatar.fusion.cross_attention import CrossAttentionFusion
from cag_avatar.fusion.offsets import NUM_OUTPUTS
from cag_avatar.fusion.one_token import OneTokenFusion
from cag_avatar.gaussians.attributes import Gaussians
from cag_avatar.rendering.spherical_harmonics import SH_CONSTANT, spherical_harmonics_basis

__all__ = ["FrameModule"]


def _check_alike(avatars: Sequence[Avatar]) -> None:
    """Raise InputError unless the avatars can share tensors."""
    first = avatars[0]
    for number, other in enumerate(avatars[1:], start=2):
        where = f"avatar {number} of {len(avatars)}"
        if other.num_gaussians != first.num_gaussians:
            raise InputError(
                f"{where}: has {other.num_gaussians} Gaussians, the first has "
                f"{first.num_gaussians}: draw them in batches of equal numbers"
            )
        heads = zip(other.head_tensors(), first.head_tensors(), strict=True)
        if other.head_name != first.head_name or not all(torch.equal(a, b) for a, b in heads):
            raise InputError(
                f"{where}: its head model '{other.head_name}' is not the first's "
                f"'{first.head_name}': draw them in batches of one head model"
            )
        for name in ("fusion", "neck_tokens", "heads", "head_size", "attention", "local_numbers",
                     "width", "depth", "octaves", "sh_degree"):  # fmt: skip
            theirs, ours = getattr(other.config, name), getattr(first.config, name)
            if theirs != ours:
                raise InputError(
                    f"{where}: {name} is {theirs}, the first has {ours}: draw them in batches of "
                    "one structure"
                )
        same = torch.equal(other.sample_face, first.sample_face)
        if not same or not torch.equal(other.sample_barycentric, first.sample_barycentric):
            raise InputError(
                f"{where}: its Gaussians sit elsewhere on the mesh than the first's: draw them in "
                "batches of one uv_resolution and density"
            )


class FrameModule(nn.Module):
    """Gaussians of B frames; equals ``Avatar.gaussians`` up to rounding.

    Args:
        avatars: A avatars on one device, alike in structure; they are copied.
        bases: live basis of each, to make the offsets; None runs the network for every Gaussian.
        dtype: of network, attention weights and basis.

    Raises:
        InputError: the avatars are not alike, or a fusion that is not known.
    """

    neutral: Tensor
    limits: Tensor
    log_scale: Tensor
    opacity: Tensor
    color: Tensor
    color_rest: Tensor
    basis: Tensor
    solve: Tensor
    mean: Tensor
    known_mean: Tensor
    first: Tensor
    from_context: Tensor
    weight_last: Tensor
    bias_last: Tensor
    network_limits: Tensor
    local: Tensor
    gate: Tensor
    embedding: Tensor

    @torch.no_grad()
    def __init__(
        self,
        avatars: Sequence[Avatar],
        bases: Sequence[OffsetBasis] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        _check_alike(avatars)
        first = avatars[0]
        self.dtype = dtype
        self.count = len(avatars)
        self.num_gaussians = first.num_gaussians
        self._config = first.config
        #: Its head model's tensors go where this module goes.
        self._own = copy.deepcopy(first).eval().requires_grad_(False)
        self._surface = SurfaceMotion(avatars)
        rows = None
        if bases is not None:
            rows = self._keep_bases(bases)
        self._keep_network(avatars, rows)

        def keep(name: str, values: list[Tensor]) -> None:
            self.register_buffer(name, torch.stack(values)[:, None], persistent=False)

        keep("neutral", [a.neutral_code for a in avatars])
        keep("limits", [a.offset_limits for a in avatars])
        keep("log_scale", [a.attributes.log_scale.detach() for a in avatars])
        keep("opacity", [a.attributes.opacity_logit.sigmoid() for a in avatars])
        keep("color", [0.5 + SH_CONSTANT * a.attributes.color_base[:, 0] for a in avatars])
        keep("color_rest", [a.attributes.color_rest.detach() for a in avatars])

    def _constant(self, name: str, values: list[Tensor]) -> None:
        """Keep values of all avatars, [A, ...], in the network's precision."""
        stacked = torch.stack([v.detach().float() for v in values]).to(self.dtype)
        self.register_buffer(name, stacked.contiguous(), persistent=False)

    def _keep_bases(self, bases: Sequence[OffsetBasis]) -> list[Tensor]:
        """Keep the live bases; returns the Gaussians [M] that each runs the network on."""
        if len(bases) != self.count or len({(b.rank, len(b.rows)) for b in bases}) > 1:
            raise InputError(
                "live basis: avatars that are drawn together need bases of one rank: run "
                "'cag-avatar compile --rank' on each"
            )
        n, device = self.num_gaussians, self._own.rest.device
        rows = [torch.from_numpy(b.rows).long().to(device) for b in bases]
        mean = [torch.from_numpy(b.mean).T[:n].to(device) for b in bases]
        directions = []
        for basis in bases:
            values = (
                torch.from_numpy(basis.levels).float() * torch.from_numpy(basis.step)[..., None]
            )
            flat = values.permute(2, 0, 3, 1).reshape(basis.rank, -1, NUM_OUTPUTS)[:, :n]
            directions.append(flat.reshape(basis.rank, -1).to(device))
        self._constant("basis", directions)
        # Weights are differences of large numbers, and few: float32.
        solve = torch.stack([torch.from_numpy(b.solve).T.to(device) for b in bases])
        self.register_buffer("solve", solve.contiguous(), persistent=False)
        self.register_buffer("mean", torch.stack(mean)[:, None], persistent=False)
        known = [m[r] for m, r in zip(mean, rows, strict=True)]
        self.register_buffer("known_mean", torch.stack(known)[:, None], persistent=False)
        return rows

    def _keep_network(self, avatars: Sequence[Avatar], rows: list[Tensor] | None) -> None:
        """Keep network and fusion, of the Gaussians ``rows`` [M] of each avatar or of all."""
        everything = torch.arange(self.num_gaussians, device=self._own.rest.device)
        own = list(zip(avatars, rows or [everything] * len(avatars), strict=True))
        networks = [a.network for a in avatars]
        split = networks[0].encoding_size
        self._constant("first", [a.network.static(a.encoding[r]) for a, r in own])
        self._constant("from_context", [n.first.weight[:, split:].T for n in networks])
        self._depth = len(networks[0].hidden)
        for k in range(self._depth):
            layers: list[Any] = [n.hidden[k] for n in networks]
            self._constant(f"weight{k}", [layer.weight.T for layer in layers])
            self._constant(f"bias{k}", [layer.bias[None] for layer in layers])
        self._constant("weight_last", [n.last.weight.T for n in networks])
        self._constant("bias_last", [n.last.bias[None] for n in networks])
        limits = [a.offset_limits[r] for a, r in own]
        self.register_buffer("network_limits", torch.stack(limits)[:, None], persistent=False)
        if avatars[0].local is not None:
            locals_: list[tuple[Any, Tensor]] = [(a.local, r) for a, r in own]
            matrices = [part.weight[r] * part.gain[r][:, None] for part, r in locals_]
            self._constant("local", matrices)
        fusions: list[Any] = [a.fusion for a in avatars]
        fusion = avatars[0].fusion
        if isinstance(fusion, CrossAttentionFusion):
            gates = []
            for avatar, r in own:
                gate = avatar.attention(r)
                assert gate is not None
                groups = fusion.groups
                # A token's value is the sum of its coefficients': as many columns of its gate.
                gates.append(gate if groups is None else gate[..., groups])
            scale = 1.0 if fusion.gates else float(fusion.num_tokens)
            self._constant("gate", gates)
            self._constant("embedding", [f.embedding * scale for f in fusions])
        elif isinstance(fusion, OneTokenFusion):
            self._constant("embedding", [f.value.weight.T for f in fusions])
        elif not isinstance(fusion, ConcatFusion):
            raise InputError(f"fusion: frames in batches do not do {type(fusion).__name__}")

    def _split(self, *values: Tensor) -> tuple[Tensor, ...]:
        """[B, ...] -> [A, S, ...]: S frames of each avatar."""
        return tuple(v.unflatten(0, (self.count, -1)) for v in values)

    def _context(self, psi: Tensor) -> Tensor:
        """Contexts [A, S, R or 1, C] of driving values [A, S, D]."""
        fusion = self._own.fusion
        psi = psi.to(self.dtype)
        if isinstance(fusion, CrossAttentionFusion):
            each = psi.transpose(1, 2)[:, None, :, :, None] * self.embedding[:, :, :, None]
            mixed = self.gate @ each.flatten(-2)  # [A, heads, R, S * head_size]
            mixed = mixed.unflatten(-1, (-1, fusion.head_size))
            return mixed.permute(0, 3, 2, 1, 4).flatten(-2)
        if isinstance(fusion, OneTokenFusion):
            return (psi @ self.embedding)[:, :, None]
        return psi[:, :, None]

    def _run_network(self, psi: Tensor) -> Tensor:
        """Bounded offsets [A, S, R, 12] of driving values [A, S, D]."""
        context = self._context(psi)
        states, some = context.shape[1:3]
        inner = torch.bmm(context.flatten(1, 2), self.from_context)
        value = torch.relu_(self.first[:, None] + inner.unflatten(1, (states, some)))
        value = value.flatten(1, 2)
        for k in range(self._depth):
            layer = getattr(self, f"weight{k}"), getattr(self, f"bias{k}")
            value = torch.relu_(torch.baddbmm(layer[1], value, layer[0]))
        raw = torch.baddbmm(self.bias_last, value, self.weight_last).unflatten(1, (states, -1))
        if self._own.local is not None:
            read = context[..., : self.local.shape[2]].transpose(1, 2)  # [A, R or 1, S, K]
            raw = raw + (read @ self.local).transpose(1, 2)
        return torch.tanh(raw.float()) * self.network_limits

    def offsets(self, code: Tensor, head_pose: Tensor, torso_pose: Tensor) -> Tensor:
        """Bounded offsets [B, N, 12] as in ``Offsets``; arguments as for forward()."""
        code, head_pose, torso_pose = self._split(code, head_pose, torso_pose)
        psi = code - self.neutral
        if self._config.neck_tokens:
            psi = torch.cat([psi, self._surface.neck_tokens(head_pose, torso_pose)], -1)
        found = self._run_network(psi)
        if hasattr(self, "basis"):
            weights = (found - self.known_mean).flatten(2) @ self.solve  # [A, S, K]
            spread = (weights.to(self.dtype) @ self.basis).float()
            found = self.mean + spread.unflatten(-1, (-1, NUM_OUTPUTS))
            found = torch.minimum(torch.maximum(found, -self.limits), self.limits)
        return found.flatten(0, 1)

    def vertices(self, code: Tensor, head_pose: Tensor, torso_pose: Tensor) -> Tensor:
        """The meshes in camera space, [B, V, 3]; arguments as for forward()."""
        driving = self._split(code, head_pose, torso_pose)
        return self._surface.vertices(self._own.head, *driving).flatten(0, 1)

    def gaussians(self, offsets: Tensor, vertices: Tensor, head_pose: Tensor) -> Gaussians:
        """Gaussians of offsets [B, N, 12], posed vertices [B, V, 3] and head poses [B, 4, 4]."""
        offsets, vertices, head_pose = self._split(offsets, vertices, head_pose)
        position, turn, log_scale, tint = offsets.split(3, dim=-1)
        carried = self._surface.carry(vertices, position, turn)
        color = self.color + tint
        if self._config.sh_degree > 0:
            directions = carried.points @ head_pose[..., :3, :3]
            basis = spherical_harmonics_basis(self._config.sh_degree, directions)
            color = color + (basis[..., 1:, None] * self.color_rest).sum(-2)
        opacity = self.opacity.expand(-1, offsets.shape[1], -1)
        fields = (
            carried.means,
            carried.quaternions,
            (self.log_scale + log_scale).exp(),
            opacity,
            color.clamp_min(0),
        )
        return Gaussians(*(f.flatten(0, 1).contiguous() for f in fields))

    def forward(self, code: Tensor, head_pose: Tensor, torso_pose: Tensor) -> Gaussians:
        """Gaussians of B frames.

        Args:
            code: expression codes, [B, E]; B is a multiple of the avatars' number A, and the first
                B / A frames are the first avatar's.
            head_pose: canonical to camera space, [B, 4, 4].
            torso_pose: canonical to camera space, [B, 4, 4].

        Returns:
            All fields with a first axis B, float32.
        """
        offsets = self.offsets(code, head_pose, torso_pose)
        vertices = self.vertices(code, head_pose, torso_pose)
        return self.gaussians(offsets, vertices, head_pose)

    @property
    def avatar(self) -> Avatar:
        """The first avatar's copy."""
        return self._own
