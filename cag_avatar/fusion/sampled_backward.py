"""The offset network with a cheaper backward pass, for training.

Many Gaussians of a frame hardly matter: they lie behind others or off the picture. The backward
pass therefore runs on a random subset of rows, kept with a
probability p that grows with the size of their gradient and weighted by 1 / p, so that the weights'
gradient is right on average. With a fraction of 1 it is exact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cag_avatar.fusion.offsets import OffsetNetwork

__all__ = ["sampled_network", "sampling_probabilities"]


def sampling_probabilities(size: Tensor, fraction: float) -> Tensor:
    """Probabilities [N] in proportion to ``size`` [N] >= 0, at most 1, that keep ``fraction``.

    Fewer are kept where fewer than that are not 0.
    """
    wanted = fraction * len(size)
    total = float(size.sum())
    if fraction >= 1 or total <= 0:
        return torch.ones_like(size)
    probability = (size * (wanted / total)).clamp_max(1.0)
    for _ in range(4):  # what the clamp cut off is given to the others
        sure = float((probability == 1).sum())
        others = float(probability.sum()) - sure
        if others <= 0 or sure + others > 0.98 * wanted:
            break
        probability = (probability * ((wanted - sure) / others)).clamp_max(1.0)
    return probability


def sampled_network(
    network: OffsetNetwork, encoding: Tensor, context: Tensor, fraction: float, seed: int
) -> Tensor:
    """Raw offsets [N, 12], exactly as ``network(encoding, context)``; gradients are sampled.

    Args:
        network: the offset network, float32.
        encoding: encoded positions, [N, D]; gets no gradient.
        context: context vectors, [N, C] or [1, C].
        fraction: of the rows whose gradients are computed, in (0, 1].
        seed: of the sample; equal seeds give equal samples.
    """
    layers = [network.first, *network.hidden, network.last]
    parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
    return _SampledNetwork.apply(encoding, context, fraction, seed, *parameters)


class _SampledNetwork(torch.autograd.Function):
    """ReLU network whose first layer reads an encoding and a context."""

    @staticmethod
    def forward(
        ctx: Any,
        encoding: Tensor,
        context: Tensor,
        fraction: float,
        seed: int,
        *parameters: Tensor,
    ) -> Tensor:
        weights, biases = parameters[::2], parameters[1::2]
        size = encoding.shape[1]
        value = torch.addmm(biases[0], encoding, weights[0][:, :size].T)
        if context.shape[0] == 1:
            value += context @ weights[0][:, size:].T
        else:
            value.addmm_(context, weights[0][:, size:].T)
        activations = [value.relu_()]
        for weight, bias in zip(weights[1:-1], biases[1:-1], strict=True):
            activations.append(torch.addmm(bias, activations[-1], weight.T).relu_())
        ctx.save_for_backward(encoding, context, *weights, *activations)
        ctx.sampling = (fraction, seed)
        return torch.addmm(biases[-1], activations[-1], weights[-1].T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        encoding, context, *rest = ctx.saved_tensors
        depth = len(rest) // 2  # hidden layers; one weight more than activations
        weights, activations = rest[: depth + 1], rest[depth + 1 :]
        fraction, seed = ctx.sampling
        grad = grads[0]
        size = torch.linalg.vector_norm(grad, dim=1)
        probability = sampling_probabilities(size, fraction)
        generator = torch.Generator(device=grad.device).manual_seed(seed)
        draw = torch.rand(len(size), generator=generator, device=grad.device)
        rows = torch.nonzero((draw < probability) & (size > 0)).flatten()
        grad = grad[rows] / probability[rows, None]
        found: list[Tensor] = []
        for layer in range(depth, 0, -1):
            value = activations[layer - 1][rows]
            found += [grad.sum(0), grad.T @ value]
            grad = (grad @ weights[layer]).mul_(value > 0)
        shared = context.shape[0] == 1
        first = torch.empty_like(weights[0])
        width = encoding.shape[1]
        first[:, :width] = grad.T @ encoding[rows]
        total = grad.sum(0)
        if shared:
            first[:, width:] = total[:, None] * context
            d_context = (total @ weights[0][:, width:])[None]
        else:
            first[:, width:] = grad.T @ context[rows]
            d_context = torch.zeros_like(context)
            d_context[rows] = grad @ weights[0][:, width:]
        found += [total, first]
        return (
            None,
            d_context if ctx.needs_input_grad[1] else None,
            None,
            None,
            *reversed(found),
        )
