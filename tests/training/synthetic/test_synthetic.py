from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cag_avatar_training.synthetic import (
    MOTION_STYLES,
    SynthesisConfig,
    load_truth,
    synthesize,
    truth_folder,
)
from cag_avatar_training.synthetic.motion import perform
from cag_avatar_training.synthetic.render import Subject, create_subject, default_camera
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models import ARKIT_INDEX, ARKIT_NAMES, REGIONS, load_head_model
from cag_avatar.rendering.mesh import rasterize, silhouette

TEETH = [REGIONS.index("teeth_upper"), REGIONS.index("teeth_lower")]


def small(out: Path, **changes: object) -> SynthesisConfig:
    values: dict[str, object] = {
        "seed": 7, "seconds": 0.16, "size": 96, "texture_size": 256, "strands": 200,
    }  # fmt: skip
    return SynthesisConfig(out=out, **{**values, **changes})  # type: ignore[arg-type]


def code(**values: float) -> NDArray[np.float32]:
    """A code from names; a name without a side sets both."""
    out = np.zeros(len(ARKIT_NAMES), np.float32)
    for name, value in values.items():
        for full in (name,) if name in ARKIT_INDEX else (f"{name}Left", f"{name}Right"):
            out[ARKIT_INDEX[full]] = value
    return out


def facing(yaw: float = 0.0) -> NDArray[np.float32]:
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    c, s = np.cos(yaw), np.sin(yaw)
    pose[:3, :3] = pose[:3, :3] @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    pose[2, 3] = 0.86
    return pose.astype(np.float32)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return create_subject(7, texture_size=512, strands=200)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[SynthesisConfig, Path]:
    config = small(tmp_path_factory.mktemp("synthetic") / "clip.mp4")
    result = synthesize(config)
    assert result.frames == config.num_frames == 4
    return config, result.video


def frames_of(video: Path) -> list[NDArray[np.uint8]]:
    capture = cv2.VideoCapture(str(video))
    frames = []
    while True:
        good, frame = capture.read()
        if not good:
            return frames
        frames.append(np.asarray(frame, np.uint8))


def test_video_and_truth_belong_together(recording: tuple[SynthesisConfig, Path]) -> None:
    config, video = recording
    truth = load_truth(truth_folder(video))
    frames = frames_of(video)
    assert [f.shape for f in frames] == [(96, 96, 3)] * 4
    assert truth.codes.shape == (4, 52)
    assert truth.head_pose.shape == truth.torso_pose.shape == (4, 4, 4)
    assert (truth.codes >= 0).all()
    assert (truth.codes <= 1).all()
    assert truth.camera == default_camera(96)
    assert (truth.fps, truth.seed, truth.head_model) == (config.fps, 7, "anny")
    model = load_head_model("anny")
    rest = model.rest_vertices(truth.identity, truth.offsets)
    posed = model.posed_vertices(rest, truth.codes, truth.head_pose, truth.torso_pose).numpy()
    for t in range(4):
        alpha, regions = truth.alpha(t), truth.regions(t)
        assert alpha.shape == regions.shape == (96, 96)
        assert ((regions == 255) == (alpha < 127)).all()
        # The bare head lies inside the matte, which adds only hair and lashes.
        head = silhouette(rasterize(posed[t], model.faces.numpy(), truth.camera, 2))
        assert (alpha >= np.floor(head * 255)).all()
        assert 0 < (alpha / 255 - head).sum() < 0.35 * head.sum()
        below = alpha[60:, :] / 255 - head[60:, :]
        assert np.abs(below[:, 40:56]).max() < 0.01
        # The video shows the person where the matte says so: away from it, only the wall.
        wall = frames[t][alpha == 0].astype(float)
        person = frames[t][alpha == 255].astype(float)
        assert person.std(0).mean() > 2 * wall.std(0).mean()


def test_eyes_project_onto_the_eye_regions(subject: Subject) -> None:
    camera = default_camera(256)
    for pose in (facing(), facing(0.35)):
        frame = subject.photograph(camera, code(eyeWide=0.5), pose, facing())
        centres = subject.model.eye_centres(subject.rest)
        ball = 0.0140 * torch.tensor([0.0, -0.05, 1.0])  # the front of the ball, between the lids
        moved = (centres + ball) @ torch.from_numpy(pose[:3, :3]).T + torch.from_numpy(pose[:3, 3])
        for point, name in zip(camera.project(moved), ("eye_left", "eye_right"), strict=True):
            column, row = point.int().tolist()
            assert frame.regions[row, column] == REGIONS.index(name)


def test_gaze_moves_the_iris_the_way_the_code_says(subject: Subject) -> None:
    camera = default_camera(384)
    columns = []
    for value in ({"eyeLookOutLeft": 0.6, "eyeLookInRight": 0.6},
                  {"eyeLookInLeft": 0.6, "eyeLookOutRight": 0.6}):  # fmt: skip
        frame = subject.photograph(camera, code(**value), facing(), facing())
        eye = frame.regions == REGIONS.index("eye_left")
        darkness = np.where(eye, 255.0 - frame.image.mean(-1), 0.0) ** 4
        columns.append((darkness.sum(0) * np.arange(384)).sum() / darkness.sum())
    # The subject's left is the right of the picture.
    assert columns[0] > columns[1] + 4


def test_matte_is_the_silhouette_of_all_that_is_drawn(subject: Subject) -> None:
    camera = default_camera(128)
    frame = subject.photograph(camera, code(), facing(), facing(), supersample=3)
    plain = subject.photograph(camera, code(), facing(), facing(), supersample=1)
    assert set(np.unique(np.round(frame.alpha * 9, 3))) <= set(range(10))
    assert set(np.unique(plain.alpha)) == {0.0, 1.0}
    np.testing.assert_array_equal(plain.alpha > 0, plain.regions != 255)
    assert abs(frame.alpha.sum() - plain.alpha.sum()) < 0.02 * plain.alpha.sum()


def test_picture_is_matte_over_wall(subject: Subject) -> None:
    """Encoded values composite exactly, so a trainer may change the background."""
    camera = default_camera(128)
    pose = facing()
    frame = subject.photograph(camera, code(), pose, pose)
    away = pose.copy()
    away[0, 3] = 50.0
    wall = subject.photograph(camera, code(), away, away)
    assert wall.alpha.sum() == 0
    clear = frame.alpha == 0
    np.testing.assert_array_equal(frame.image[clear], wall.image[clear])
    partial = (frame.alpha > 0) & (frame.alpha < 1)
    foreground = frame.image - (1 - frame.alpha[..., None]) * wall.image.astype(float)
    assert partial.sum() > 50
    assert (foreground[partial] >= -1).all()
    assert (foreground[partial] <= 255 * frame.alpha[partial][:, None] + 1).all()


def test_teeth_show_in_a_smile_and_not_behind_closed_lips(subject: Subject) -> None:
    camera = default_camera(256)
    smile = code(mouthSmile=0.8, jawOpen=0.2, mouthUpperUp=0.4, mouthLowerDown=0.3)
    open_mouth = subject.photograph(camera, smile, facing(), facing())
    teeth = np.isin(open_mouth.regions, TEETH)
    assert teeth.sum() > 60
    closed = subject.photograph(camera, code(mouthPress=0.6), facing(), facing())
    assert np.isin(closed.regions, TEETH).sum() < 0.25 * teeth.sum()
    # Separate teeth: along the row, gaps stand out dark between them.
    large = subject.photograph(default_camera(512), smile, facing(), facing())
    upper = large.regions == TEETH[0]
    row = np.argmax(upper.sum(1))
    level = large.image[row].astype(float).mean(-1)[upper[row]]
    dips = (level[1:-1] < level[:-2]) & (level[1:-1] <= level[2:])
    neighbours = [level[max(0, i - 3) : i + 6].max() for i in np.flatnonzero(dips)]
    assert (level[1:-1][dips] < 0.85 * np.array(neighbours)).sum() >= 4
    lips = open_mouth.image[open_mouth.regions == REGIONS.index("lips")].astype(float)
    enamel = open_mouth.image[teeth].astype(float)
    bright = enamel[enamel.mean(1) > np.median(enamel.mean(1))]
    assert bright.mean() > 1.2 * lips.mean()


@pytest.mark.parametrize(
    ("names", "box"),
    [
        (("browInnerUp", "browOuterUp"), ((-0.03, 0.034), (0.03, 0.062))),
        (("browDown",), ((-0.012, 0.0), (0.012, 0.03))),
        (("mouthSmile", "cheekSquint"), ((0.02, -0.062), (0.036, -0.036))),
    ],
)
def test_creases_follow_the_code(
    subject: Subject, names: tuple[str, ...], box: tuple[tuple[float, float], ...]
) -> None:
    """With the same geometry, the creases alone change the picture, and only where they belong."""
    weights = subject.crease_weights.reshape(52, -1, 2)
    mean = subject.model.vertices
    inside = ((mean[:, :2] > torch.tensor(box[0])) & (mean[:, :2] < torch.tensor(box[1]))).all(1)
    inside &= mean[:, 2] > 0
    pulled = torch.from_numpy(code(**dict.fromkeys(names, 1.0)))
    strength = torch.einsum("c,cvk->vk", pulled, weights)
    assert strength[inside].max() > 0.7
    camera = default_camera(256)
    plain = Subject(**{**vars(subject), "crease_weights": torch.zeros_like(subject.crease_weights)})
    with_creases = subject.photograph(camera, pulled, facing(), facing())
    without = plain.photograph(camera, pulled, facing(), facing())
    np.testing.assert_array_equal(with_creases.regions, without.regions)
    change = np.abs(with_creases.image.astype(float) - without.image).max(-1)
    assert change.max() > 12
    skin = np.isin(with_creases.regions, [REGIONS.index(n) for n in ("face_skin", "lips")])
    assert change[~skin].max() <= 12  # lip and hair borders share samples with the skin
    again = subject.photograph(camera, code(), facing(), facing())
    still = plain.photograph(camera, code(), facing(), facing())
    rest = np.abs(again.image.astype(float) - still.image).max(-1)
    assert change.sum() > 3 * rest.sum()


def test_same_seed_same_pixels_other_seed_other_person(tmp_path: Path) -> None:
    first = synthesize(small(tmp_path / "a.mp4", seconds=0.08))
    second = synthesize(small(tmp_path / "b.mp4", seconds=0.08))
    other = synthesize(small(tmp_path / "c.mp4", seconds=0.08, seed=8))
    a, b, c = (frames_of(r.video) for r in (first, second, other))
    np.testing.assert_array_equal(a, b)
    assert np.abs(np.asarray(a, float) - np.asarray(c, float)).mean() > 5
    ta, tb, tc = (load_truth(r.truth) for r in (first, second, other))
    assert torch.equal(ta.codes, tb.codes)
    assert torch.equal(ta.identity, tb.identity)
    assert not torch.allclose(ta.identity, tc.identity)
    np.testing.assert_array_equal(ta.alpha(0), tb.alpha(0))


def test_interruption_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(small(tmp_path / "clip.mp4"), progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_damaged_truth_is_named(recording: tuple[SynthesisConfig, Path], tmp_path: Path) -> None:
    folder = truth_folder(recording[1])
    with pytest.raises(InputError, match=r"nowhere\.truth"):
        load_truth(tmp_path / "nowhere.truth")
    copy = tmp_path / "cut.truth"
    copy.mkdir()
    (copy / "truth.json").write_bytes((folder / "truth.json").read_bytes())
    (copy / "truth.safetensors").write_bytes((folder / "truth.safetensors").read_bytes()[:200])
    with pytest.raises(InputError, match=r"cut\.truth"):
        load_truth(copy)
    with pytest.raises(InputError, match=r"00009\.png"):
        load_truth(folder).alpha(9)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds", 0.0), ("fps", 0.0), ("size", 63), ("size", 16), ("seed", -1),
        ("motion", "dance"), ("out", Path("clip.avi")), ("noise", -1.0), ("supersample", 0),
        ("texture_size", 2), ("strands", -5), ("head_turns", 9.0), ("seconds", float("nan")),
    ],
)  # fmt: skip
def test_bad_settings_are_named(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{field}: "):
        SynthesisConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("style", MOTION_STYLES)
def test_motion_is_bounded_smooth_and_steady(style: str) -> None:
    seconds = 20.0
    motion = perform(SynthesisConfig(seed=3, seconds=seconds, motion=style))
    codes, head = motion.codes, motion.head_pose
    assert codes.shape == (500, 52)
    assert codes.min() >= 0
    assert codes.max() <= 1
    np.testing.assert_allclose(
        head[:, :3, :3] @ head[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (500, 1, 1)),
        atol=1e-5,
    )  # fmt: skip
    assert np.linalg.norm(np.diff(head[:, :3, 3], axis=0), axis=1).max() < 0.02
    # The face stays in front of the camera and turns within its range.
    forward = head[:, :3, 2]
    yaw = np.rad2deg(np.arctan2(forward[:, 0], -forward[:, 2]))
    assert np.abs(yaw).max() <= 26
    assert np.abs(motion.torso_pose[:, :3, :3] - head[:, :3, :3]).max() > 0.005
    # Blinks 2 to 5 seconds apart (a few come in pairs).
    blink = codes[:, ARKIT_INDEX["eyeBlinkLeft"]]
    onsets = np.flatnonzero((blink[1:] > 0.5) & (blink[:-1] <= 0.5))
    assert 4 <= len(onsets) <= 14
    if style != "still":
        assert yaw.max() > 12
        assert yaw.min() < -12
        for name in ("mouthSmileLeft", "browInnerUp", "browDownRight", "jawOpen"):
            track = codes[:, ARKIT_INDEX[name]]
            assert track.max() > 0.4
            assert track[-100:].max() > 0.5 * track.max()


def test_last_fifth_is_like_the_rest() -> None:
    """A held-out end of the clip must not hold faces that training never saw."""
    beyond = []
    for seed in range(6):
        codes = perform(SynthesisConfig(seed=seed, seconds=20)).codes
        early, late = codes[:400], codes[400:]
        beyond.append((late > early.max(0) + 0.1).any(1).mean())
    assert np.mean(beyond) < 0.12


def test_gaze_stays_on_the_camera_when_the_head_turns() -> None:
    motion = perform(SynthesisConfig(seed=3, seconds=20, motion="talk"))
    forward = motion.head_pose[:, :3, 2]
    yaw = np.arctan2(forward[:, 0], -forward[:, 2])
    gaze = (
        motion.codes[:, ARKIT_INDEX["eyeLookOutLeft"]]
        - motion.codes[:, ARKIT_INDEX["eyeLookInLeft"]]
    )
    assert np.corrcoef(yaw, gaze)[0, 1] < -0.6
