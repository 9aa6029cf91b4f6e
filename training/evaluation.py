"""Figures and pictures of an avatar on held-out frames."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from cag_avatar_training.config import LossConfig, RefinementConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.device import device_of
from cag_avatar_training.lpips_metric import load_lpips
from cag_avatar_training.metrics import l1, psnr, similarity_map, ssim_of_map
from cag_avatar_training.motion import Motion
from cag_avatar_training.perceptual import (
    PerceptualNet,
    ShiftTolerantLpips,
    distance_in,
    load_perceptual,
)
from cag_avatar_training.refinement import corrected_motion, correction_size, refine_frames
from cag_avatar_training.regions import REGION_TEXT, RegionMasks
from cag_avatar_training.regressor.readings import code_errors, read_faces
from cag_avatar_training.split import Split
from cag_avatar_training.synthetic.truth import Truth
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.avatar.inference import PreparedAvatar
from cag_avatar.avatar.model import Avatar
from cag_avatar.errors import InputError
from cag_avatar.files import replacing, replacing_folder
from cag_avatar.rendering.rasterizer import Backend, Rasterizer, get_rasterizer

__all__ = ["evaluate", "measure_images"]

#: Columns of side_by_side.png.
_COLUMNS = 6


def measure_images(
    image: Tensor,
    target: Tensor,
    masks: Mapping[str, Tensor],
    perceptual: ShiftTolerantLpips,
    features: list[Tensor] | None = None,
    lpips: Callable[[Tensor, Tensor], float] | None = None,
) -> dict[str, float]:
    """Figures of one picture [H, W, 3] in [0, 1] against the truth.

    ``psnr``, ``ssim``, ``l1``, ``stlpips`` of the whole picture and ``psnr_NAME`` ... inside each
    mask [H, W] (bool): of its pixels, of the windows of SSIM centred on them, and of ST-LPIPS's
    stages with the mask's share of each cell as weight. NaN where a mask is empty.

    Args:
        image: the prediction.
        target: the truth.
        masks: by region.
        perceptual: ST-LPIPS.
        features: perceptual.features(target), if they are at hand.
        lpips: what load_lpips() returned, for the figure ``lpips``.
    """
    image = image.clamp(0, 1)
    similarity = similarity_map(image, target)
    with torch.inference_mode():
        distance = perceptual.distance_maps(image, features or target)
    figures = {
        "psnr": psnr(image, target),
        "ssim": ssim_of_map(similarity),
        "l1": l1(image, target),
        "stlpips": float(sum(plane.mean() for plane in distance)),
    }
    if lpips is not None:
        figures["lpips"] = lpips(image, target)
    for name, mask in masks.items():
        inside = mask.to(image.device)
        figures |= {
            f"psnr_{name}": psnr(image, target, inside),
            f"ssim_{name}": ssim_of_map(similarity, mask),
            f"l1_{name}": l1(image, target, inside),
            f"stlpips_{name}": distance_in(distance, inside),
        }
    return figures


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over the frames in which a figure could be measured; NaN if there is none."""
    means = {}
    for name in rows[0]:
        values = [row[name] for row in rows if math.isfinite(row[name])]
        means[name] = round(float(np.mean(values)), 5) if values else math.nan
    return means


def _to_uint8(image: Tensor) -> NDArray[np.uint8]:
    return (image.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()


def _render(
    prepared: PreparedAvatar,
    motion: Motion,
    index: int,
    dataset: Dataset,
    background: Tensor,
    rasterizer: Rasterizer,
) -> Tensor:
    g = prepared.gaussians(*motion.frame(index))
    with torch.inference_mode():
        return rasterizer.render(
            g.means, g.quaternions, g.scales, g.opacities, g.colors,
            torch.eye(4, device=background.device), dataset.info.camera, background,
        ).image  # fmt: skip


def evaluate(
    avatar: Avatar,
    dataset: Dataset,
    out_dir: Path | str,
    split: Split | None = None,
    refine: bool = True,
    refinement: RefinementConfig | None = None,
    perceptual_net: PerceptualNet = "alex",
    backend: Backend = "auto",
    every: int = 1,
    show: Callable[[str, int, int], None] | None = None,
    truth: Truth | None = None,
) -> dict[str, Any]:
    """Measure an avatar on held-out frames and write figures and pictures.

    ``as_tracked`` renders with the dataset's codes and poses. ``refined`` first fits code and
    poses of each held-out frame to its image with the avatar frozen, as photometric trackers do:
    it tells how well the avatar can show the person, not how well the tracking drives it. The
    pictures written are refined ones if ``refine``, and exactly those that are measured (8 bit).
    Figures are of the whole picture and of the parts that regions.py defines, each averaged over
    the frames that show it. ``code_error`` is the mean absolute error, against the codes of the
    held-out frames, of MediaPipe's raw scores and of the avatar's regressor, if the dataset keeps
    scores.

    Args:
        avatar: with its record.
        dataset: whose held-out frames are used.
        out_dir: folder for metrics.json, pred/, truth/, side_by_side.{png,mp4}; other files in it
            stay.
        split: held-out frames; None takes the split of the training.
        refine: also refine.
        refinement: its settings; RefinementConfig.for_held_out() by default.
        perceptual_net: network of ST-LPIPS.
        backend: rasteriser.
        every: measure every so many held-out frames only.
        show: called as show(what, done, total).
        truth: of the synthetic video that the dataset was made from; adds the regions teeth and
            skin.

    Returns:
        What metrics.json holds.

    Raises:
        InputError: the avatar has no record or does not fit the dataset; ``every`` is below 1; the
            truth is of another video.
    """
    if every < 1:
        raise InputError(f"every: {every} must be at least 1")
    record = avatar.record
    if record is None:
        raise InputError("avatar: has no capture record; load it from a .cag file")
    if len(avatar.rest) != len(dataset.tracking.vertex_offsets):
        raise InputError(f"{dataset.path}: was made for another head model than the avatar")
    chosen: Split = split or record.protocol.get("split", "last")
    frames = dataset.split(chosen)[1][::every]
    refinement = refinement or RefinementConfig.for_held_out()
    report = show or (lambda what, done, total: None)
    rasterizer = get_rasterizer(backend)
    device = device_of(rasterizer)
    background = torch.tensor(record.background, device=device)
    prepared = PreparedAvatar(copy.deepcopy(avatar).to(device))
    perceptual = load_perceptual(perceptual_net, str(device))
    lpips = load_lpips(str(device))
    regions = RegionMasks(dataset, truth)
    tracked = Motion.tracked(dataset.tracking, device)
    motions = {"as_tracked": tracked}
    if refine:
        done = iter(range(1, len(frames) + 1))
        corrections = refine_frames(
            prepared,
            dataset,
            frames,
            tracked,
            torch.zeros(len(dataset), correction_size(tracked.codes.shape[1]), device=device),
            refinement,
            LossConfig(),
            background,
            rasterizer,
            lambda: report("refining", next(done), len(frames)),
        )
        motions["refined"] = corrected_motion(tracked, corrections, prepared.avatar.neck_pivot)
    errors = _code_errors(avatar, dataset, frames, motions)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in motions}
    shown = list(motions)[-1]
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    picks = {frames[round(i)] for i in np.linspace(0, len(frames) - 1, min(_COLUMNS, len(frames)))}
    columns: list[NDArray[np.uint8]] = []
    camera = dataset.info.camera
    size = (2 * camera.width, camera.height)
    with (
        replacing_folder(out_dir / "pred") as pred_dir,
        replacing_folder(out_dir / "truth") as truth_dir,
        _video(out_dir / "side_by_side.mp4", dataset.info.fps / every, size) as video,
    ):
        for number, index in enumerate(frames):
            frame = dataset.frame(index, device=device)
            truth = _to_uint8(frame.target(background))
            target = torch.from_numpy(truth).to(device).float() / 255
            masks = regions.of(index)
            with torch.inference_mode():
                features = perceptual.features(target)
            pictures = {}
            for name, motion in motions.items():
                image = _render(prepared, motion, index, dataset, background, rasterizer)
                pictures[name] = _to_uint8(image)
                quantised = torch.from_numpy(pictures[name]).to(device).float() / 255
                rows[name].append(
                    measure_images(quantised, target, masks, perceptual, features, lpips)
                )
            _write_png(pred_dir / f"{index:05d}.png", pictures[shown])
            _write_png(truth_dir / f"{index:05d}.png", truth)
            pair = np.concatenate([truth, pictures[shown]], 1)
            video.write(cv2.cvtColor(pair, cv2.COLOR_RGB2BGR))
            if index in picks:
                columns.append(np.concatenate([truth, pictures[shown]], 0))
            report("measuring", number + 1, len(frames))
    with replacing(out_dir / "side_by_side.png") as temporary:
        _write_png(temporary, np.concatenate(columns, 1))
    result: dict[str, Any] = {
        **{name: _means(values) for name, values in rows.items()},
        **({} if errors is None else {"code_error": errors}),
        "protocol": {
            "source": dataset.info.source,
            "split": chosen,
            "held_out_frames": len(frames),
            "every": every,
            "resolution": [camera.width, camera.height],
            "background": list(record.background),
            "mask": "composited with the dataset's matte",
            "regions": {
                name: {
                    "pixels": REGION_TEXT[name],
                    "frames": sum(math.isfinite(row[f"l1_{name}"]) for row in rows[shown]),
                }
                for name in regions.names
            },
            "averaging": "mean over frames, of a region over those that show it",
            "refined": (
                f"code, head and torso pose of held-out frames fitted to their images, avatar "
                f"frozen, "
                f"{refinement.steps} Adam steps at {refinement.size} px"
                if refine
                else "no"
            ),
            "pictures": shown,
            "perceptual": perceptual.description,
            "lpips": "no" if lpips is None else "lpips package, alex",
            "device": rasterizer.name,
            "training": {k: v for k, v in record.protocol.items() if k != "config"},
        },
        "frames": {
            str(index): {name: rows[name][number] for name in rows}
            for number, index in enumerate(frames)
        },
    }
    result = _finite(result)
    with replacing(out_dir / "metrics.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def _code_errors(
    avatar: Avatar, dataset: Dataset, frames: Sequence[int], motions: Mapping[str, Motion]
) -> dict[str, Any] | None:
    """Mean absolute errors of MediaPipe's scores and of the avatar's regressor, as codes, against
    the codes of held-out frames as tracked (and as refined); None where there are no scores."""
    record, tracking = avatar.record, dataset.tracking
    if record is None or tracking.scores is None or tracking.landmarks is None:
        return None
    readings = read_faces(dataset, frames)
    errors: dict[str, Any] = {}
    for name, motion in motions.items():
        codes = motion.codes[list(readings.frames)].cpu().numpy()
        found = code_errors(record.regressor, readings, codes, avatar.head)
        suffix = "" if name == "as_tracked" else f"_{name}"
        errors |= {f"{key}{suffix}": value for key, value in found.items() if key != "frames"}
        errors["frames"] = found["frames"]
    return errors


def _finite(value: Any) -> Any:
    """JSON has no NaN: a figure that could not be measured becomes null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise InputError(f"{path}: cannot be written; is the disk full?")


@contextmanager
def _video(path: Path, fps: float, size: tuple[int, int]) -> Iterator[cv2.VideoWriter]:
    with replacing(path) as temporary:
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
        if not writer.isOpened():
            raise InputError(f"{path}: OpenCV cannot write MP4 here; install opencv-python again")
        try:
            yield writer
        finally:
            writer.release()
