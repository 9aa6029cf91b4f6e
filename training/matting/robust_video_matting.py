"""Alpha by Robust Video Matting (Lin, Yang, Saleemi, Sengupta 2021), a network the user brings.

Its ONNX file takes ``src`` [1, 3, H, W] (RGB in [0, 1]), four recurrent states ``r1i`` ... ``r4i``
(at first zeros of [1, 1, 1, 1]) and ``downsample_ratio`` [1] (32 bit), and gives ``fgr``, ``pha``
and the next states ``r1o`` ... ``r4o``. Its weights have a licence of their own and are not part of
this package.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cag_avatar_training.matting.onnx_model import OnnxModel, Port, load_onnx
from numpy.typing import NDArray

from cag_avatar.errors import InputError

__all__ = ["RobustVideoMatting"]

#: The network looks at the picture with this longer side at most, as its authors advise (256 to
#: 512), and refines at full size.
_COARSE = 512
_STATES = ("r1", "r2", "r3", "r4")
_FIX = "bring the ONNX file of Robust Video Matting, such as rvm_mobilenetv3_fp32.onnx"


class RobustVideoMatting:
    """The network with its memory of the frames before.

    Args:
        path: the ONNX file.
        threads: that one evaluation may use.

    Raises:
        InputError: the file is missing or its inputs and outputs are others.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(self, path: Path | str, threads: int = 1) -> None:
        state = Port((1, "C", "h", "w"))
        self._model: OnnxModel = load_onnx(
            path,
            "matte.rvm",
            {
                "src": Port((1, 3, "H", "W")),
                **{f"{name}i": state for name in _STATES},
                "downsample_ratio": Port((1,), half=False),
            },
            {"pha": Port((1, 1, "H", "W")), **{f"{name}o": state for name in _STATES}},
            _FIX,
            threads,
        )
        self._type = self._model.dtype("src")
        self.forget()

    def forget(self) -> None:
        """Start another clip."""
        self._states = [np.zeros((1, 1, 1, 1), self._model.dtype(f"{name}i")) for name in _STATES]

    def matte(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Alpha [H, W] in [0, 1] of the clip's next frame [H, W, 3], RGB.

        Raises InputError when the network fails or its alpha has another size.
        """
        height, width = image.shape[:2]
        source = np.ascontiguousarray(image.transpose(2, 0, 1)[None]).astype(self._type)
        values = {
            "src": source / self._type(255),
            "downsample_ratio": np.array([min(1.0, _COARSE / max(height, width))], np.float32),
            **{f"{name}i": value for name, value in zip(_STATES, self._states, strict=True)},
        }
        alpha, *self._states = self._model.run(["pha", *(f"{n}o" for n in _STATES)], values)
        if alpha.shape != (1, 1, height, width):
            raise InputError(
                f"matte.rvm: {self._model.path}: output 'pha' is {list(alpha.shape)}, expected "
                f"[1, 1, {height}, {width}]; {_FIX}"
            )
        return np.clip(alpha[0, 0].astype(np.float32), 0, 1)
