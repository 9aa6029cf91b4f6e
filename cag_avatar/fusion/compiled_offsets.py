"""The offset network on all Gaussians in one C function, and its gradients, on the CPU.

The same numbers as ``Avatar.decode`` up to rounding. What torch does layer by layer, through
memory, is done a few Gaussians at a time in the cache (``native/offsets.c``).
"""

from __future__ import annotations

import ctypes
import logging
from ctypes import c_int32, c_void_p
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cag_avatar.fusion.cross_attention import CrossAttentionFusion
from cag_avatar.fusion.offsets import NUM_OUTPUTS
from cag_avatar.native.library import NativeUnavailableError, check_layout, load_library
from cag_avatar.parallel import kernel_launch, thread_count

if TYPE_CHECKING:
    from cag_avatar.avatar.model import Avatar

__all__ = ["CompiledOffsets", "compiled_offsets"]

_log = logging.getLogger(__name__)
#: Room for layers in the C structure.
_MAX_LAYERS = 18


class _Offsets(ctypes.Structure):
    """``Offsets`` of offsets.c."""

    _fields_ = (
        *((name, c_int32) for name in (
            "gaussians", "rows", "heads", "tokens", "head_size", "context", "encoding", "width",
            "hidden", "local", "threads", "reserved",
        )),
        *((name, c_void_p) for name in ("row", "gate", "values", "encoded")),
        ("weight", c_void_p * _MAX_LAYERS),
        ("bias", c_void_p * _MAX_LAYERS),
        *((name, c_void_p) for name in ("own", "gain", "out", "grad")),
        ("grad_weight", c_void_p * _MAX_LAYERS),
        ("grad_bias", c_void_p * _MAX_LAYERS),
        *((name, c_void_p) for name in ("grad_own", "grad_values", "grad_gate")),
    )  # fmt: skip


def compiled_offsets(avatar: Avatar) -> CompiledOffsets | None:
    """The compiled network of an avatar; None where it cannot be had, which is logged.

    It needs a C compiler, tensors of single precision on the CPU and, with attention, heads whose
    size is a multiple of the processor's vectors.
    """
    if avatar.rest.device.type != "cpu" or avatar.rest.dtype != torch.float32:
        return None
    library = _library()
    if library is None:
        return None
    layers = len(avatar.network.hidden) + 2
    if layers > _MAX_LAYERS:
        _log.info(
            "offset network: torch (%d layers, the compiled code has %d)", layers, _MAX_LAYERS
        )
        return None
    if (
        isinstance(avatar.fusion, CrossAttentionFusion)
        and avatar.fusion.head_size % library.cag_lanes()
    ):
        _log.info("offset network: torch (head_size is no multiple of %d)", library.cag_lanes())
        return None
    return CompiledOffsets(avatar, library)


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    try:
        library = load_library("offsets")
    except NativeUnavailableError as error:
        _log.info("offset network: torch (%s)", error)
        return None
    check_layout(library, _Offsets)
    return library


class CompiledOffsets:
    """Runs an avatar's fusion, network and own matrices; reads the parameters as they are now.

    A fusion that attends is run from its attention weights (Fusion.static) and its tokens' values;
    any other from its context, which all Gaussians share.
    """

    def __init__(self, avatar: Avatar, library: ctypes.CDLL) -> None:
        self._avatar = avatar
        self._library = library
        self._attends = isinstance(avatar.fusion, CrossAttentionFusion)

    def frame_values(self, static: Tensor | None, tokens: Tensor) -> Tensor:
        """What the rest needs of a frame; differentiable in the fusion's parameters.

        Args:
            static: the fusion's (Fusion.static).
            tokens: psi, [D].

        Returns:
            Values of the tokens [heads, T, head_size], or the shared context [C].
        """
        fusion = self._avatar.fusion
        if isinstance(fusion, CrossAttentionFusion):
            return fusion.values(tokens)
        return fusion.context(static, tokens)[0]

    @torch.no_grad()
    def outputs(self, static: Tensor | None, values: Tensor) -> Tensor:
        """Raw offsets of all Gaussians, [N, 12].

        Args:
            static: the fusion's (Fusion.static).
            values: of frame_values().
        """
        s, kept = self._structure(static, values, None)
        out = torch.empty(s.rows, NUM_OUTPUTS)
        s.out = out.data_ptr()
        self._call("cag_offsets", s)
        del kept
        return out

    @torch.no_grad()
    def backward(
        self, static: Tensor | None, values: Tensor, rows: Tensor, gradient: Tensor, attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Go back from the gradient of some Gaussians' outputs.

        Sets ``grad`` of the parameters of the network and of the Gaussians' own matrices.

        Args:
            static, values: as for outputs().
            rows: Gaussians, [R], none twice.
            gradient: of their outputs, [R, 12].
            attention: whether to give the attention weights' gradient.

        Returns:
            Gradients of ``values`` and, if asked for and the fusion attends, of
            ``static[:, rows]``.
        """
        avatar = self._avatar
        s, kept = self._structure(static, values, rows)
        gradient = gradient.contiguous()
        s.grad = gradient.data_ptr()
        for k, layer in enumerate(self._layers()):
            layer.weight.grad = torch.zeros_like(layer.weight)
            layer.bias.grad = torch.zeros_like(layer.bias)
            s.grad_weight[k] = layer.weight.grad.data_ptr()
            s.grad_bias[k] = layer.bias.grad.data_ptr()
        if avatar.local is not None:
            avatar.local.weight.grad = torch.zeros_like(avatar.local.weight)
            s.grad_own = avatar.local.weight.grad.data_ptr()
        grad_values = torch.zeros_like(values)
        s.grad_values = grad_values.data_ptr()
        grad_static = None
        if attention and self._attends:
            assert static is not None
            grad_static = torch.empty(static.shape[0], len(rows), static.shape[2])
            s.grad_gate = grad_static.data_ptr()
        self._call("cag_offsets_backward", s)
        del kept
        return grad_values, grad_static

    def _layers(self) -> list[nn.Linear]:
        network = self._avatar.network
        return [network.first, *network.hidden, network.last]  # type: ignore[list-item]

    def _structure(
        self, static: Tensor | None, values: Tensor, rows: Tensor | None
    ) -> tuple[_Offsets, list[Tensor]]:
        """The C structure, and the tensors that it points to."""
        avatar, fusion = self._avatar, self._avatar.fusion
        network, local = avatar.network, avatar.local
        s = _Offsets(
            gaussians=avatar.num_gaussians,
            rows=avatar.num_gaussians if rows is None else len(rows),
            context=fusion.context_size,
            encoding=network.encoding_size,
            width=network.first.out_features,
            hidden=len(network.hidden),
            local=0 if local is None else local.weight.shape[1],
            threads=thread_count(),
        )
        kept = [values.detach().contiguous(), avatar.encoding]
        s.values, s.encoded = kept[0].data_ptr(), kept[1].data_ptr()
        if isinstance(fusion, CrossAttentionFusion):
            assert static is not None
            kept.append(static.detach().contiguous())
            s.gate = kept[-1].data_ptr()
            s.heads, s.tokens, s.head_size = fusion.heads, fusion.num_tokens, fusion.head_size
        if rows is not None:
            kept.append(rows.contiguous())
            s.row = kept[-1].data_ptr()
        for k, layer in enumerate(self._layers()):
            s.weight[k], s.bias[k] = layer.weight.data_ptr(), layer.bias.data_ptr()
        if local is not None:
            s.own, s.gain = local.weight.data_ptr(), local.gain.data_ptr()
        return s, kept

    def _call(self, function: str, s: _Offsets) -> None:
        with kernel_launch:
            if getattr(self._library, function)(ctypes.byref(s)) != 0:
                raise MemoryError("no memory for the offset network")
