from __future__ import annotations

import numpy as np
import pytest

from cag_avatar.avatar.animator import Animator
from cag_avatar.errors import InputError
from cag_avatar.export.turntable import Turntable, turntable_frames
from cag_avatar.export.video_file import write_mp4
from cag_avatar.head_models import ARKIT_INDEX
from tests.conftest import TINY_SIZE


@pytest.fixture
def animator(tiny_avatar):
    return Animator(tiny_avatar, "cpu")


class Recorder:
    """Stands in for an animator and keeps what it is asked to draw."""

    def __init__(self, animator):
        self.record, self.neutral_code = animator.record, animator.neutral_code
        self.code_of_arkit = animator.code_of_arkit
        self.codes, self.heads, self.torsos = [], [], []

    def render(self, code, head, torso):
        self.codes.append(code)
        self.heads.append(head)
        self.torsos.append(torso)
        return np.zeros((4, 4, 3), np.uint8)


def test_the_camera_swings_round_the_head(animator):
    recorder = Recorder(animator)
    settings = Turntable(seconds=2.0, fps=40.0, yaw=60.0, pitch=10.0)
    assert len(list(turntable_frames(recorder, None, settings))) == 80
    home = animator.record.neutral_head_pose
    heads, torsos = np.array(recorder.heads), np.array(recorder.torsos)
    np.testing.assert_allclose(heads, torsos, atol=1e-12)  # the same pose at rest
    np.testing.assert_allclose(heads[0, :3, :3], home[:3, :3], atol=1e-12)
    facing = heads[:, :3, 2]  # where the face points, camera space
    yaw = np.rad2deg(np.arctan2(facing[:, 0], -facing[:, 2]))
    assert yaw.max() == pytest.approx(60, abs=0.5)
    assert yaw.min() == pytest.approx(-60, abs=0.5)
    pitch = np.rad2deg(np.arcsin(facing[:, 1]))
    assert 4 < np.abs(pitch).max() <= 10.1
    centre = np.array([0, 0, -0.08, 1.0])
    away = home @ centre * [0, 1, 1.15, 1]
    np.testing.assert_allclose(heads @ centre, np.tile(away, (80, 1)), atol=1e-9)


def test_the_programme_moves_the_face_within_the_training_range(animator):
    recorder = Recorder(animator)
    list(turntable_frames(recorder, None, Turntable(seconds=1.0, fps=50.0)))
    codes = np.array(recorder.codes)
    for name in ("jawOpen", "mouthSmileLeft", "browInnerUp", "eyeBlinkRight"):
        assert codes[:, ARKIT_INDEX[name]].max() > 0.5
    assert codes.max() <= 0.8 + 0.15  # training's most and the margin
    assert codes.min() >= 0


def test_a_given_expression_comes_and_goes(animator):
    recorder, code = Recorder(animator), np.zeros(52, np.float32)
    code[3] = 0.7
    list(turntable_frames(recorder, code, Turntable(seconds=1.0, fps=20.0)))
    shown = np.array(recorder.codes)[:, 3]
    assert shown[0] == 0
    assert shown[10] == pytest.approx(0.7)
    assert shown.max() == shown[10]


def test_an_mp4_is_written(animator, tmp_path):
    av = pytest.importorskip("av")
    settings = Turntable(seconds=0.5, fps=12.0)
    path = tmp_path / "me.mp4"
    assert write_mp4(path, turntable_frames(animator, None, settings), 12.0) == 6
    with av.open(str(path)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == 6
    assert frames[0].shape == (TINY_SIZE, TINY_SIZE, 3)
    first = next(turntable_frames(animator, None, settings))
    assert np.abs(frames[0].astype(float) - first).mean() < 12


def test_no_frame_leaves_no_file(tmp_path):
    pytest.importorskip("av")
    with pytest.raises(InputError, match="no frame"):
        write_mp4(tmp_path / "me.mp4", [], 12.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "bad", [{"seconds": 0.0}, {"fps": 1e6}, {"yaw": 400.0}, {"pitch": -1.0}, {"distance": 0.0}]
)
def test_bad_settings_are_named(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        Turntable(**bad)
