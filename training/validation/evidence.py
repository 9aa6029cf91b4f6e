"""One pass over a dataset that measures what the checks need; pictures are not kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from cag_avatar_training.dataset import Dataset, DatasetInfo, Tracking
from cag_avatar_training.validation.config import ValidationConfig
from cag_avatar_training.validation.face_measures import EYE_CORNERS
from cag_avatar_training.validation.mesh_motion import HEAD_REGIONS, FittedHead, head_angles
from cag_avatar_training.validation.picture_figures import (
    follow,
    matte_figures,
    picture_change,
    sharpness,
    toggled,
)
from numpy.typing import NDArray

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.head_models import ARKIT_NAMES, REGIONS, HeadModel
from cag_avatar.rendering.mesh import MeshBuffers, rasterize
from cag_avatar.tracking.face_landmarker import FaceLandmarker

__all__ = ["Evidence", "FrameSink", "gather"]

_LOG = logging.getLogger(__name__)

#: Colour put behind the person: what stood there must not be followed.
_BEHIND = 0.5
#: Mirrored pictures are followed every so many frames: they only answer yes or no.
_MIRRORED = 3
#: Frames read through one view of the dataset, whose cache then goes.
_VIEW = 16

Floats = NDArray[np.float64]


class FrameSink(Protocol):
    """Takes every frame of the pass."""

    def add(
        self,
        frame: int,
        image: NDArray[np.uint8],
        vertices: NDArray[np.float32],
        landmarks: NDArray[np.float32] | None,
    ) -> None:
        """Frame number, picture [H, W, 3] at full size, camera-space vertices [V, 3], landmarks
        [478, 2] in pixels of the picture or None."""  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """Measurements of T frames. Pixels are those of the dataset's pictures."""

    info: DatasetInfo
    tracking: Tracking
    head: FittedHead
    unit: Floats
    """Distance of the outer eye corners at the head's place, pixels, [T]."""
    angles: Floats
    """Pitch, yaw, roll of the head, degrees, [T, 3]."""
    points: NDArray[np.float32]
    """The mesh's points in the picture, [T, K, 2]."""
    visible: NDArray[np.bool_]
    """Which of them the camera sees, [T, K]."""
    flow: NDArray[np.float32]
    """Motion of the picture at the points from frame t to t + 1, [T - 1, K, 2]."""
    flow_good: NDArray[np.bool_]
    """Where that could be followed, [T - 1, K]."""
    mirrored_flow: NDArray[np.float32]
    """The same in mirrored pictures, at every third frame."""
    mirrored_good: NDArray[np.bool_]
    mesh_landmarks: NDArray[np.float32] | None
    """MediaPipe's landmarks on the mesh, [T, 478, 2]; None without an embedding."""
    landmarks: NDArray[np.float32] | None
    """Detected landmarks, [T, 478, 2]; None where there are none."""
    seen: NDArray[np.bool_]
    """Frames with detected landmarks, [T]."""
    change: Floats
    """Difference of picture t + 1 from picture t within the person, 8-bit levels, [T - 1]."""
    sharpness: Floats
    overexposed: Floats
    brightness: Floats
    hole: Floats
    outside: Floats
    outside_at: Floats
    """[T, 2]; the others [T], see picture_figures."""
    island: Floats
    toggled: Floats
    """0 in the first and the last frame."""
    cut: Floats
    """Share of the head's mesh outside the picture, [T]."""

    def __len__(self) -> int:
        return len(self.unit)

    @property
    def arkit(self) -> bool:
        """Whether the code is made of the ARKit coefficients."""
        return tuple(self.info.code_names) == ARKIT_NAMES

    def code(self, name: str) -> Floats:
        """One coefficient over time, [T]. Raises ValueError on an unknown name."""
        column = self.info.code_names.index(name)
        return np.asarray(self.tracking.codes[:, column], np.float64)

    def consecutive(self) -> NDArray[np.bool_]:
        """Whether frame t + 1 follows frame t in the video, none left out between, [T - 1]."""
        numbers = getattr(self.tracking, "source_frames", None)
        if numbers is not None:
            return np.asarray(np.diff(numbers) == 1)
        steps = np.diff(self.tracking.timestamps)
        usual = np.median(steps) if len(steps) else 0.0
        if usual <= 0:
            return np.ones(len(steps), bool)
        return np.asarray(steps < 1.5 * usual)


class _Recorder:
    """Rows of named figures, one a frame.

    Room for all frames is taken at once: small arrays that stay, one between each frame's large
    ones that go, would leave the heap full of holes, half a megabyte a frame.
    """

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._arrays: dict[str, NDArray[Any]] = {}
        self._counts: dict[str, int] = {}

    def add(self, **values: Any) -> None:
        for name, value in values.items():
            row = np.asarray(value)
            if name not in self._arrays:
                self._arrays[name] = np.zeros((self._frames, *row.shape), row.dtype)
            count = self._counts.get(name, 0)
            self._arrays[name][count] = row
            self._counts[name] = count + 1

    def floats(self, name: str) -> Floats:
        return np.asarray(self.stacked(name, (), np.float64))

    def stacked(self, name: str, shape: tuple[int, ...], kind: Any) -> NDArray[Any]:
        if name not in self._arrays:
            return np.zeros((0, *shape), kind)
        return self._arrays[name][: self._counts[name]].astype(kind, copy=False)


def gather(
    dataset: Dataset,
    model: HeadModel,
    config: ValidationConfig,
    sink: FrameSink | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evidence:
    """Measure every frame once; memory for pictures does not grow with the clip.

    Args:
        dataset: to measure.
        model: the head model it was fitted with.
        config: ``size`` and whether landmarks are detected.
        sink: also gets every frame.
        progress: called with (frames done, frames in all).

    Raises:
        InputError: a picture cannot be read; the numbers do not fit the model.
    """
    head = FittedHead.of(dataset, model)
    full = dataset.info.camera
    height = min(config.size, full.height)
    camera = full.resized(max(1, round(full.width * height / full.height)), height)
    scale = np.array([full.width / camera.width, full.height / camera.height], np.float32)
    tracking = dataset.tracking
    total = len(dataset)
    depth = tracking.head_pose[:, 2, 3].astype(np.float64)
    unit = full.fx * head.eye_distance / np.maximum(depth, 1e-3)
    stored, seen = _stored_landmarks(tracking.landmarks, unit)
    detector = None if stored is not None else _detector(config)
    rows = _Recorder(total)
    analyst = _Analyst(head, camera, rows)
    posed = head.vertices(
        *(torch.from_numpy(x) for x in (tracking.codes, tracking.head_pose, tracking.torso_pose))
    )
    try:
        for (frame, vertices), (image, matte) in zip(posed, _pictures(dataset), strict=True):
            corners = vertices.numpy()
            found = None if stored is None else stored[frame]
            if detector is not None:
                found = _detect(detector, image)
                rows.add(found=np.zeros((478, 2), np.float32) if found is None else found)
                seen[frame] = found is not None
            on_mesh = head.landmarks(vertices, full)
            if on_mesh is not None:
                rows.add(mesh_landmarks=on_mesh)
            small = _resized(image, camera)
            analyst.add(small, _resized(matte, camera), corners)
            if sink is not None:
                sink.add(frame, image, corners, found if seen[frame] else None)
            if progress is not None:
                progress(frame + 1, total)
        analyst.finish()
    finally:
        if detector is not None:
            detector.close()
    count = len(head.points)
    landmarks = stored if detector is None else rows.stacked("found", (478, 2), np.float32)
    return Evidence(
        info=dataset.info,
        tracking=tracking,
        head=head,
        unit=unit,
        angles=head_angles(tracking.head_pose),
        points=rows.stacked("points", (count, 2), np.float32) * scale,
        visible=rows.stacked("visible", (count,), bool),
        flow=rows.stacked("flow", (count, 2), np.float32) * scale,
        flow_good=rows.stacked("flow_good", (count,), bool),
        mirrored_flow=rows.stacked("mirrored_flow", (count, 2), np.float32) * scale,
        mirrored_good=rows.stacked("mirrored_good", (count,), bool),
        mesh_landmarks=(
            None if head.embedding is None else rows.stacked("mesh_landmarks", (478, 2), np.float32)
        ),
        landmarks=landmarks if seen.any() else None,
        seen=seen,
        outside_at=rows.stacked("outside_at", (2,), np.float64),
        **{
            name: rows.floats(name)
            for name in (
                "change", "sharpness", "overexposed", "brightness", "hole", "outside", "island",
                "toggled", "cut",
            )
        },
    )  # fmt: skip


class _Analyst:
    """Measures frame after frame, remembering the two before."""

    def __init__(self, head: FittedHead, camera: PinholeCamera, rows: _Recorder) -> None:
        self._head = head
        self._camera = camera
        self._rows = rows
        model = head.model
        self._faces = model.faces.numpy()
        region = model.face_region.numpy()
        self._is_head = np.isin(region, [REGIONS.index(name) for name in HEAD_REGIONS])
        self._is_face = region == REGIONS.index("face_skin")
        shown = ("face_skin", "ears", "scalp")
        self._outer = model.region_vertices(*shown).numpy()
        self._last: tuple[NDArray[np.uint8], NDArray[np.bool_], Any, Any] | None = None
        self._pairs = 0
        self._mattes: list[tuple[NDArray[np.uint8], NDArray[np.bool_]]] = []

    def add(
        self,
        image: NDArray[np.uint8],
        matte: NDArray[np.uint8],
        vertices: NDArray[np.float32],
    ) -> None:
        """Picture [H, W, 3] and matte [H, W] at the camera's size, camera-space vertices."""
        rows = self._rows
        grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        buffers = rasterize(vertices, self._faces, self._camera)
        drawn = buffers.face_index >= 0
        index = np.maximum(buffers.face_index, 0)
        head = drawn & self._is_head[index]
        figures = matte_figures(matte, head)
        face = drawn & self._is_face[index] & figures.inner
        picture = self._camera.project(torch.from_numpy(vertices)).numpy()
        points = picture[self._head.points]
        visible = self._visible(points, vertices[self._head.points], buffers)
        size = (self._camera.width, self._camera.height)
        outer = picture[self._outer]
        values = image[face]
        rows.add(
            points=points,
            visible=visible,
            hole=figures.hole,
            outside=figures.outside,
            outside_at=np.array(figures.outside_at),
            island=figures.island,
            sharpness=sharpness(grey, face),
            overexposed=float((values.max(1) >= 253).mean()) if len(values) else 0.0,
            brightness=float(values.mean() / 255) if len(values) else 0.0,
            cut=float(((outer < 0) | (outer > size)).any(1).mean()),
        )
        self._motion(grey, matte > 127, points, visible)
        self._toggle(matte, figures.inner)

    def finish(self) -> None:
        """The last frame has no next one."""
        self._rows.add(toggled=0.0)

    def _visible(
        self, points: NDArray[np.float32], camera: NDArray[np.float32], buffers: MeshBuffers
    ) -> NDArray[np.bool_]:
        column, row = np.floor(points.clip(-1e6, 1e6)).astype(int).T
        height, width = buffers.depth.shape
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        nearest = buffers.depth[row.clip(0, height - 1), column.clip(0, width - 1)]
        return np.asarray(inside & (camera[:, 2] < nearest + 0.006) & np.isfinite(nearest))

    def _motion(
        self,
        grey: NDArray[np.uint8],
        person: NDArray[np.bool_],
        points: NDArray[np.float32],
        visible: NDArray[np.bool_],
    ) -> None:
        if self._last is not None:
            before, person_before, old, old_visible = self._last
            flow, good = follow(before, grey, old)
            mirrored, mirrored_good = np.zeros_like(flow), np.zeros_like(good)
            if self._pairs % _MIRRORED == 0:
                flipped, after = (np.ascontiguousarray(x[:, ::-1]) for x in (before, grey))
                mirrored, mirrored_good = follow(flipped, after, old)
            self._pairs += 1
            self._rows.add(
                flow=flow,
                flow_good=good & old_visible,
                mirrored_flow=mirrored,
                mirrored_good=mirrored_good & old_visible,
                change=picture_change(before, grey, person & person_before),
            )
        self._last = (grey, person, points, visible)

    def _toggle(self, matte: NDArray[np.uint8], inner: NDArray[np.bool_]) -> None:
        self._mattes.append((matte, inner))
        if len(self._mattes) == 1:
            self._rows.add(toggled=0.0)
        elif len(self._mattes) == 3:
            (before, _), (middle, ignore), (after, _) = self._mattes
            self._rows.add(toggled=toggled(before, middle, after, ignore))
            self._mattes.pop(0)


def _pictures(dataset: Dataset) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Picture over grey and matte of every frame, full size."""
    behind = torch.full((3,), _BEHIND)
    for frame in range(len(dataset)):
        if frame % _VIEW == 0:
            # A dataset keeps what it decodes; each frame is needed once.
            view = Dataset(dataset.path, dataset.info, dataset.tracking)
        entry = view.frame(frame)
        image = (entry.target(behind) * 255 + 0.5).to(torch.uint8).numpy()
        yield image, (entry.alpha * 255 + 0.5).to(torch.uint8).numpy()


def _resized(picture: NDArray[np.uint8], camera: PinholeCamera) -> NDArray[np.uint8]:
    size = (camera.width, camera.height)
    if picture.shape[1::-1] == size:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _stored_landmarks(
    landmarks: NDArray[np.float32], unit: Floats
) -> tuple[NDArray[np.float32] | None, NDArray[np.bool_]]:
    """Stored landmarks and the frames that have them: an importer may leave zeros."""
    points = landmarks[..., :2]
    good = np.isfinite(points).all((1, 2))
    corners = points[:, EYE_CORNERS[0]] - points[:, EYE_CORNERS[1]]
    good &= np.linalg.norm(np.nan_to_num(corners), axis=1) > 0.05 * unit
    return (np.nan_to_num(points) if good.any() else None), np.asarray(good)


def _detector(config: ValidationConfig) -> FaceLandmarker | None:
    if not config.detect:
        return None
    try:
        return FaceLandmarker()
    except InputError as error:
        _LOG.warning("the dataset has no landmarks and none can be detected: %s", error)
        return None


def _detect(detector: FaceLandmarker, image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    faces = detector.detect(image)
    return faces[0].landmarks[:, :2] if faces else None
