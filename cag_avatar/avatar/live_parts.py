"""What live pictures of an avatar are drawn from, as a file: arrays of ``compiled.py`` and what the
driving needs to know. A process that has it needs neither torch nor the avatar's tensors.

One safetensors file; its header holds ``format`` = "cag_avatar-live", ``parts`` (JSON) and
``checksum``, CRC-32 of all of it: the arrays' addresses and sizes go to C, so that a damaged file
must not get that far. It belongs to one machine and is made anew when it does not fit.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cag_avatar.avatar.driver import CodeLayout
from cag_avatar.avatar.frame_renderer import FrameParts
from cag_avatar.avatar.linear_pose import LinearPose
from cag_avatar.avatar.record import CaptureRecord
from cag_avatar.files import replacing

__all__ = ["DamagedPartsError", "LiveParts"]

_FORMAT = "cag_avatar-live"


class DamagedPartsError(ValueError):
    """The file is not whole; the message says what is wrong."""


@dataclass(frozen=True, eq=False)
class LiveParts:
    """Everything that a :class:`LiveAnimator` needs."""

    frame: FrameParts
    """What is drawn."""
    pose: LinearPose
    """How it moves."""
    record: CaptureRecord
    """Of the capture."""
    layout: CodeLayout
    """Of the codes."""

    def save(self, path: Path) -> None:
        """Write a file; one already there is replaced once the new one is whole.

        Raises:
            OSError: it cannot be written.
        """
        frame, pose, layout = self.frame, self.pose, self.layout
        arrays = {f"scene.{name}": array for name, array in frame.scene.items()}
        arrays |= {f"network.{name}": array for name, array in frame.network.items()}
        arrays |= {f"pose.{name}": getattr(pose, name) for name in ("neutral", "pivot", "centres")}
        if pose.embedding is not None:
            arrays["pose.embedding"] = pose.embedding
        arrays |= {f"layout.{name}": getattr(layout, name) for name in ("neutral", "low", "high")}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        body = json.dumps(
            {
                "scene": frame.scene_sizes,
                "network": frame.network_sizes,
                "values": frame.values,
                "neck": pose.neck,
                "names": layout.names,
                "record": self.record.to_dict(),
            },
            allow_nan=False,
        )
        checksum = str(_checksum(body, arrays))
        with replacing(path) as temporary:
            save_file(arrays, temporary, {"format": _FORMAT, "parts": body, "checksum": checksum})

    @classmethod
    def load(cls, path: Path) -> LiveParts:
        """Read what :meth:`save` wrote.

        Raises:
            DamagedPartsError: the file is not whole.
            OSError: it cannot be read.
        """
        try:
            with safe_open(path, "np") as handle:
                metadata = handle.metadata() or {}
                arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise DamagedPartsError(str(error)) from error
        body = metadata.get("parts", "")
        if metadata.get("format") != _FORMAT:
            raise DamagedPartsError("not such a file")
        if metadata.get("checksum") != str(_checksum(body, arrays)):
            raise DamagedPartsError("its checksum is wrong")
        values = json.loads(body)

        def of(prefix: str) -> dict[str, NDArray[Any]]:
            start = prefix + "."
            return {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}

        pose = of("pose")
        return cls(
            FrameParts(
                values["scene"], of("scene"), values["network"], of("network"),
                tuple(values["values"]),
            ),
            LinearPose(
                pose["neutral"], values["neck"], pose["pivot"], pose["centres"],
                pose.get("embedding"),
            ),
            CaptureRecord.from_dict(values["record"], str(path)),
            CodeLayout(tuple(values["names"]), **of("layout")),
        )  # fmt: skip


def _checksum(body: str, arrays: dict[str, NDArray[Any]]) -> int:
    total = zlib.crc32(body.encode())
    for name in sorted(arrays):
        array = arrays[name]
        total = zlib.crc32(f"{name}{array.dtype}{array.shape}".encode(), total)
        total = zlib.crc32(array.reshape(-1).view(np.uint8).data, total)
    return total
