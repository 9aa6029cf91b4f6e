"""Carrying Gaussians with the surface: plain torch, and the same in compiled loops for the CPU.

The plain version is some sixty small tensor operations; the loops of ``carry_kernels.py`` do the
same work in two passes. Both give the same values and gradients.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cag_avatar.gaussians.surface import SurfaceBinding
from cag_avatar.geometry import quaternion_multiply
from cag_avatar.parallel import kernel_launch, thread_count

__all__ = ["Carried", "carry", "carry_plain"]


class Carried(NamedTuple):
    """Gaussians moved by the mesh and by their offsets."""

    means: Tensor
    """mu_M plus the turned offset, [N, 3]."""
    quaternions: Tensor
    """Unit, wxyz, [N, 4]; the sign is arbitrary."""
    points: Tensor
    """mu_M, on the posed surface, [N, 3]."""


def carry(
    binding: SurfaceBinding, vertices: Tensor, position: Tensor, turn: Tensor, rotation: Tensor
) -> Carried:
    """Move Gaussians with the posed mesh and add their offsets (eq. 7).

    The position offset is given in canonical axes and turns with the surface; the rotation offset
    is applied after the Gaussian's own rotation and before the surface's.

    Args:
        binding: Gaussians to triangles.
        vertices: posed, [V, 3].
        position: offsets, metres, [N, 3].
        turn: rotation offsets: imaginary parts of quaternions whose real part is 1, [N, 3].
        rotation: rest orientations, quaternions wxyz, not normalised, [N, 4].
    """
    compiled = vertices.device.type == "cpu" and vertices.dtype == torch.float32
    if compiled and not torch.onnx.is_in_onnx_export():  # a graph holds torch operations only
        return Carried(*_Carry.apply(binding, vertices, position, turn, rotation))
    return carry_plain(binding, vertices, position, turn, rotation)


def carry_plain(
    binding: SurfaceBinding, vertices: Tensor, position: Tensor, turn: Tensor, rotation: Tensor
) -> Carried:
    """As :func:`carry`, in plain torch on any device and dtype."""
    points = binding.points(vertices)
    matrices, quaternions = binding.rotations(vertices)
    turned = quaternion_multiply(nn.functional.pad(turn, (1, 0), value=1.0), rotation)
    local = nn.functional.normalize(turned, dim=-1)
    return Carried(
        means=points + (matrices @ position[..., None])[..., 0],
        quaternions=quaternion_multiply(quaternions, local),
        points=points,
    )


class _Carry(torch.autograd.Function):
    """The compiled loops under autograd."""

    @staticmethod
    def forward(
        ctx: Any,
        binding: SurfaceBinding,
        vertices: Tensor,
        position: Tensor,
        turn: Tensor,
        rotation: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        from cag_avatar.gaussians import carry_kernels

        topology = binding.arrays()
        posed, offset, turned, rest = (
            t.detach().contiguous().numpy() for t in (vertices, position, turn, rotation)
        )
        with kernel_launch:
            frames, lengths, quaternions = carry_kernels.pose_frames(
                posed, *topology.frame_arguments
            )
            means, oriented, points = carry_kernels.carry_forward(
                thread_count(), posed, offset, turned, rest, frames, quaternions,
                *topology.gaussian_arguments,
            )  # fmt: skip
        ctx.binding = binding
        ctx.save_for_backward(vertices, position, turn, rotation)
        ctx.frames = (frames, lengths, quaternions)
        result = torch.from_numpy(means), torch.from_numpy(oriented), torch.from_numpy(points)
        if not ctx.needs_input_grad[1]:
            ctx.mark_non_differentiable(result[2])
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        from cag_avatar.gaussians import carry_kernels

        vertices, position, turn, rotation = ctx.saved_tensors
        frames, lengths, quaternions = ctx.frames
        topology = ctx.binding.arrays()
        g_means, g_quaternions, g_points = (
            (torch.zeros_like(like) if grad is None else grad).detach().contiguous().numpy()
            for grad, like in zip(grads, (position, rotation, position), strict=True)
        )
        posed, offset, turned, rest = (
            t.detach().contiguous().numpy() for t in (vertices, position, turn, rotation)
        )
        with kernel_launch:
            d_offset, d_turn, d_rest, torque = carry_kernels.carry_backward(
                thread_count(), g_means, g_quaternions, offset, turned, rest, frames,
                quaternions, topology.triangle,
            )  # fmt: skip
        d_vertices = None
        if ctx.needs_input_grad[1]:
            d_vertices = torch.from_numpy(
                carry_kernels.vertices_backward(
                    g_means, g_points, torque, posed, frames, lengths,
                    *topology.frame_arguments[:3], *topology.gaussian_arguments,
                )
            )  # fmt: skip
        return (
            None,
            d_vertices,
            torch.from_numpy(d_offset),
            torch.from_numpy(d_turn),
            torch.from_numpy(d_rest),
        )
