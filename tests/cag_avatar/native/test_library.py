from __future__ import annotations

import platform
import shutil
import subprocess
from importlib import resources
from typing import get_args

import pytest

from cag_avatar.native import library
from cag_avatar.native.library import LibraryName, NativeUnavailableError, load_library


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty cache folder, and nothing loaded before."""
    monkeypatch.setenv("CAG_AVATAR_CACHE", str(tmp_path / "cache"))
    load_library.cache_clear()
    yield tmp_path / "cache"
    load_library.cache_clear()


@pytest.fixture
def compiler():
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")


def test_is_built_once_and_kept(fresh, compiler, monkeypatch):
    loaded = load_library("frame")
    assert loaded.cag_lanes() in (4, 8, 16)
    (built,) = fresh.iterdir()
    load_library.cache_clear()
    monkeypatch.setattr(library, "_build", lambda *args: pytest.fail("built again"))
    load_library("frame")
    assert [built] == list(fresh.iterdir())


def test_another_source_gets_another_file(compiler):
    gcc = shutil.which("gcc")
    assert library._fingerprint({"a.c": b"a"}, gcc) != library._fingerprint({"a.c": b"b"}, gcc)
    assert library._fingerprint({"a.c": b"a"}, gcc) == library._fingerprint({"a.c": b"a"}, gcc)


def test_without_a_compiler_says_what_to_install(fresh, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(NativeUnavailableError, match="install gcc"):
        load_library("frame")
    assert not fresh.exists() or not list(fresh.iterdir())


def test_can_be_switched_off(fresh, monkeypatch):
    monkeypatch.setenv("CAG_AVATAR_NATIVE", "0")
    with pytest.raises(NativeUnavailableError, match="CAG_AVATAR_NATIVE"):
        load_library("frame")


def test_a_failing_compiler_leaves_nothing_behind(fresh, monkeypatch, tmp_path):
    fake = tmp_path / "badcc"
    fake.write_text("#!/bin/sh\necho 'no such flag' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CC", str(fake))
    with pytest.raises(NativeUnavailableError, match="no such flag"):
        load_library("frame")
    assert not list(fresh.iterdir())


def test_without_openmp_it_is_built_for_one_core(fresh, compiler, monkeypatch, tmp_path, caplog):
    fake = tmp_path / "cc"
    real = shutil.which("gcc")
    fake.write_text(f'#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec {real} "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("CC", str(fake))
    load_library("frame")
    assert "one core" in caplog.text


@pytest.mark.parametrize("name", get_args(LibraryName))
def test_compiles_without_warnings_for_smaller_vectors(name, compiler, tmp_path):
    """Machines without AVX-512 run other lines of the source."""
    folder = resources.files("cag_avatar.native")
    for file in (f"{name}.c", *library._HEADERS):
        (tmp_path / file).write_bytes(folder.joinpath(file).read_bytes())
    targets = [["-mavx2", "-mfma"], ["-msse4.1"]] if platform.machine() == "x86_64" else [[]]
    for target in targets:
        command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]
        command += ["-fopenmp", "-std=gnu11", "-fPIC", "-shared", *target]
        done = subprocess.run(
            [*command, str(tmp_path / f"{name}.c"), "-o", str(tmp_path / "x.so")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
