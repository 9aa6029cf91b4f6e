from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.preprocess import PreprocessConfig, preprocess
from cag_avatar_training.synthetic import Truth, load_truth
from cag_avatar_training.video import probe_video, read_frames
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models import ARKIT_INDEX, ARKIT_NAMES, load_head_model
from tests.training.conftest import write_motion_jpeg, write_video

SIZE = 256
QUIET = PreprocessConfig(size=SIZE, progress=False)


@pytest.fixture(scope="module")
def face_frames(face_video: Path) -> list[NDArray[np.uint8]]:
    return list(read_frames(probe_video(face_video)))


@pytest.fixture(scope="module")
def dataset(face_video: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("datasets") / "face"
    out.mkdir()
    for name in ("dataset.json", "old.png"):  # a dataset from before
        (out / name).write_text("{}")
    preprocess(face_video, out, QUIET)
    assert [p.name for p in out.parent.iterdir()] == ["face"]
    assert not (out / "old.png").exists()
    return Dataset.open(out)


@pytest.fixture(scope="module")
def truth(face_video: Path) -> Truth:
    return load_truth(face_video.with_suffix(".truth"))


def refused(video: Path, out: Path) -> str:
    """The message; checks that it is one line that names the file, and that nothing was left."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(InputError) as caught:
        preprocess(video, out, QUIET)
    message = str(caught.value)
    assert message.startswith(f"{video}: ")
    assert "\n" not in message
    assert not out.exists()
    assert sorted(out.parent.iterdir()) == before
    return message


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.mp4", tmp_path / "out")


def test_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("hello\n" * 100)
    assert "convert it to H.264 MP4" in refused(path, tmp_path / "out")


def test_no_face(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frames = [random.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(55)]
    message = refused(write_video(tmp_path / "noise.mp4", frames), tmp_path / "out")
    assert "no face; film one face" in message


def test_a_face_in_few_frames(tmp_path: Path, face_frames: list[NDArray[np.uint8]]) -> None:
    grey = np.full_like(face_frames[0], 128)
    frames = face_frames[:20] + [grey] * 40
    message = refused(write_video(tmp_path / "leaves.mp4", frames), tmp_path / "out")
    assert "of 60 frames, 0.8 s; at least 2 s are needed; film one face" in message


def test_two_faces(tmp_path: Path, face_frames: list[NDArray[np.uint8]]) -> None:
    frames = [np.hstack([f, f[:, ::-1]]) for f in face_frames]
    message = refused(write_video(tmp_path / "pair.mp4", frames), tmp_path / "out")
    assert "two faces of one size in" in message
    assert "crop the video to one person" in message


def test_under_two_seconds(tmp_path: Path, face_frames: list[NDArray[np.uint8]]) -> None:
    message = refused(write_video(tmp_path / "short.mp4", face_frames[:45]), tmp_path / "out")
    assert "1.8 s long, at least 2 s are needed; record a longer video" in message


def test_under_two_seconds_in_a_container_that_does_not_say(
    tmp_path: Path, face_frames: list[NDArray[np.uint8]]
) -> None:
    path = write_motion_jpeg(tmp_path / "short.mjpeg", face_frames[:20])
    assert "0.8 s long, at least 2 s are needed" in refused(path, tmp_path / "out")


def test_a_frame_size_that_changes(tmp_path: Path, face_frames: list[NDArray[np.uint8]]) -> None:
    small = [np.asarray(cv2.resize(f, (192, 192)), np.uint8) for f in face_frames[:30]]
    path = write_motion_jpeg(tmp_path / "two.mjpeg", face_frames[:30] + small)
    message = refused(path, tmp_path / "out")
    assert "frame 30 is 192 x 192, the first was 256 x 256; re-encode" in message


def test_an_output_folder_that_is_no_dataset_is_kept(tmp_path: Path, face_video: Path) -> None:
    out = tmp_path / "photos"
    out.mkdir()
    (out / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"photos: exists and is not a dataset; name another"):
        preprocess(face_video, out, QUIET)
    assert [p.name for p in out.iterdir()] == ["holiday.jpg"]
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 127}, "size: 127 must be even and between 128 and 2048"),
        ({"size": 4096}, "size: 4096 must be even"),
        ({"min_seconds": -1.0}, "min_seconds: -1.0 must not be negative"),
    ],
)
def test_settings_out_of_range(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PreprocessConfig(**change)  # type: ignore[arg-type]


def test_the_dataset_describes_the_video(dataset: Dataset, face_video: Path) -> None:
    info = dataset.info
    assert len(dataset) == 60
    assert (info.fps, info.source, info.head_model) == (25.0, face_video.name, "anny")
    assert (info.camera.width, info.camera.height) == (SIZE, SIZE)
    assert info.tracking["frames_with_face"] == info.tracking["frames_in_video"] == 60
    assert info.tracking["landmark_rmse_interocular"] < 0.03
    np.testing.assert_allclose(dataset.tracking.timestamps, np.arange(60) / 25)
    crop = info.crop
    assert crop["x"] >= 0 <= crop["y"]
    assert max(crop["x"], crop["y"]) + crop["size"] <= 256
    # The principal point is the middle of the whole picture, seen from the crop.
    scale = SIZE / crop["size"]
    assert info.camera.cx == pytest.approx((128 - crop["x"]) * scale)
    assert info.camera.cy == pytest.approx((128 - crop["y"]) * scale)


def test_the_scores_are_kept_and_follow_the_truth(dataset: Dataset, truth: Truth) -> None:
    scores = dataset.tracking.scores
    assert scores is not None
    assert scores.shape == (len(dataset), 52)
    blink = ARKIT_INDEX["eyeBlinkLeft"]
    closed = truth.codes[:, blink].numpy()
    assert np.corrcoef(scores[:, blink], closed)[0, 1] > 0.7


def test_the_fit_lies_on_the_face(dataset: Dataset, truth: Truth) -> None:
    """Vertices of the fitted head against those of the true one, in pixels of the dataset."""
    head = load_head_model("anny")
    t = dataset.tracking
    codes, pose, torso = (torch.from_numpy(x) for x in (t.codes, t.head_pose, t.torso_pose))
    rest = head.rest_vertices(torch.from_numpy(t.identity), torch.from_numpy(t.vertex_offsets))
    found = dataset.info.camera.project(head.posed_vertices(rest, codes, pose, torso))
    true_rest = head.rest_vertices(truth.identity, truth.offsets)
    true_posed = head.posed_vertices(true_rest, truth.codes, truth.head_pose, truth.torso_pose)
    crop = dataset.info.crop
    corner = torch.tensor([crop["x"], crop["y"]], dtype=torch.float32)
    expected = (truth.camera.project(true_posed) - corner) * (SIZE / crop["size"])
    eyes, true_eyes = (
        torch.stack([pixels[:, i].mean(1) for i in head.eye_vertices], 1)
        for pixels in (found, expected)
    )
    assert (eyes - true_eyes).norm(dim=-1).mean() < 3.0
    skin = head.region_vertices("face_skin")
    assert (found - expected)[:, skin].norm(dim=-1).mean() < 4.0
    relative = pose[:, :3, :3] @ truth.head_pose[:, :3, :3].transpose(1, 2)
    cosine = 0.5 * (relative.diagonal(dim1=1, dim2=2).sum(1) - 1)
    assert torch.rad2deg(torch.acos(cosine.clamp(max=1.0))).mean() < 4.0
    shoulders = head.region_vertices("shoulders")

    def motion(pixels: torch.Tensor) -> torch.Tensor:
        return pixels[:, shoulders] - pixels[:, shoulders].mean(0)

    missed = (motion(found) - motion(expected)).norm(dim=-1).mean()
    assert missed < 0.6 * motion(expected).norm(dim=-1).mean()


@pytest.mark.parametrize(
    "name", ["eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "mouthSmileRight"]
)
def test_expressions_follow_the_truth(dataset: Dataset, truth: Truth, name: str) -> None:
    index = ARKIT_INDEX[name]
    codes = dataset.tracking.codes
    assert codes.shape == (60, len(ARKIT_NAMES))
    assert np.corrcoef(codes[:, index], truth.codes[:, index].numpy())[0, 1] > 0.7
    assert codes.min() >= 0
    assert codes.max() <= 1


def test_the_matte_covers_the_person(dataset: Dataset, truth: Truth) -> None:
    crop = dataset.info.crop
    x, y, side = crop["x"], crop["y"], crop["size"]
    for t in range(0, 60, 6):
        cut = truth.alpha(t)[y : y + side, x : x + side]
        expected = np.asarray(cv2.resize(cut, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)) > 127
        found = dataset.frame(t).alpha.numpy() > 0.5
        assert (found & expected).sum() / (found | expected).sum() > 0.95


def test_the_mouth_mask_lies_on_the_mouth(dataset: Dataset) -> None:
    for t in (0, 30, 59):
        mask = dataset.frame(t).mouth.numpy() > 0.5
        lips = dataset.tracking.landmarks[t][[61, 291, 0, 17], :2]
        rows, columns = np.nonzero(mask)
        assert abs(columns.mean() - lips[:, 0].mean()) < 4
        assert abs(rows.mean() - lips[:, 1].mean()) < 4
        assert 0.5 < np.ptp(columns) / np.ptp(lips[:2, 0]) < 2


def test_images_are_the_crop_of_the_video(
    dataset: Dataset, face_frames: list[NDArray[np.uint8]]
) -> None:
    crop = dataset.info.crop
    x, y, side = crop["x"], crop["y"], crop["size"]
    for t in (0, 31):
        cut = face_frames[t][y : y + side, x : x + side]
        expected = np.asarray(cv2.resize(cut, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)) / 255
        frame = dataset.frame(t)
        solid = frame.alpha.numpy() > 0.999
        found = frame.target(torch.zeros(3)).numpy()
        assert np.abs(found - expected)[solid].mean() < 0.01
