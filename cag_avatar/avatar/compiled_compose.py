"""The last step to the Gaussians (eq. 7) in compiled loops, for training on the CPU.

In torch it is some eighty small operations forward and backward; ``native/compose.c`` goes over the
Gaussians once each way. The posed mesh gets no gradient here: where it needs one, ``compose`` of
``model.py`` is used.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from ctypes import c_float, c_int32, c_int64, c_void_p
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.gaussians.attributes import GaussianAttributes, Gaussians
from cag_avatar.gaussians.surface import SurfaceBinding
from cag_avatar.native.library import NativeUnavailableError, load_library
from cag_avatar.parallel import kernel_launch, thread_count

__all__ = ["can_compile", "compiled_compose"]

_log = logging.getLogger(__name__)
#: Highest degree of the spherical harmonics that compose.c evaluates.
_MAX_SH_DEGREE = 2
_LEARNED = ("raw", "rotation", "log_scale", "logit", "base", "rest")
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
        )),
    )  # fmt: skip


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    try:
        library = load_library("compose")
    except NativeUnavailableError as error:
        _log.info("Gaussians: torch (%s)", error)
        return None
    library.cag_compose_size.restype = c_int64
    if library.cag_compose_size() != ctypes.sizeof(_Compose):
        raise RuntimeError("compose.c and compiled_compose.py disagree: reinstall cag_avatar")
    return library


def can_compile(vertices: Tensor, raw: Tensor, head_pose: Tensor, sh_degree: int) -> bool:
    """Whether compiled_compose() does for these tensors what compose() does."""
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (vertices, raw))
    wanted = torch.is_grad_enabled() and (vertices.requires_grad or head_pose.requires_grad)
    exported = torch.onnx.is_in_onnx_export() or torch.jit.is_tracing()
    usable = plain and not wanted and not exported and sh_degree <= _MAX_SH_DEGREE
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
    """Gaussians of a frame; differentiable in ``raw`` and in the attributes.

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
            turns, _, quaternions = carry_kernels.pose_frames(
                posed, *binding.arrays().frame_arguments
            )
            ctx.constants = (
                binding, vertices, limits, sh_degree, head_rotation, (turns, quaternions),
            )  # fmt: skip
            s, kept = _structure(learned, *ctx.constants)
            for name, tensor in zip(_MADE, made, strict=True):
                setattr(s, name, tensor.data_ptr())
            library.cag_compose(ctypes.byref(s))
            del kept
        ctx.save_for_backward(*learned)
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
        with kernel_launch:
            s, kept = _structure(learned, *ctx.constants)
            for name, tensor in zip(_MADE, given, strict=True):
                setattr(s, f"grad_{name}", tensor.data_ptr())
            for name, tensor in zip(_LEARNED, result, strict=True):
                setattr(s, f"grad_{name}", tensor.data_ptr())
            library.cag_compose_backward(ctypes.byref(s))
            del kept
        wanted = ctx.needs_input_grad[5:]
        return (None,) * 5 + tuple(
            grad if want else None for grad, want in zip(result, wanted, strict=True)
        )
