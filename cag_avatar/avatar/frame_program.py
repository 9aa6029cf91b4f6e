"""The whole of a live frame as tensor operations of fixed shapes: driving numbers to bytes.

It runs on any device; with gsplat's kernels a CUDA graph holds it from end to end
(``graph_runner.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.avatar.frame_module import FrameModule
from cag_avatar.camera import PinholeCamera
from cag_avatar.rendering.gsplat_kernels import TileKernels
from cag_avatar.rendering.tile_lists import TileLists

__all__ = ["STAGES", "FrameProgram"]

#: Parts of a frame, in their order.
STAGES = ("vertices", "offsets", "gaussians", "projection", "sort", "blend", "levels")
_COUNT_BYTES = 8


class FrameProgram:
    """Draws B frames together.

    Args:
        module: makes the Gaussians; its device is the program's.
        kernels: project and blend, made for B pictures.
        camera: of the pictures.
        background: RGB, 0 to 255.
        batch: frames B.
        capacity: (Gaussian, tile) pairs that there is room for.
        channels: 3, or 4 for colours that are not blended with the background, and their alpha.
        bgr: blue first.
    """

    def __init__(
        self,
        module: FrameModule,
        kernels: TileKernels,
        camera: PinholeCamera,
        background: tuple[float, float, float],
        batch: int,
        capacity: int,
        channels: int = 3,
        bgr: bool = False,
    ) -> None:
        device = module.limits.device
        self.device = device
        self.shape = (batch, camera.height, camera.width, channels)
        self.expressions = int(module.neutral.shape[-1])
        self.capacity = capacity
        self._module = module
        self._kernels = kernels
        self._bgr = bgr
        self._lists = TileLists(
            batch, module.num_gaussians, camera.width, camera.height, capacity
        ).to(device)
        # What is behind a picture with alpha does not show in it.
        behind = background if channels == 3 else (0.0, 0.0, 0.0)
        self._background = (torch.tensor(behind) / 255).expand(batch, 3).contiguous().to(device)
        #: A second stream, on which offsets are made while the mesh is posed.
        self._beside = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def inputs(self) -> tuple[int, int]:
        """Shape of what a call takes, float32: for each frame its code, then its head pose and its
        torso pose, row by row."""
        return self.shape[0], self.expressions + 32

    def pack(
        self,
        out: NDArray[np.float32],
        code: NDArray[np.float32],
        head_pose: NDArray[np.float32],
        torso_pose: NDArray[np.float32],
    ) -> None:
        """Enter codes [B, E] and poses [B, 4, 4] in an array of the shape of :attr:`inputs`."""
        batch, e = len(out), self.expressions
        out[:, :e] = code
        out[:, e : e + 16] = head_pose.reshape(batch, 16)
        out[:, e + 16 :] = torso_pose.reshape(batch, 16)

    def unpack(self, data: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
        """Pictures [B, H, W, channels] and (Gaussian, tile) pairs in the bytes of a call. With more
        pairs than the capacity the pictures are not whole."""
        count = int.from_bytes(data[-_COUNT_BYTES:].tobytes(), "little")
        return data[:-_COUNT_BYTES].reshape(self.shape), count

    def stages(self, inputs: Tensor) -> list[tuple[str, Callable[[], None]]]:
        """The parts of a frame (STAGES), to be called in this order; each leaves what it makes in
        memory that the next ones read. The last one's is :meth:`result`."""
        state: dict[str, Any] = {}
        self._state = state
        e = self.expressions
        code = inputs[:, :e]
        head = inputs[:, e : e + 16].unflatten(1, (4, 4))
        torso = inputs[:, e + 16 :].unflatten(1, (4, 4))
        module, kernels = self._module, self._kernels

        def vertices() -> None:
            state["vertices"] = module.vertices(code, head, torso)

        def offsets() -> None:
            state["offsets"] = module.offsets(code, head, torso)

        def gaussians() -> None:
            state["gaussians"] = module.gaussians(state["offsets"], state["vertices"], head)

        def projection() -> None:
            state["projection"] = kernels.project(state["gaussians"])

        def sort() -> None:
            seen = state["projection"]
            state["table"] = self._lists(seen.means2d, seen.radii, seen.depths)

        def blend() -> None:
            state["picture"] = kernels.blend(
                state["gaussians"], state["projection"], state["table"], self._background
            )

        def levels() -> None:
            image, alpha = state["picture"]
            state["bytes"] = self._bytes(image, alpha, state["table"].pairs)

        parts = (vertices, offsets, gaussians, projection, sort, blend, levels)
        return list(zip(STAGES, parts, strict=True))

    def result(self) -> Tensor:
        """What the stages made: see __call__."""
        made: Tensor = self._state["bytes"]
        return made

    def __call__(self, inputs: Tensor) -> Tensor:
        """Bytes of the pictures and of the number of pairs (:meth:`unpack`), uint8 [n]."""
        parts = dict(self.stages(inputs))
        if self._beside is None:
            parts["vertices"]()
            parts["offsets"]()
        else:  # both are many small kernels that leave most of the device idle
            main = torch.cuda.current_stream(self.device)
            self._beside.wait_stream(main)
            with torch.cuda.stream(self._beside):
                parts["offsets"]()
            parts["vertices"]()
            main.wait_stream(self._beside)
            if not torch.cuda.is_current_stream_capturing():
                self._state["offsets"].record_stream(main)
        for name in STAGES[2:]:
            parts[name]()
        made = self.result()
        self._state = {}
        return made

    def _bytes(self, image: Tensor, alpha: Tensor, pairs: Tensor) -> Tensor:
        if self._bgr:
            image = image.flip(-1)
        if self.shape[-1] == 4:
            # Over black the colours are premultiplied; what is not covered has none.
            image = torch.cat([image / alpha.clamp_min(1e-6), alpha], -1)
        levels = (image * 255 + 0.5).clamp(0, 255).to(torch.uint8)
        return torch.cat([levels.flatten(), pairs.view(torch.uint8)])
