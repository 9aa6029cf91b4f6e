"""Small avatars and datasets, made in a second, shared by all tests."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from cag_avatar_training.dataset import Dataset, DatasetInfo, DatasetWriter, Tracking

from cag_avatar.avatar.config import AvatarConfig
from cag_avatar.avatar.file import save_avatar
from cag_avatar.avatar.model import Avatar
from cag_avatar.avatar.record import CaptureRecord
from cag_avatar.camera import PinholeCamera
from cag_avatar.geometry import rigid_transform, rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX, REGIONS, load_head_model
from cag_avatar.native.library import cache_folder
from cag_avatar.rendering.rasterizer import get_rasterizer

# What tests prepare of their avatars stays out of the user's cache; the C library comes from there.
_cache = Path(tempfile.mkdtemp(prefix="cag_avatar-tests-"))
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
for _library in cache_folder().glob("*.so"):
    shutil.copy(_library, _cache)
os.environ["CAG_AVATAR_CACHE"] = str(_cache)

TINY_SIZE = 72
TINY_FRAMES = 15


def tiny_config(**changes: object) -> AvatarConfig:
    """A few hundred Gaussians and a small network."""
    values: dict[str, object] = {"uv_resolution": 24, "density": {}, "width": 32, "depth": 2}
    return AvatarConfig(**(values | changes))  # type: ignore[arg-type]


def facing_pose(distance: float = 0.6) -> torch.Tensor:
    """Canonical to camera space: the head upright, facing the camera, metres away."""
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    return rigid_transform(turn, torch.tensor([0.0, 0.03, distance]))


def make_avatar(seed: int = 0, **changes: object) -> Avatar:
    """A seeded avatar with random attributes and a network whose offsets are not small."""
    head = load_head_model("anny")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        avatar = Avatar(tiny_config(**changes), head, head.vertices)
        with torch.no_grad():
            avatar.attributes.color_base.uniform_(-1.5, 1.5)
            avatar.attributes.color_rest.normal_(std=0.1)
            avatar.attributes.rotation.add_(0.3 * torch.randn_like(avatar.attributes.rotation))
            avatar.network.last.weight.normal_(std=0.3)
            if avatar.local is not None:
                avatar.local.weight.normal_(std=0.1)
    pose = facing_pose().double().numpy()
    avatar.record = CaptureRecord(
        camera=PinholeCamera(TINY_SIZE, TINY_SIZE, 150.0, 150.0, TINY_SIZE / 2, TINY_SIZE / 2),
        neutral_head_pose=pose,
        neutral_torso_pose=pose,
        code_min=np.zeros(52),
        code_max=np.full(52, 0.8),
        pose_min=np.full(6, -0.2),
        pose_max=np.full(6, 0.2),
        protocol={"split": "last", "seed": seed},
    )
    return avatar.eval().requires_grad_(False)


@pytest.fixture
def tiny_avatar() -> Avatar:
    """A seeded avatar of a few hundred Gaussians, with a capture record."""
    return make_avatar()


@pytest.fixture
def tiny_avatar_path(tmp_path: Path) -> Path:
    """The same avatar in a .cag file."""
    path = tmp_path / "tiny.cag"
    save_avatar(path, make_avatar())
    return path


def _write_tiny_dataset(path: Path) -> None:
    """Frames of a painted avatar that nods, turns and opens its mouth."""
    avatar = make_avatar(seed=3, max_offset=0.0, max_region_offset={}, sh_degree=0, max_color=0.0)
    palette = torch.linspace(0.1, 0.9, len(REGIONS))[:, None] * torch.tensor([1.0, 0.7, 0.5])
    paint = palette[avatar.sample_region]
    avatar.attributes.color_base[:, 0] = (paint - 0.5) / 0.28209479177387814
    avatar.attributes.opacity_logit.fill_(3.0)
    inside = torch.tensor([name in ("lips", "teeth_upper", "teeth_lower") for name in REGIONS])
    mouth_paint = inside[avatar.sample_region].float()[:, None].repeat(1, 3)
    assert avatar.record is not None
    camera = avatar.record.camera
    time = torch.arange(TINY_FRAMES) / 10
    codes = torch.zeros(TINY_FRAMES, 52)
    codes[:, ARKIT_INDEX["jawOpen"]] = 0.5 + 0.5 * torch.sin(5 * time)
    turns = rotation_vector_to_matrix(
        torch.stack([0.1 * torch.sin(3 * time), 0.2 * torch.sin(2 * time), 0 * time], -1)
    )
    home = facing_pose()
    head = rigid_transform(turns @ home[:3, :3], home[:3, 3].expand(TINY_FRAMES, 3))
    torso = home.expand(TINY_FRAMES, 4, 4).contiguous()
    rasterizer = get_rasterizer("cpu")
    view, black = torch.eye(4), torch.zeros(3)

    def pixels(values: torch.Tensor) -> np.ndarray:
        return (values.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()

    with torch.no_grad(), DatasetWriter.create(path) as writer:
        for t in range(TINY_FRAMES):
            g = avatar.gaussians(codes[t], head[t], torso[t])
            shape = (g.means, g.quaternions, g.scales, g.opacities)
            seen = rasterizer.render(*shape, g.colors, view, camera, black)
            mouth = rasterizer.render(*shape, mouth_paint, view, camera, black).image[..., 0]
            image = seen.image / seen.alpha[..., None].clamp_min(1e-3)
            writer.add_frame(
                pixels(image),
                pixels(seen.alpha),
                np.where(mouth > 0.5, 4, seen.alpha > 0.5).astype(np.uint8),
            )
        tracking = Tracking(
            identity=np.zeros(load_head_model("anny").num_identity, np.float32),
            vertex_offsets=np.zeros(avatar.rest.shape, np.float32),
            codes=codes.numpy(),
            head_pose=head.numpy(),
            torso_pose=torso.numpy(),
            landmarks=np.zeros((TINY_FRAMES, 478, 3), np.float32),
            timestamps=time.double().numpy(),
        )
        writer.finish(DatasetInfo(camera=camera, fps=10.0, source="tiny.mp4"), tracking)


@pytest.fixture(scope="session")
def tiny_dataset_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder; shared, so tests that change it must copy it."""
    path = tmp_path_factory.mktemp("data") / "dataset"
    _write_tiny_dataset(path)
    return path


@pytest.fixture
def tiny_dataset(tiny_dataset_path: Path) -> Dataset:
    """The dataset, opened."""
    return Dataset.open(tiny_dataset_path)


@pytest.fixture(scope="session")
def native_builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache folder of compiled code for other processors: each is built once a session."""
    return tmp_path_factory.mktemp("native")
