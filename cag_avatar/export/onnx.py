"""An avatar as an ONNX graph: code and poses in, Gaussians out.

Inputs (float32): ``code`` [E], ``head_pose`` [4, 4] and ``torso_pose`` [4, 4], canonical to camera
space. Outputs (float32), N Gaussians in camera space (OpenCV axes: x right, y down, z forward;
metres): ``means`` [N, 3], ``quaternions`` [N, 4] (wxyz, unit, sign arbitrary), ``scales`` [N, 3]
(standard deviations), ``opacities`` [N] and ``colors`` [N, 3] (RGB, 0 to 1 and a little beyond, as
seen from the camera at the origin). What does not depend on the inputs, attention weights among
it, is stored as numbers.

The file's metadata name the coefficients and tell the conventions, the camera and the neutral
poses, so that it can be used without this package.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from cag_avatar.avatar.model import Avatar
from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.files import replacing

__all__ = ["OPSET", "OUTPUTS", "export_onnx"]

#: Version of the operator set: the oldest that torch's exporter writes itself.
OPSET = 18
INPUTS = ("code", "head_pose", "torso_pose")
OUTPUTS = ("means", "quaternions", "scales", "opacities", "colors")


class _GaussianGraph(nn.Module):
    """Avatar.gaussians() with what is static computed beforehand, as a tuple in OUTPUTS' order."""

    def __init__(self, avatar: Avatar) -> None:
        super().__init__()
        self.avatar = avatar
        static = avatar.attention()
        self.register_buffer("attention", static)
        self.register_buffer("first", avatar.network.static(avatar.encoding))

    attention: Tensor | None
    first: Tensor

    def forward(self, code: Tensor, head_pose: Tensor, torso_pose: Tensor) -> tuple[Tensor, ...]:
        own = self.avatar
        context = own.fusion.context(self.attention, own.tokens(code, head_pose, torso_pose))
        raw = own.decode(own.network, self.first, context)
        result = own.gaussians(code, head_pose, torso_pose, raw=raw)
        return tuple(getattr(result, name) for name in OUTPUTS)


@torch.no_grad()
def export_onnx(path: Path | str, avatar: Avatar) -> None:
    """Write the graph of an avatar, one file.

    Args:
        path: file to write.
        avatar: on the CPU, with its capture record.

    Raises:
        MissingDependencyError: ``onnx`` or ``onnxscript`` is not installed.
        InputError: the avatar has no record, or its head model may not be passed on (the graph
            would contain it).
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            error.name or "onnx", "writing ONNX files", "export"
        ) from error
    if avatar.record is None:
        raise InputError(f"{path}: an avatar without a capture record cannot be exported")
    if not avatar.head.embeddable:
        raise InputError(
            f"{path}: not written: the graph would hold head model '{avatar.head_name}', which "
            "may not be passed on; export .ply or .mp4, or train with the bundled head"
        )
    # The graph holds every pose it might be traced with, so any finite ones do.
    example = (
        avatar.neutral_code.clone(),
        torch.from_numpy(avatar.record.neutral_head_pose).float(),
        torch.from_numpy(avatar.record.neutral_torso_pose).float(),
    )
    with replacing(path) as temporary:
        with _quiet_exporter():
            program = torch.onnx.export(
                _GaussianGraph(avatar).eval(),
                example,
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                opset_version=OPSET,
                dynamo=True,
                optimize=True,  # leaves out sequences and casts that smaller runtimes lack
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
        model.producer_name = "cag_avatar"
        model.doc_string = (__doc__ or "").strip()
        onnx.helper.set_model_props(model, _metadata(avatar))
        onnx.checker.check_model(model)
        onnx.save(model, str(temporary))


def _metadata(avatar: Avatar) -> dict[str, str]:
    """Text properties; those with structure are JSON."""
    record = avatar.record
    assert record is not None
    structured = {
        "expression_names": list(avatar.expression_names),
        "code_min": record.code_min.tolist(),
        "code_max": record.code_max.tolist(),
        "camera": record.camera.to_dict(),
        "neutral_code": avatar.neutral_code.tolist(),
        "neutral_head_pose": record.neutral_head_pose.tolist(),
        "neutral_torso_pose": record.neutral_torso_pose.tolist(),
    }
    return {
        "format": "cag_avatar-gaussians",
        "version": "1",
        "head_model": avatar.head_name,
        "units": "metres",
        "canonical_axes": "x to the subject's left, y up, z out of the face",
        "camera_axes": "x right, y down, z forward (OpenCV); Gaussians are in this space",
        "quaternions": "wxyz",
        **{name: json.dumps(value) for name, value in structured.items()},
    }


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's notes on its own working."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
