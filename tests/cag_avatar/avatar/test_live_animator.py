"""A start from prepared parts."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cag_avatar.avatar import live_animator
from cag_avatar.avatar.animator import Animator
from cag_avatar.avatar.file import load_avatar, save_avatar
from cag_avatar.avatar.live_animator import LiveAnimator, load_animator
from cag_avatar.avatar.live_parts import DamagedPartsError, LiveParts
from cag_avatar.errors import InputError
from cag_avatar.native.library import NativeUnavailableError, cache_folder, load_library
from tests.conftest import make_avatar

try:
    load_library("frame")
except NativeUnavailableError as error:
    pytest.skip(f"no compiled renderer: {error}", allow_module_level=True)

SIZE = (96, 80)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with the C library only."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for library in cache_folder().glob("*.so"):
        shutil.copy(library, folder)
    monkeypatch.setenv("CAG_AVATAR_CACHE", str(folder))
    return folder


def kept_in(cache: Path) -> list[Path]:
    return sorted(cache.glob("live-*"))


def test_second_start_draws_the_same_without_the_avatar(
    tiny_avatar_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_animator(tiny_avatar_path, "cpu", SIZE, (10, 20, 30))
    assert isinstance(first, Animator)
    assert len(kept_in(cache)) == 1
    monkeypatch.setattr("cag_avatar.avatar.animator.load_avatar", None)
    second = load_animator(tiny_avatar_path, "cpu", SIZE, (10, 20, 30))
    assert isinstance(second, LiveAnimator)
    generator = np.random.default_rng(0)
    for _ in range(3):
        code = generator.uniform(0, 1, 52).astype(np.float32)
        pose = first.record.neutral_head_pose.copy()
        pose[:3, 3] += generator.normal(0, 0.01, 3)
        np.testing.assert_array_equal(second.render(code, pose), first.render(code, pose))
        np.testing.assert_array_equal(second.render_rgba(code), first.render_rgba(code))
        np.testing.assert_array_equal(second.transfer(code, None), first.transfer(code, None))
    np.testing.assert_array_equal(second.rest_code, first.rest_code)
    assert second.camera == first.camera
    assert second.expression_names == first.expression_names
    assert second.record.to_dict() == first.record.to_dict()
    with pytest.raises(InputError, match="NaN"):
        second.render(np.full(52, np.nan))
    with pytest.raises(InputError, match="size"):
        load_animator(tiny_avatar_path, "cpu", (4, 4))


@pytest.mark.parametrize("changes", [{"fusion": "concat"}, {"neck_tokens": False}])
def test_other_avatars(changes: dict[str, object], tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.cag"
    save_avatar(path, make_avatar(**changes))
    first, second = (load_animator(path, "cpu", SIZE) for _ in range(2))
    assert isinstance(second, LiveAnimator)
    code = np.linspace(0, 1, 52, dtype=np.float32)
    np.testing.assert_array_equal(second.render(code), first.render(code))


def test_what_is_not_prepared(
    tmp_path: Path, tiny_avatar_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Poses of one-token fusion are torch's; so is every picture of the other back ends.
    other = tmp_path / "other.cag"
    save_avatar(other, make_avatar(fusion="one-token"))
    assert isinstance(load_animator(other, "cpu", SIZE), Animator)
    assert isinstance(load_animator(tiny_avatar_path, "torch", SIZE), Animator)
    monkeypatch.setattr(live_animator, "_GPUS", (str(tmp_path),))
    assert isinstance(load_animator(tiny_avatar_path, "auto", SIZE), Animator)
    assert kept_in(cache) == []
    with pytest.raises(InputError, match="no such file"):
        load_animator(tmp_path / "missing.cag", "cpu")


def test_a_changed_avatar_is_prepared_anew(tiny_avatar_path: Path, cache: Path) -> None:
    load_animator(tiny_avatar_path, "cpu", SIZE)
    avatar = load_avatar(tiny_avatar_path)
    avatar.attributes.color_base.mul_(0.2)
    save_avatar(tiny_avatar_path, avatar)
    changed = load_animator(tiny_avatar_path, "cpu", SIZE)
    assert isinstance(changed, Animator)
    assert len(kept_in(cache)) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "header"])
def test_damaged_parts_are_replaced(
    tiny_avatar_path: Path, cache: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    load_animator(tiny_avatar_path, "cpu", SIZE)
    (kept,) = kept_in(cache)
    whole = kept.read_bytes()
    data = bytearray(whole)
    if damage == "bit":
        data[-100] ^= 1
    elif damage == "header":
        place = data.index(b"rank") + 8
        data[place : place + 1] = b"7"
    kept.write_bytes({"cut": whole[:-40], "empty": b""}.get(damage, bytes(data)))
    with pytest.raises(DamagedPartsError):
        LiveParts.load(kept)
    with caplog.at_level(logging.WARNING):
        assert isinstance(load_animator(tiny_avatar_path, "cpu", SIZE), Animator)
    assert "damaged" in caplog.text
    LiveParts.load(kept)
    assert isinstance(load_animator(tiny_avatar_path, "cpu", SIZE), LiveAnimator)


def test_a_folder_that_cannot_be_written_is_logged(
    tiny_avatar_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(LiveParts, "save", refuse)
    with caplog.at_level(logging.WARNING):
        assert isinstance(load_animator(tiny_avatar_path, "cpu", SIZE), Animator)
    assert "read-only" in caplog.text


def test_those_not_used_for_longest_go(
    tiny_avatar_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_animator, "_KEPT", 3)
    for age in range(5):
        old = cache / f"live-{age}.safetensors"
        old.touch()
        os.utime(old, (1e9 - age, 1e9 - age))
    load_animator(tiny_avatar_path, "cpu", SIZE)
    names = [path.stem for path in kept_in(cache)]
    assert len(names) == 3
    assert {"live-0", "live-1"} < set(names)


def test_a_start_from_parts_needs_no_torch(tiny_avatar_path: Path, cache: Path) -> None:
    load_animator(tiny_avatar_path, "auto", SIZE)
    if not kept_in(cache):
        pytest.skip("a GPU may be there")
    program = (
        "import sys; from cag_avatar.avatar.live_animator import load_animator;"
        "from cag_avatar.avatar.driver import RunningDriver;"
        f"a = load_animator({str(tiny_avatar_path)!r}, 'auto', {SIZE});"
        "a.render(a.rest_code); RunningDriver(a.layout, a.rest_code);"
        "print({'torch', 'numba'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
