"""Align the frames of a clip by the face's looks: what landmarks leave unexplained.

Detected landmarks swim over the skin from frame to frame. The skin's own texture does not: points
on the mesh keep their appearance, up to light. Each point gets a template, the robust mean over the
clip of a feature insensitive to light; pose and code of every frame are then solved again so that
its picture agrees with the template (direct alignment of an appearance model: Lucas and Kanade,
1981; Matthews and Baker, 2004), from coarse to fine, the template rebuilt in between. The equations
are extra rows of those in :mod:`cag_avatar.tracking.normal_equations`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.head_models.base import REGIONS
from cag_avatar.rendering.mesh import rasterize
from cag_avatar.tracking.appearance import (
    FeaturePlanes,
    Template,
    face_points,
    feature_planes,
    sample_all,
)
from cag_avatar.tracking.clip_fit import ClipFit
from cag_avatar.tracking.fit_state import FitState, Silhouette
from cag_avatar.tracking.fitting import landmark_residuals
from cag_avatar.tracking.normal_equations import (
    Rows,
    apply_step,
    eye_distance,
    frame_normal,
    geman_mcclure,
    landmark_rows,
    mean_of_neighbours,
    project_with_jacobian,
    silhouette_rows,
    solve_bounded,
)
from cag_avatar.tracking.surface_basis import SurfacePoints

__all__ = ["PhotometricConfig", "refine_photometric"]

_LOG = logging.getLogger(__name__)

_RASTER = 160  # rows of the visibility buffer: a sample every 1 to 2 mm
_DEPTH_SLACK = 0.006  # metres: a sample's slope on the cheek, thinner than a nose
#: Slope of the features per blur, below which skin is taken as uniform.
_LEAST_SLOPE = 0.03


@dataclass(frozen=True)
class PhotometricConfig:
    """Weights and cost of the photometric pass."""

    points: int = 1500
    """Surface points; more change the poses by less than the pictures' noise."""
    blurs: tuple[float, ...] = (0.055, 0.028, 0.014)
    """Low-pass of each level, in inter-ocular distances. The first reaches over the landmarks'
    errors (a feature's slope holds for about a blur), the last keeps what the codec leaves."""
    iterations: tuple[int, ...] = (3, 3, 3)
    """Gauss-Newton steps of each level."""
    effective: float = 60.0
    """Independent measurements that the visible points of a frame count for: neighbouring points
    share their light, their codec noise and the mesh's error. More steadies the poses further,
    but lets an error of the shape turn them, and wrinkles and shadows of the lips bend the code."""
    noise: float = 0.3
    """Deviation of a feature (unit: local contrast), added to its own over the clip."""
    robust_scale: float = 3.0
    """Deviations at which a point's weight falls to a quarter: hands, glasses, wrinkles."""
    landmark_weight: float = 0.3
    """Of the landmarks, relative to the fit without pictures. They hold lips and lids, where
    occlusion changes the picture, and bridge frames in which the pictures fail."""
    template_frames: int = 60
    """Frames, spread over the clip, whose mean is the template."""
    least_visible: int = 200
    """Points that a frame must show to be solved."""
    chunk: int = 16
    """Frames in memory at a time, by worker."""
    workers: int = 2
    """Threads."""

    def __post_init__(self) -> None:
        if not self.blurs or len(self.blurs) != len(self.iterations):
            raise InputError(
                f"photometric: {len(self.blurs)} blurs and {len(self.iterations)} iterations; give "
                "one of each for every level, and at least one level"
            )
        if min(self.blurs) <= 0 or min(self.iterations) < 1:
            raise InputError("photometric: blurs must be positive, iterations at least 1")
        for name in ("points", "template_frames", "least_visible", "chunk", "workers"):
            if getattr(self, name) < 1:
                raise InputError(f"photometric: {name} = {getattr(self, name)} must be at least 1")
        for name in ("effective", "noise", "robust_scale", "landmark_weight"):
            if not getattr(self, name) > 0:
                raise InputError(f"photometric: {name} = {getattr(self, name)} must be positive")


def refine_photometric(
    fit: ClipFit,
    image: Callable[[int], NDArray[np.uint8]],
    config: PhotometricConfig | None = None,
    progress: Callable[[], object] | None = None,
    silhouette: Silhouette | None = None,
) -> ClipFit:
    """Solve pose and code of every frame again, so that the pictures of a surface point agree.

    Shape and focal length stay: solving the shape too (parallax) brought poses no nearer the truth.
    Landmarks stay as a weak term, each freed of its own median error
    over the clip: a landmark that sits beside its place on this face is no reason to move a frame.
    Frames that show too few points keep their fit, and are logged. The result does not depend on
    the number of workers. Memory does not grow with the clip, but for a bit per point and frame.

    Args:
        fit: fitted to landmarks and outlines.
        image: the picture of a frame, RGB [H, W, 3] uint8 in the fit's pixels; called at most twice
            a level and frame, from several threads.
        config: weights.
        progress: called once a frame and level.
        silhouette: rim points of all frames, on the person's shape, that hold skull and ears.

    Returns:
        A new fit; ``fit`` is not changed.
    """
    return _Pass(fit, image, config or PhotometricConfig(), silhouette).run(
        progress or (lambda: None)
    )


class _Pass:
    """One clip with what stays the same over the levels."""

    def __init__(
        self,
        fit: ClipFit,
        image: Callable[[int], NDArray[np.uint8]],
        config: PhotometricConfig,
        silhouette: Silhouette | None,
    ) -> None:
        self.fit, self.image, self.config = fit, image, config
        self.silhouette = silhouette
        faces, barycentric = face_points(fit.model, fit.rest, config.points)
        self.points = fit._space.points(faces, barycentric)
        self.rest = self.points.rest(fit.state.shape)
        self.landmark_rest = fit._points.rest(fit.state.shape)
        self.prior = fit._observed.prior
        self.count = len(fit.state.code)
        unit = eye_distance(fit._observed.landmarks)
        self.landmarks = fit._observed.landmarks + self._median_error() * unit[:, None, None]
        self.unit = float(unit.median())
        body = [REGIONS.index(n) for n in ("neck", "shoulders")]
        self.occluders = fit.model.faces[
            ~torch.isin(fit.model.face_region, torch.tensor(body))
        ].numpy()

    def run(self, progress: Callable[[], object]) -> ClipFit:
        config, state = self.config, self.fit.state
        chunks = [
            torch.arange(a, min(a + config.chunk, self.count))
            for a in range(0, self.count, config.chunk)
        ]
        spread = min(config.template_frames, self.count)
        shown = torch.linspace(0, self.count - 1, spread).round().long().unique()
        visible = self._visible(state)
        solved = torch.zeros(self.count, dtype=torch.bool)
        with ThreadPoolExecutor(config.workers) as pool:
            for blur, iterations in zip(config.blurs, config.iterations, strict=True):
                pixels = blur * self.unit
                template = self._template(state, shown, visible, pixels, pool)
                _LOG.info("photometric: blur %.1f px, template variance %.4f", pixels,
                          template.spread())  # fmt: skip
                solve = partial(self._solve, state, visible, template, pixels, iterations, progress)
                steps = list(pool.map(solve, chunks))
                solved = torch.cat([s for _, s in steps])
                state = replace(
                    state,
                    rotation=torch.cat([s.rotation for s, _ in steps]),
                    translation=torch.cat([s.translation for s, _ in steps]),
                    code=torch.cat([s.code for s, _ in steps]),
                )
        if not bool(solved.all()):
            kept = torch.nonzero(~solved).flatten().tolist()
            _LOG.warning(
                "photometric: %d of %d frames show too little of the face and keep their fit: %s%s",
                len(kept), self.count, kept[:8], "..." if len(kept) > 8 else "",
            )  # fmt: skip
        fit = self.fit
        return ClipFit(fit.model, fit._space, state, fit._size, fit._observed, fit._config)

    def _median_error(self) -> Tensor:
        """Of each landmark over the clip, [478, 2] inter-ocular distances."""
        errors = [
            landmark_residuals(
                self.fit.state.at(f), self.fit._points, self.fit._observed.landmarks[f]
            )
            for f in torch.arange(self.count).split(64)
        ]
        return torch.cat(errors).median(0).values

    def _visible(self, state: FitState) -> Tensor:
        """Points that nothing of the mesh covers, [T, N] bool."""
        out = torch.zeros(self.count, len(self.points.mean), dtype=torch.bool)
        camera = self.fit.camera
        scale = _RASTER / camera.height
        width = max(round(camera.width * scale), 1)
        small = PinholeCamera(
            width, _RASTER, *(v * scale for v in (camera.fx, camera.fy, camera.cx, camera.cy))
        )
        for frames in torch.arange(self.count).split(self.config.chunk):
            part = state.at(frames)
            pose = part.head_pose()
            meshes = self.fit.model.posed_vertices(self.fit.rest, part.code, pose, pose).numpy()
            positions, pixels = self._project(part)
            column, row = (pixels * scale).long().unbind(-1)
            inside = (column >= 0) & (row >= 0) & (column < width) & (row < _RASTER)
            column, row = column.clamp(0, width - 1), row.clamp(0, _RASTER - 1)
            for k, t in enumerate(frames):
                buffers = rasterize(meshes[k], self.occluders, small, cull_backfaces=True)
                front = torch.from_numpy(buffers.depth)[row[k], column[k]]
                near = (positions[k, :, 2] - front).abs() < _DEPTH_SLACK
                out[t] = inside[k] & near
        return out

    def _project(self, state: FitState) -> tuple[Tensor, Tensor]:
        """Camera-space positions [T, N, 3] and pixels [T, N, 2] of the points."""
        local, _ = self.points.local(self.rest, state.code)
        camera = local @ state.rotation.transpose(1, 2) + state.translation[:, None]
        pixels = camera[..., :2] / camera[..., 2:] * state.focal + camera.new_tensor(state.centre)
        return camera, pixels

    def _planes(self, frames: Tensor, pixels: Tensor, blur: float) -> list[FeaturePlanes]:
        low, high = pixels.amin(1).tolist(), pixels.amax(1).tolist()
        return [
            feature_planes(self.image(int(t)), (*low[k], *high[k]), blur)
            for k, t in enumerate(frames)
        ]

    def _template(
        self,
        state: FitState,
        shown: Tensor,
        visible: Tensor,
        blur: float,
        pool: ThreadPoolExecutor,
    ) -> Template:
        def sampled(frames: Tensor) -> tuple[Tensor, Tensor]:
            _, pixels = self._project(state.at(frames))
            return sample_all(self._planes(frames, pixels, blur), pixels)

        values, slopes = zip(*pool.map(sampled, shown.split(self.config.chunk)), strict=True)
        return Template.build(
            torch.cat(values), torch.cat(slopes) * blur, visible[shown], _LEAST_SLOPE
        )

    def _solve(
        self,
        clip: FitState,
        all_visible: Tensor,
        template: Template,
        blur: float,
        iterations: int,
        progress: Callable[[], object],
        frames: Tensor,
    ) -> tuple[FitState, Tensor]:
        """Some frames solved, the others of the clip held; and which were."""
        fit, config = self.fit, self.config
        visible = all_visible[frames]
        before = clip.at(frames)
        enough = (visible & template.usable).sum(1) >= config.least_visible
        state = before
        if bool(enough.any()):
            temporal = self.count > 2
            prior = self.prior.at(frames)
            _, pixels = self._project(before)
            planes = self._planes(frames, pixels, blur)
            # One frame more on either side: the neighbours in time.
            edge = torch.tensor(
                [max(int(frames[0]) - 1, 0), min(int(frames[-1]) + 1, self.count - 1)]
            )
            outer = clip.at(edge)
            for _ in range(iterations):
                neighbours = _neighbours_of(state, outer) if temporal else None
                rows = [
                    landmark_rows(
                        state, fit._points, self.landmark_rest, self.landmarks[frames],
                        fit._weights * config.landmark_weight, fit._config,
                    ),
                    photometric_rows(
                        state, self.points, self.rest, planes, visible, template, config
                    ),
                ]  # fmt: skip
                if self.silhouette is not None:
                    rim, unit = self.silhouette.at(frames), eye_distance(self.landmarks[frames])
                    rows.append(silhouette_rows(state, rim, unit, fit._config))
                matrix, right = frame_normal(rows, state, prior, neighbours, fit._config)
                moved = apply_step(state, solve_bounded(matrix, right, state.code, prior), prior)
                state = replace(
                    state,
                    rotation=torch.where(enough[:, None, None], moved.rotation, before.rotation),
                    translation=torch.where(enough[:, None], moved.translation, before.translation),
                    code=torch.where(enough[:, None], moved.code, before.code),
                )
        for _ in frames:
            progress()
        return state, enough


def _neighbours_of(state: FitState, outer: FitState) -> FitState:
    """Mean of the two neighbours in time of consecutive frames; ``outer``: before and after."""
    joined = replace(
        state,
        rotation=torch.cat([outer.rotation[:1], state.rotation, outer.rotation[1:]]),
        translation=torch.cat([outer.translation[:1], state.translation, outer.translation[1:]]),
        code=torch.cat([outer.code[:1], state.code, outer.code[1:]]),
    )
    return mean_of_neighbours(joined, torch.arange(1, len(state.code) + 1))


def photometric_rows(
    state: FitState,
    points: SurfacePoints,
    rest: Tensor,
    planes: list[FeaturePlanes],
    visible: Tensor,
    template: Template,
    config: PhotometricConfig,
) -> Rows:
    """Linear equations that the pictures' features equal the template's, [T, N * CHANNELS] rows.

    Args:
        state: of T frames.
        points: the surface points.
        rest: the rest head (SurfacePoints.rest).
        planes: features of the T pictures.
        visible: [T, N] bool.
        template: what to find.
        config: weights.
    """
    local, derivative = points.local(rest, state.code)
    rotated = local @ state.rotation.transpose(1, 2)
    pixels, jacobian = project_with_jacobian(
        state, rotated + state.translation[:, None], torch.ones(len(local), dtype=local.dtype)
    )
    values, slopes = sample_all(planes, pixels)
    residual = values - template.mean
    row = slopes @ jacobian  # [T, N, C, 3]
    turned = row @ state.rotation[:, None]
    by_code = derivative.times(turned)
    by_rotation = torch.linalg.cross(rotated[:, :, None].expand_as(row), row)
    by_frame = torch.cat([by_rotation, row * 0.1, by_code], -1)  # translation in decimetres
    used = (visible & template.usable).to(values.dtype)
    variance = template.variance + config.noise**2
    # Fewer visible points say less, but a point never counts for more than one measurement.
    share = config.effective / used.sum(1).clamp(min=config.effective) / residual.shape[-1]
    weight = (used * share[:, None])[..., None] / variance
    weight = weight * geman_mcclure(residual.square() / variance, config.robust_scale)
    count = len(residual)
    return Rows(
        residual.reshape(count, -1),
        by_frame.flatten(1, 2),
        weight.reshape(count, -1),
        turned,
    )
