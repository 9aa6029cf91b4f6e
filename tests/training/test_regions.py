"""Masks of the regions, and the figures inside them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.evaluation import measure_images
from cag_avatar_training.perceptual import distance_in, load_perceptual
from cag_avatar_training.regions import RegionMasks
from cag_avatar_training.synthetic.alignment import find_truth
from cag_avatar_training.synthetic.truth import Truth, load_truth, write_truth

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.head_models import REGIONS, load_head_model
from tests.conftest import TINY_FRAMES, TINY_SIZE

#: Source pixels left and above the crop, and source pixels a crop pixel.
CORNER, STEP = 10, 2


def make_truth(folder: Path, frames: int = TINY_FRAMES) -> Truth:
    """Label planes of a video twice as large as the tiny dataset, which is cut from it."""
    (folder / "regions").mkdir(parents=True)
    side = CORNER + STEP * TINY_SIZE + 5
    for t in range(frames):
        plane = np.full((side, side), 255, np.uint8)
        plane[CORNER : CORNER + STEP * 30, CORNER:] = REGIONS.index("face_skin")
        top = CORNER + STEP * (4 + t)
        plane[top : top + STEP * 3, CORNER : CORNER + STEP * 8] = REGIONS.index("teeth_upper")
        cv2.imwrite(str(folder / "regions" / f"{t:05d}.png"), plane)
    head = load_head_model("anny")
    pose = torch.eye(4).repeat(frames, 1, 1)
    truth = Truth(
        folder, "anny", PinholeCamera(side, side, 300.0, 300.0, side / 2, side / 2), 10.0, 0,
        torch.zeros(frames, 52), pose, pose.clone(), torch.zeros(head.num_identity),
        torch.zeros_like(head.vertices),
    )  # fmt: skip
    write_truth(truth)
    return truth


def cropped(dataset: Dataset) -> Dataset:
    """The dataset, said to be cut from the video of make_truth()."""
    crop = {"x": CORNER, "y": CORNER, "size": STEP * TINY_SIZE}
    return Dataset(dataset.path, replace(dataset.info, crop=crop), dataset.tracking)


def test_regions_of_the_dataset(tiny_dataset: Dataset) -> None:
    masks = RegionMasks(tiny_dataset)
    found = masks.of(3)
    assert tuple(found) == masks.names == ("matte", "head", "mouth", "eyes")
    frame = tiny_dataset.frame(3)
    assert torch.equal(found["matte"], frame.alpha > 0.5)
    assert torch.equal(found["mouth"], frame.mouth > 0.5)
    assert found["mouth"].sum() > 5
    assert not found["eyes"].any()


def test_head_is_the_matte_above_the_neck(tiny_dataset: Dataset) -> None:
    """Compared with where the tracked mesh has eyes, lips and neck."""
    head = load_head_model("anny")
    tracking = tiny_dataset.tracking
    masks = RegionMasks(tiny_dataset)
    index = 3
    motion = (
        torch.from_numpy(v[index : index + 1])
        for v in (tracking.codes, tracking.head_pose, tracking.torso_pose)
    )
    points = tiny_dataset.info.camera.project(head.posed_vertices(head.vertices, *motion)[0])
    region = head.vertex_region
    cheek = points[region == REGIONS.index("eye_left")][:, 1].max()
    found = masks.of(index)
    rows = torch.arange(TINY_SIZE) + 0.5
    assert torch.equal(found["head"][rows < cheek], found["matte"][rows < cheek])
    assert found["head"][rows < cheek].sum() > 200
    # The lowest row crosses neck, chin and neck.
    neck = points[region == REGIONS.index("neck")]
    assert neck[:, 1].max() > TINY_SIZE
    matte, shown = torch.nonzero(found["matte"][-1]), found["head"][-1]
    assert not shown[matte.min()]
    assert shown[int(points[region == REGIONS.index("lips")][:, 0].mean())]
    assert not shown[matte.max()]


def test_teeth_and_skin_come_from_the_truth(tiny_dataset: Dataset, tmp_path: Path) -> None:
    truth = make_truth(tmp_path / "tiny.truth")
    found = RegionMasks(cropped(tiny_dataset), truth).of(2)
    teeth = torch.zeros(TINY_SIZE, TINY_SIZE, dtype=torch.bool)
    teeth[6:9, :8] = True  # 4 + frame 2
    skin = torch.zeros_like(teeth)
    skin[:30] = True
    assert torch.equal(found["teeth"], teeth)
    assert torch.equal(found["skin"], skin & ~teeth)


def test_truth_is_found_by_the_name_of_the_video(tiny_dataset_path: Path, tmp_path: Path) -> None:
    dataset = cropped(Dataset.open(tiny_dataset_path))
    make_truth(tmp_path / "tiny.truth")
    make_truth(tmp_path / "other.truth")
    assert find_truth(dataset) is None
    assert find_truth(dataset, [tmp_path / "other.truth"]) is None
    found = find_truth(dataset, [tmp_path / "other.truth", tmp_path / "tiny.truth"])
    assert found is not None
    assert found.folder == tmp_path / "tiny.truth"
    for place in (tmp_path / "dataset", tmp_path / "work" / "dataset"):
        beside = find_truth(Dataset(place, dataset.info, dataset.tracking))
        assert beside is not None
        assert beside.folder == tmp_path / "tiny.truth"


def test_truth_of_another_video_is_refused(tiny_dataset: Dataset, tmp_path: Path) -> None:
    short = make_truth(tmp_path / "tiny.truth", frames=TINY_FRAMES - 1)
    with pytest.raises(InputError, match="not made from the video"):
        RegionMasks(cropped(tiny_dataset), load_truth(short.folder))
    with pytest.raises(InputError, match="not made from the video"):
        RegionMasks(tiny_dataset, load_truth(short.folder))  # no crop


def test_figures_inside_a_mask_against_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    image, target = (torch.rand(80, 72, 3, generator=generator) for _ in range(2))
    mask = torch.zeros(80, 72, dtype=torch.bool)
    mask[20:31, 40:55] = True
    empty = torch.zeros_like(mask)
    figures = measure_images(image, target, {"a": mask, "none": empty}, load_perceptual("alex"))
    error = (image.double().numpy() - target.double().numpy())[20:31, 40:55]
    assert figures["l1_a"] == pytest.approx(np.abs(error).mean(), rel=1e-9)
    assert figures["psnr_a"] == pytest.approx(-10 * np.log10((error**2).mean()), rel=1e-9)
    assert all(math.isnan(figures[f"{name}_none"]) for name in ("l1", "psnr", "ssim", "stlpips"))


def test_perceptual_distance_is_where_the_pictures_differ() -> None:
    perceptual = load_perceptual("alex")
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(192, 192, 3, generator=generator)
    image = target.clone()
    image[:40, :40] = torch.rand(40, 40, 3, generator=generator)
    with torch.inference_mode():
        maps = perceptual.distance_maps(image, target)
        whole = float(perceptual(image, target))
    here = torch.zeros(192, 192, dtype=torch.bool)
    here[:40, :40] = True
    assert distance_in(maps, torch.ones_like(here)) == pytest.approx(whole, rel=1e-5)
    assert distance_in(maps, here) > 5 * whole
    far = torch.zeros_like(here)
    far[150:, 150:] = True
    assert distance_in(maps, far) < 0.02 * whole
