"""The parts of a picture that figures are given for.

They come from the dataset (and from the truth of a synthetic video), never from what an avatar
shows, so all avatars, as tracked or refined, are measured on the same pixels:

- ``matte``: where the dataset's matte exceeds 0.5.
- ``head``: the matte without neck and shoulders. The tracked mesh (the dataset's code and poses) is
  drawn; a pixel of the matte belongs to the head if the nearest pixel that the mesh covers shows
  neither ``neck`` nor ``shoulders``. So hair counts as head, collar and clothes do not.
- ``mouth``: the dataset's labels ``lips``, ``mouth_interior`` and ``teeth``.
- ``eyes``: the labels ``eye_left`` and ``eye_right``: the openings between the lids.
- ``teeth`` and ``skin``, with the truth of a synthetic video only: exactly where its label planes
  say upper or lower teeth, or ``face_skin`` (the face without lips, ears, neck and hair).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.motion import Motion
from cag_avatar_training.synthetic.alignment import in_crop, video_frames
from cag_avatar_training.synthetic.truth import Truth
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.head_models import REGIONS, load_head_model
from cag_avatar.rendering.mesh import rasterize

__all__ = ["REGION_TEXT", "RegionMasks"]

#: For protocols.
REGION_TEXT = {
    "matte": "where the dataset's matte exceeds 0.5",
    "head": "matte without what lies nearest to neck or shoulders of the tracked mesh",
    "mouth": "dataset's labels lips, mouth interior, teeth",
    "eyes": "dataset's labels of the openings between the lids",
    "teeth": "upper and lower teeth in the synthetic truth",
    "skin": "face skin in the synthetic truth",
}
#: Regions smaller than this share of the picture are not measured in a frame.
_LEAST_SHARE = 1e-4
_BODY = ("neck", "shoulders")
_TRUE = {"teeth": ("teeth_upper", "teeth_lower"), "skin": ("face_skin",)}
#: Value of a truth's label plane where there is nobody.
_NOBODY = 255


class RegionMasks:
    """Masks of the regions, see the module's text.

    Args:
        dataset: its frames, at full size.
        truth: of the synthetic video that it was made from.

    Raises:
        InputError: the truth is of another video.
    """

    def __init__(self, dataset: Dataset, truth: Truth | None = None) -> None:
        self._dataset = dataset
        self._truth = truth
        self._frames = None if truth is None else video_frames(dataset, truth)
        model = load_head_model(dataset.info.head_model)
        tracking = dataset.tracking
        self._model = model
        self._rest = model.rest_vertices(
            torch.from_numpy(tracking.identity), torch.from_numpy(tracking.vertex_offsets)
        )
        self._motion = Motion.tracked(tracking)
        body = [REGIONS.index(name) for name in _BODY]
        self._face_is_body = np.isin(model.face_region.numpy(), body)

    @property
    def names(self) -> tuple[str, ...]:
        """The regions there are for this dataset."""
        return tuple(n for n in REGION_TEXT if n not in _TRUE or self._truth is not None)

    def of(self, index: int) -> dict[str, Tensor]:
        """Masks [H, W] (bool, CPU) of a frame; empty where a region covers less than 1e-4 of it."""
        frame = self._dataset.frame(index)
        matte = frame.alpha > 0.5
        masks = {
            "matte": matte,
            "head": matte & torch.from_numpy(self._nearest_is_head(index)),
            "mouth": frame.mask("lips", "mouth_interior", "teeth"),
            "eyes": frame.mask("eye_left", "eye_right"),
        }
        if self._truth is not None and self._frames is not None:
            regions = self._truth.regions(int(self._frames[index]))
            labels = in_crop(regions, self._dataset, _NOBODY)
            for name, parts in _TRUE.items():
                wanted = [REGIONS.index(part) for part in parts]
                masks[name] = torch.from_numpy(np.isin(labels, wanted))
        least = _LEAST_SHARE * matte.numel()
        return {
            name: mask if int(mask.sum()) >= least else torch.zeros_like(mask)
            for name, mask in masks.items()
        }

    def _nearest_is_head(self, index: int) -> NDArray[np.bool_]:
        motion = (value[None] for value in self._motion.frame(index))
        vertices = self._model.posed_vertices(self._rest, *motion)[0].numpy()
        faces = self._model.faces.numpy()
        face = rasterize(vertices, faces, self._dataset.info.camera).face_index
        body = (face >= 0) & self._face_is_body[face]
        head = (face >= 0) & ~body
        return np.asarray(_distance_to(head) <= _distance_to(body)) & bool(head.any())


def _distance_to(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance of each pixel to the nearest one in a mask, pixels; infinity if it is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    outside = (~mask).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
