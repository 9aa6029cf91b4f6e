from __future__ import annotations

import dataclasses
import itertools
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.matting import MatteConfig
from cag_avatar_training.preprocess import (
    PreprocessConfig,
    crop,
    fit,
    landmarks,
    matte,
    output,
    preprocess,
    work_folder,
)
from cag_avatar_training.preprocess.workspace import StageStore
from cag_avatar_training.video import probe_video, read_frames

from cag_avatar.errors import InputError
from cag_avatar.tracking.fit_config import FitConfig
from tests.training.conftest import write_video

#: The smallest and quickest there is.
CONFIG = PreprocessConfig(
    size=128,
    min_seconds=1,
    fit=FitConfig(shared_frames=4),
    matte=MatteConfig(working_size=64, survey_frames=6, colour_model_frames=3),
    progress=False,
)
STAGES = [
    "landmarks",
    "crop",
    "irises",
    "looks",
    "fit",
    "matte",
    "outline",
    "photometric",
    "torso",
    "reliability",
    "write",
]


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Iterator[None]:
    """Chunks of few frames, so that a short clip has several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(landmarks, "CHUNK", 12)
        for module in (crop, matte, output):
            patch.setattr(module, "COMMIT_EVERY", 8)
        patch.setattr(fit, "_RIM_FRAMES", 4)
        yield


@pytest.fixture(scope="module")
def clip(face_video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = list(read_frames(probe_video(face_video)))[:26]
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", frames)


@pytest.fixture(scope="module")
def whole(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset made in one go, with its work folder."""
    out = tmp_path_factory.mktemp("whole") / "dataset"
    preprocess(clip, out, dataclasses.replace(CONFIG, keep_work=True))
    return out


def contents(folder: Path) -> dict[str, bytes]:
    """Tensors and pictures; dataset.json holds times that vary."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.suffix in (".png", ".safetensors")
    }


def differing(folder: Path, other: Path) -> list[str]:
    """Names of files that are not the same in both: pytest takes minutes to compare the bytes."""
    ours, theirs = contents(folder), contents(other)
    return sorted(name for name in ours.keys() | theirs if ours.get(name) != theirs.get(name))


def kill_at(patch: pytest.MonkeyPatch, commit: int) -> list[tuple[str, int]]:
    """Let the process die at a commit: every other time just before, just after it counts."""
    commits: list[tuple[str, int]] = []
    real = StageStore.commit

    def dying(self: StageStore, done: int, *, whole: bool = False) -> None:
        commits.append((self.folder.name, done))
        dies = len(commits) == commit
        if dies and commit % 2:
            raise Killed
        real(self, done, whole=whole)
        if dies:
            raise Killed

    patch.setattr(StageStore, "commit", dying)
    return commits


def test_killed_again_and_again_it_ends_with_the_same_bytes(
    clip: Path, whole: Path, tmp_path: Path
) -> None:
    """Each run dies at its third checkpoint, every other one just before it counts."""
    out = tmp_path / "dataset"
    counted: list[tuple[str, int]] = []
    deaths = 0
    for commit in itertools.cycle([3, 4]):
        with pytest.MonkeyPatch.context() as patch:
            commits = kill_at(patch, commit)
            try:
                preprocess(clip, out, CONFIG)
                counted += commits
                break
            except Killed:
                deaths += 1
                counted += commits[:-1] if commit % 2 else commits
                assert not out.exists()
                assert work_folder(out).is_dir()
    assert deaths >= 6
    # Every chunk of every stage was done once; a stage's last commit may follow on its last chunk.
    assert [name for name, _ in itertools.groupby(counted, lambda c: c[0])] == STAGES
    assert all(before != after or before[1] == 26 for before, after in itertools.pairwise(counted))
    assert all(a[0] != b[0] or a[1] <= b[1] for a, b in itertools.pairwise(counted))
    assert differing(out, whole) == []
    assert [p.name for p in tmp_path.iterdir()] == ["dataset"]


def test_a_changed_setting_repeats_what_depends_on_it(
    clip: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "dataset"
    shutil.copytree(work_folder(whole), work_folder(out))
    changed = dataclasses.replace(
        CONFIG, matte=dataclasses.replace(CONFIG.matte, temporal_weight=0.0)
    )
    with pytest.MonkeyPatch.context() as patch:
        commits = kill_at(patch, -1)
        preprocess(clip, out, changed)
    assert {name for name, _ in commits} == {"matte", "outline", "photometric", "torso", "write"}
    assert contents(out) != contents(whole)
    shutil.copytree(work_folder(whole), work_folder(out))
    other = Path(shutil.copy(clip, tmp_path / "other.mp4"))  # copied now: another time of change
    with pytest.MonkeyPatch.context() as patch:
        commits = kill_at(patch, 1)
        with pytest.raises(Killed):
            preprocess(other, out, CONFIG)
    assert commits == [("landmarks", 12)]


def test_a_killed_process_leaves_what_another_can_take_up(
    clip: Path, whole: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle of a real process, after the first frames of the matte."""
    out = tmp_path / "dataset"
    work = work_folder(out)
    shutil.copytree(work_folder(whole), work)
    for stage in ("matte", "outline", "torso", "reliability", "write"):
        shutil.rmtree(work / stage)
    program = (
        "import sys\n"
        "from cag_avatar_training.matting import MatteConfig\n"
        "from cag_avatar_training.preprocess import PreprocessConfig, crop, matte, preprocess\n"
        "from cag_avatar.tracking.fit_config import FitConfig\n"
        "crop.COMMIT_EVERY = matte.COMMIT_EVERY = 8\n"
        "mattes = MatteConfig(working_size=64, survey_frames=6, colour_model_frames=3)\n"
        "preprocess(sys.argv[1], sys.argv[2], PreprocessConfig(size=128, min_seconds=1,\n"
        "    fit=FitConfig(shared_frames=4), matte=mattes, progress=False))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(clip), str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    waiting_for = work / "matte" / "state.json"
    while not waiting_for.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    preprocess(clip, out, CONFIG)
    assert differing(out, whole) == []
    assert [p.name for p in tmp_path.iterdir()] == ["dataset"]


def test_a_work_folder_in_use_is_refused(clip: Path, tmp_path: Path) -> None:
    from cag_avatar_training.preprocess.workspace import Workspace

    out = tmp_path / "dataset"
    with (
        Workspace.open(work_folder(out)),
        pytest.raises(InputError, match=r"dataset\.work: another preprocess is writing"),
    ):
        preprocess(clip, out, CONFIG)
    shutil.rmtree(work_folder(out))
    work_folder(out).mkdir()
    with pytest.raises(InputError, match=r"dataset\.work: exists and is no work folder"):
        preprocess(clip, out, CONFIG)


def test_the_dataset_is_whole(whole: Path) -> None:
    tracking = Dataset.open(whole).tracking
    np.testing.assert_array_equal(tracking.source_frames, np.arange(26))
    assert tracking.reliability.shape == (26, 3)
