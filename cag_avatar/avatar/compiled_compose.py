"""The last step to the Gaussians (eq. 7) in compiled loops, for training on the CPU.

In torch it is some eighty small operations forward and backward; ``native/compose.c`` goes over the
Gaussians once each way.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from ctypes import c_float, c_int32, c_void_p
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.gaussians.attributes import GaussianAttributes, Gaussians
from cag_avatar.gaussians.surface import SurfaceBinding
from cag_avatar.native.library import NativeUnavailableError, check_layout, load_library
from cag_avatar.parallel import kernel_launch, thread_count

__all__ = ["can_compile", "compiled_compose"]

_log = logging.getLogger(__name__)
#: Highest degree of the spherical harmonics that compose.c evaluates.
_MAX_SH_DEGREE = 2
#: BLOCK of compose.c: Gaussians that give one sum of the head rotation's gradient.
_BLOCK = 64
_LEARNED = ("raw", "rotation", "log_scale", "logit", "base", "rest")
#: Which of _MADE each of them has its gradient from; None: from several.
_SOURCE = (None, 1, 2, 3, 4, 4)
_MADE = ("means", "quaternions", "scales", "opacities", "colors")


class _Compose(ctypes.Structure):
    """``Compose`` of compose.c."""

    _fields_ = (
        *((name, c_int32) for name in ("gaussians", "sh_degree", "threads", "reserved")),
        *((name, c_void_p) for name in (
            "raw", "limit", "rotation", "log_scale", "logit", "base", "rest", "vertices", "corner",
            "weight", "triangle", "turn", "quaternion",
        )),
        ("head", c_float * 9),
        ("unused", c_float),
        *((name, c_void_p) for name in (
            *_MADE, *(f"grad_{name}" for name in _MADE), *(f"grad_{name}" for name in _LEARNED),
            "grad_points", "torque", "grad_head",
        )),
    )  # fmt: skip


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    try:
        library = load_library("compose")
    except NativeUnavailableError as error:
        _log.info("Gaussians: torch (%s)", error)
        return None
    check_layout(library, _Compose)
    return library


def can_compile(vertices: Tensor, raw: Tensor, head_pose: Tensor, sh_degree: int) -> bool:
    """Whether compiled_compose() does for these tensors what compose() does."""
    tensors = (vertices, raw, head_pose)
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    exported = torch.onnx.is_in_onnx_export() or torch.jit.is_tracing()
    usable = plain and not exported and sh_degree <= _MAX_SH_DEGREE
    return usable and _library() is not None


def compiled_compose(
    binding: SurfaceBinding,
    vertices: Tensor,
    raw: Tensor,
    limits: Tensor,
    attributes: GaussianAttributes,
    sh_degree: int,
    head_rotation: Tensor,
) -> Gaussians:
    """Gaussians of a frame; differentiable in all tensors but ``limits``.

    Args:
        binding: Gaussians to triangles.
        vertices: posed, [V, 3].
        raw: outputs of the offset network, [N, 12].
        limits: bounds of the offsets, [N, 12].
        attributes: of the Gaussians.
        sh_degree: 0 to 2.
        head_rotation: canonical to camera, [3, 3]; spherical harmonics are taken in its frame.
    """
    made = _Function.apply(
        binding, vertices, limits, sh_degree, head_rotation, raw, attributes.rotation,
        attributes.log_scale, attributes.opacity_logit, attributes.color_base,
        attributes.color_rest,
    )  # fmt: skip
    return Gaussians(*made)


def _structure(
    learned: Sequence[Tensor],
    binding: SurfaceBinding,
    vertices: Tensor,
    limits: Tensor,
    sh_degree: int,
    head_rotation: Tensor,
    frames: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> tuple[_Compose, list[Any]]:
    """The C structure of what is known, and what it points to."""
    corner, weight, triangle = binding.arrays().gaussian_arguments
    s = _Compose(gaussians=len(learned[0]), sh_degree=sh_degree, threads=thread_count())
    kept: list[Any] = [vertices.detach().contiguous(), limits.detach().contiguous()]
    kept += [tensor.detach().contiguous() for tensor in learned]
    s.vertices, s.limit = kept[0].data_ptr(), kept[1].data_ptr()
    for name, tensor in zip(_LEARNED, kept[2:], strict=True):
        setattr(s, name, tensor.data_ptr())
    arrays = {"corner": corner, "weight": weight, "triangle": triangle}
    arrays |= {"turn": frames[0], "quaternion": frames[1]}
    for name, array in arrays.items():
        setattr(s, name, array.ctypes.data)
    s.head = (c_float * 9)(*head_rotation.detach().float().flatten().tolist())
    return s, [*kept, *arrays.values()]


class _Function(torch.autograd.Function):
    """The compiled loops under autograd."""

    @staticmethod
    def forward(
        ctx: Any,
        binding: SurfaceBinding,
        vertices: Tensor,
        limits: Tensor,
        sh_degree: int,
        head_rotation: Tensor,
        *learned: Tensor,
    ) -> tuple[Tensor, ...]:
        from cag_avatar.gaussians import carry_kernels

        library = _library()
        assert library is not None
        n = len(learned[0])
        made = [torch.empty(n, size) for size in (3, 4, 3, 1, 3)]
        made[3] = made[3][:, 0]
        posed = vertices.detach().contiguous().numpy()
        with kernel_launch:
            turns, lengths, quaternions = carry_kernels.pose_frames(
                posed, *binding.arrays().frame_arguments
            )
            ctx.constants = (
                binding, vertices, limits, sh_degree, head_rotation, (turns, quaternions),
            )  # fmt: skip
            ctx.lengths = lengths
            s, kept = _structure(learned, *ctx.constants)
            for name, tensor in zip(_MADE, made, strict=True):
                setattr(s, name, tensor.data_ptr())
            library.cag_compose(ctypes.byref(s))
            del kept
        ctx.save_for_backward(*learned)
        ctx.set_materialize_grads(False)
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        learned = ctx.saved_tensors
        n = len(learned[0])
        library = _library()
        assert library is not None
        given = [
            torch.zeros(n, size) if grad is None else grad.contiguous()
            for grad, size in zip(grads, (3, 4, 3, 1, 3), strict=True)
        ]
        result = [torch.empty_like(tensor) for tensor in learned]
        surface = ctx.needs_input_grad[1] or ctx.needs_input_grad[4]
        points, torque = torch.empty(n, 3), np.empty((n, 3))
        head = np.empty((-(-n // _BLOCK), 9))
        with kernel_launch:
            s, kept = _structure(learned, *ctx.constants)
            if surface:
                s.grad_points, s.torque = points.data_ptr(), torque.ctypes.data
                s.grad_head = head.ctypes.data
            for name, tensor in zip(_MADE, given, strict=True):
                setattr(s, f"grad_{name}", tensor.data_ptr())
            for name, tensor in zip(_LEARNED, result, strict=True):
                setattr(s, f"grad_{name}", tensor.data_ptr())
            library.cag_compose_backward(ctypes.byref(s))
            del kept
        d_vertices = d_head = None
        if ctx.needs_input_grad[1]:
            d_vertices = _vertices_gradient(ctx, given[0], points, torque)
        if ctx.needs_input_grad[4]:
            d_head = torch.from_numpy(head.sum(0).astype(np.float32)).view(3, 3)
        wanted = [
            grad if want and (source is None or grads[source] is not None) else None
            for grad, want, source in zip(result, ctx.needs_input_grad[5:], _SOURCE, strict=True)
        ]
        return (None, d_vertices, None, None, d_head, *wanted)


def _vertices_gradient(
    ctx: Any, means: Tensor, points: Tensor, torque: NDArray[np.float64]
) -> Tensor:
    """Gradient of the posed mesh [V, 3] from forces on the means and points and from torques."""
    from cag_avatar.gaussians import carry_kernels

    binding, vertices, _, _, _, (turns, _) = ctx.constants
    topology = binding.arrays()
    with kernel_launch:
        found = carry_kernels.vertices_backward(
            means.numpy(), points.numpy(), torque, vertices.detach().contiguous().numpy(), turns,
            ctx.lengths, *topology.frame_arguments[:3], *topology.gaussian_arguments,
        )  # fmt: skip
    return torch.from_numpy(found)
