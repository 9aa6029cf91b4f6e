"""The regressor's network: its training, and its ONNX graph."""

from __future__ import annotations

import numpy as np
import torch
from cag_avatar_training.regressor.config import RegressorConfig
from cag_avatar_training.regressor.made_up_faces import Faces
from scipy.linalg import eigh
from torch import nn

from cag_avatar.head_models import HeadModel
from cag_avatar.tracking.code_regressor import INPUT, NUM_FEATURES, OUTPUT

__all__ = ["RegressorNetwork"]

#: Version of the ONNX operators: they have not changed since.
_OPSET, _IR_VERSION = 13, 8


class RegressorNetwork:
    """Principal components, then two hidden layers."""

    def __init__(self, project: nn.Linear, layers: nn.Sequential, head: HeadModel) -> None:
        self._project = project
        self._layers = layers
        self._low, self._high = head.code_low, head.code_high

    @classmethod
    def fit(
        cls,
        seen: Faces,
        made: Faces | None,
        share: float,
        head: HeadModel,
        config: RegressorConfig,
        steps: int,
    ) -> RegressorNetwork:
        """Train; made-up faces are ``share`` of each batch."""
        parts, weights = [seen], [np.full(len(seen.codes), (1 - share) / len(seen.codes))]
        if made is not None and share > 0:
            parts.append(made)
            weights.append(np.full(len(made.codes), share / len(made.codes)))
        features = np.concatenate([part.features for part in parts]).astype(np.float64)
        weight = np.concatenate(weights)
        weight /= weight.sum()
        mean = weight @ features
        weighted = (features - mean) * np.sqrt(weight)[:, None]
        # Eigenvectors of the covariance: three times quicker than a singular value decomposition.
        first = NUM_FEATURES - min(config.components, len(features))
        kept = (first, NUM_FEATURES - 1)
        variances, directions = eigh(weighted.T @ weighted, subset_by_index=kept)
        # One scale for all: components that vary little are mostly the landmarker's noise.
        basis = directions.T / np.sqrt(max(float(variances.mean()), 1e-12))
        project = nn.Linear(NUM_FEATURES, len(basis))
        project.weight.data = torch.from_numpy(basis).float()
        project.bias.data = torch.from_numpy(-(basis @ mean)).float()
        inputs = torch.from_numpy((features - mean) @ basis.T).float()
        codes = torch.from_numpy(np.concatenate([part.codes for part in parts]))
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(config.seed)
            layers = nn.Sequential(
                nn.Linear(len(basis), config.hidden), nn.SiLU(),
                nn.Linear(config.hidden, config.hidden), nn.SiLU(),
                nn.Linear(config.hidden, codes.shape[1]),
            )  # fmt: skip
            optimizer = torch.optim.AdamW(
                layers.parameters(), config.rate, weight_decay=config.weight_decay
            )
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, config.rate, total_steps=max(steps, 2)
            )
            chance = torch.from_numpy(weight)
            for _ in range(steps):
                batch = torch.multinomial(chance, config.batch, replacement=True)
                noisy = inputs[batch] + config.noise * torch.randn(config.batch, len(basis))
                loss = nn.functional.smooth_l1_loss(layers(noisy), codes[batch], beta=0.03)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        return cls(project, layers, head)

    @torch.no_grad()
    def error(self, faces: Faces) -> float:
        """Mean absolute error of the codes."""
        value = self._layers(self._project(torch.from_numpy(faces.features)))
        held = value.clamp(self._low, self._high)
        return float((held - torch.from_numpy(faces.codes)).abs().mean())

    def graph(self) -> bytes:
        """The network as an ONNX model."""
        from onnx import TensorProto, checker, helper, numpy_helper

        nodes, values, before = [], [], INPUT
        linear = [m for m in (self._project, *self._layers) if isinstance(m, nn.Linear)]
        for number, layer in enumerate(linear):
            for name, tensor in (("w", layer.weight), ("b", layer.bias)):
                array = np.ascontiguousarray(tensor.detach().numpy(), np.float32)
                values.append(numpy_helper.from_array(array, f"{name}{number}"))
            after = f"linear{number}"
            nodes.append(
                helper.make_node("Gemm", [before, f"w{number}", f"b{number}"], [after], transB=1)
            )
            before = after
            if 0 < number < len(linear) - 1:
                nodes.append(helper.make_node("Sigmoid", [before], [f"gate{number}"]))
                nodes.append(helper.make_node("Mul", [before, f"gate{number}"], [f"on{number}"]))
                before = f"on{number}"
        largest = float(np.finfo(np.float32).max)
        for name, bound in (("low", self._low), ("high", self._high)):
            finite = np.clip(bound.numpy(), -largest, largest).astype(np.float32)
            values.append(numpy_helper.from_array(finite, name))
        nodes.append(helper.make_node("Max", [before, "low"], ["above"]))
        nodes.append(helper.make_node("Min", ["above", "high"], [OUTPUT]))
        size = linear[-1].out_features
        graph = helper.make_graph(
            nodes,
            "code_regressor",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["T", NUM_FEATURES])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["T", size])],
            values,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="cag_avatar",
        )
        checker.check_model(model)
        return bytes(model.SerializeToString())
