"""Gaussians as a PLY file in the layout of 3D Gaussian splatting (Kerbl et al. 2023).

The layout is that of the INRIA reference code, which viewers and editors read: one binary
little-endian ``vertex`` element of float32 ``x y z nx ny nz f_dc_0..2 f_rest_* opacity scale_0..2
rot_0..3``. ``f_rest`` lists all higher coefficients of red, then of green, then of blue; opacity is
a logit, scales are logarithms (of metres), the rotation is a quaternion wxyz.

The Gaussians stand in the head's own frame, in metres: our spherical harmonics are taken of
directions in that frame (see Avatar.base_colors), so the file looks the same from every camera.
Two things differ from our own picture, both little: a viewer takes the direction to a Gaussian's
centre where we take that to the point of the surface that carries it, and most viewers add their
own blur to small Gaussians.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.avatar.model import Avatar
from cag_avatar.errors import InputError
from cag_avatar.files import replacing
from cag_avatar.fusion.offsets import bounded_offsets
from cag_avatar.gaussians.attributes import Gaussians
from cag_avatar.geometry import quaternion_multiply
from cag_avatar.rendering.spherical_harmonics import MAX_DEGREE, SH_CONSTANT, num_coefficients

__all__ = ["Axes", "export_ply", "torso_in_head"]

Axes = Literal["y-down", "y-up"]


def torso_in_head(avatar: Avatar, head_pose: Tensor | None, torso_pose: Tensor | None) -> Tensor:
    """Pose of the torso in the head's frame, [4, 4] float32.

    Args:
        avatar: with its capture record.
        head_pose: canonical to camera space, [4, 4]; None takes the neutral pose of the training.
        torso_pose: the same for the torso.

    Raises:
        InputError: the avatar has no record.
    """
    if avatar.record is None:
        raise InputError("avatar: has no capture record, so no neutral pose; set .record")
    if head_pose is None:
        head_pose = torch.from_numpy(avatar.record.neutral_head_pose)
    if torso_pose is None:
        torso_pose = torch.from_numpy(avatar.record.neutral_torso_pose)
    return (torch.linalg.inv(head_pose.double()) @ torso_pose.double()).float()


@torch.no_grad()
def export_ply(
    path: Path | str, avatar: Avatar, code: Tensor, torso: Tensor, axes: Axes = "y-down"
) -> int:
    """Write the Gaussians of one expression.

    Args:
        path: file to write.
        avatar: on the CPU.
        code: expression code, [E].
        torso: pose of the torso in the head's frame, [4, 4] (see :func:`torso_in_head`).
        axes: "y-down" turns the head half round its z axis (x to the subject's right, y down, z out
            of the face), as scenes from COLMAP stand: SuperSplat turns every PLY half round z and
            so shows it upright, the face to the front. "y-up" keeps the canonical axes (x to the
            subject's left, y up, z out of the face).

    Returns:
        Number of Gaussians.

    Raises:
        InputError: unknown axes, or a Gaussian is not finite.
    """
    if axes not in get_args(Axes):
        raise InputError(f"axes: unknown '{axes}', choose from {', '.join(get_args(Axes))}")
    home = torch.eye(4)
    raw = avatar.raw_offsets(code, home, torso)
    gaussians = avatar.gaussians(code, home, torso, raw)
    base = avatar.attributes.color_base[:, 0]
    base = base + bounded_offsets(raw, avatar.offset_limits).color / SH_CONSTANT
    rows = _rows(gaussians, base, avatar.attributes.color_rest, axes)
    if not all(np.isfinite(rows[name]).all() for name in rows.dtype.names or ()):
        raise InputError(f"{path}: not written, a Gaussian is not finite; train the avatar again")
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment cag_avatar, metres, {axes}, origin midway between the eyes",
        f"element vertex {len(rows)}",
        *(f"property float {name}" for name in rows.dtype.names or ()),
        "end_header\n",
    ]
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(rows.tobytes())
    return len(rows)


def _rows(gaussians: Gaussians, color_base: Tensor, color_rest: Tensor, axes: Axes) -> NDArray[Any]:
    """The records of the file: Gaussians in the head's frame, colours [N, 3] and [N, K - 1, 3]."""
    means = gaussians.means
    quaternions = torch.nn.functional.normalize(gaussians.quaternions, dim=-1)
    if axes == "y-down":
        # Half a turn about z: x and y change sign, and so do the harmonics of odd order m.
        means = means * means.new_tensor([-1.0, -1.0, 1.0])
        quaternions = quaternion_multiply(quaternions.new_tensor([0.0, 0, 0, 1]), quaternions)
        orders = [m for band in range(1, MAX_DEGREE + 1) for m in range(-band, band + 1)]
        signs = color_rest.new_tensor([(-1.0) ** abs(m) for m in orders])
        color_rest = color_rest * signs[: color_rest.shape[1], None]
    # Viewers know the degrees 0 to 3 by the number of coefficients.
    assert color_rest.shape[1] + 1 in {num_coefficients(d) for d in range(MAX_DEGREE + 1)}
    rest = color_rest.transpose(1, 2).flatten(1)
    columns = {
        "xyz": means,
        "normal": torch.zeros_like(means),
        "dc": color_base,
        "rest": rest,
        "opacity": torch.logit(gaussians.opacities, eps=1e-6)[:, None],
        "scale": gaussians.scales.log(),
        "rotation": quaternions,
    }
    names = [
        "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2",
        *(f"f_rest_{i}" for i in range(rest.shape[1])),
        "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
    ]  # fmt: skip
    table = torch.cat(list(columns.values()), 1).numpy().astype("<f4")
    return np.ascontiguousarray(table).view([(name, "<f4") for name in names])[:, 0]
