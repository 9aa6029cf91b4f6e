"""Known clips of the small head, seen by a camera off centre in a picture that is not square."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from cag_avatar_training.dataset import Dataset
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cag_avatar.head_models import load_head_model
from cag_avatar.rendering.mesh import rasterize
from cag_avatar.rendering.mesh import silhouette as mesh_silhouette
from tests.training.importers.flame_twin import FlamePose, FlameTwin, silhouette

Array = NDArray[np.float64]

WIDTH, HEIGHT = 80, 96
FX, FY, CX, CY = 165.0, 172.0, 46.0, 42.5
SKIN = np.array([190.0, 130.0, 100.0])


@dataclass(frozen=True)
class Scene:
    """A clip and what is known of it."""

    twin: FlameTwin
    shape: Array
    poses: list[FlamePose]
    world_to_camera: Array
    """OpenCV axes, metres, [T, 4, 4]."""
    offset: Array | None = None

    def __len__(self) -> int:
        return len(self.poses)

    def camera_vertices(self, t: int) -> Array:
        """[V, 3], OpenCV axes, metres."""
        world = self.twin.vertices(self.shape, self.poses[t], self.offset)
        return np.asarray(
            world @ self.world_to_camera[t, :3, :3].T + self.world_to_camera[t, :3, 3]
        )

    def coverage(self, t: int) -> Array:
        """Silhouette [H, W] in [0, 1]."""
        x, y, z = self.camera_vertices(t).T
        pixels = np.stack([FX * x / z + CX, FY * y / z + CY], -1)
        return silhouette(pixels, self.twin.f, WIDTH, HEIGHT)


def make_scene(
    twin: FlameTwin, frames: int, *, camera_moves: bool, neck: bool = False, seed: int = 3
) -> Scene:
    """A head that moves several pixels a frame, or a still head before a camera that moves."""
    random = np.random.default_rng(seed)
    still = np.zeros(3)

    def some(size: float, *shape: int) -> Array:
        return np.asarray(random.uniform(-size, size, shape))

    def sway(t: int) -> tuple[Array, Array]:
        turn = np.array([0.12 * np.cos(2.1 * t), 0.35 * np.sin(1.7 * t + 0.4), 0.15 * np.sin(t)])
        shift = np.array([0.03 * np.cos(2.4 * t), 0.025 * np.sin(1.9 * t), 0.05 * np.sin(1.3 * t)])
        return turn, shift

    poses, views = [], []
    for t in range(frames):
        turn, shift = sway(t)
        poses.append(
            FlamePose(
                expression=random.normal(size=100) * 0.5,
                rotation=still if camera_moves else turn,
                neck=some(0.2, 3) if neck else still,
                jaw=np.array([0.25 * np.sin(t) ** 2, 0.02, 0.0]),
                eyes=some(0.25, 2, 3),
                translation=still if camera_moves else shift,
            )
        )
        view = np.eye(4)
        view[:3, :3] = np.diag([1.0, -1.0, -1.0])
        view[:3, 3] = 0.01, 0.03, 0.6
        if camera_moves:
            move = np.eye(4)
            move[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
            move[:3, 3] = shift
            view = view @ move
        views.append(view)
    return Scene(twin, random.normal(size=300) * 0.7, poses, np.stack(views))


def trimmed(scene: Scene, shapes: int, expressions: int) -> Scene:
    """The scene with the later coefficients set to zero, for formats that hold fewer."""
    shape = np.where(np.arange(300) < shapes, scene.shape, 0.0)
    keep = np.arange(100) < expressions
    poses = [replace(p, expression=np.where(keep, p.expression, 0.0)) for p in scene.poses]
    return replace(scene, shape=shape, poses=poses)


def picture(cover: Array, background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The head in skin colour over a background, [H, W, 3] RGB."""
    share = cover[..., None]
    return np.rint(SKIN * share + np.array(background) * (1 - share)).astype(np.uint8)


def grey(cover: Array) -> NDArray[np.uint8]:
    """Coverage as an 8-bit plane."""
    return np.rint(cover * 255).astype(np.uint8)


def imported_vertices(dataset: Dataset, model: str) -> Array:
    """Camera-space vertices of the imported mesh, posed by the imported tracking, [T, V, 3]."""
    head = load_head_model(model)
    values = {
        name: torch.from_numpy(getattr(dataset.tracking, name))
        for name in ("identity", "vertex_offsets", "codes", "head_pose", "torso_pose")
    }
    rest = head.rest_vertices(values["identity"], values["vertex_offsets"])
    posed = head.posed_vertices(rest, values["codes"], values["head_pose"], values["torso_pose"])
    return np.asarray(posed.double().numpy())


def overlay_iou(dataset: Dataset, model: str) -> list[float]:
    """Intersection over union of our render of the imported mesh and the imported pictures."""
    faces = load_head_model(model).faces.numpy()
    values = []
    for t, posed in enumerate(imported_vertices(dataset, model)):
        seen = rasterize(posed, faces, dataset.info.camera, supersample=4)
        ours = mesh_silhouette(seen) > 0.5
        theirs = dataset.frame(t).alpha.numpy() > 0.5
        values.append(float((ours & theirs).sum() / (ours | theirs).sum()))
    return values
