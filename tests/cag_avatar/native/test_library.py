from __future__ import annotations

import shutil
import subprocess

import pytest

from cag_avatar.native import library
from cag_avatar.native.library import NativeUnavailableError, load_library


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
    loaded = load_library()
    assert loaded.cag_lanes() in (4, 8, 16)
    (built,) = fresh.iterdir()
    load_library.cache_clear()
    monkeypatch.setattr(library, "_build", lambda *args: pytest.fail("built again"))
    load_library()
    assert [built] == list(fresh.iterdir())


def test_another_source_gets_another_file(compiler):
    gcc = shutil.which("gcc")
    assert library._fingerprint({"a.c": b"a"}, gcc) != library._fingerprint({"a.c": b"b"}, gcc)
    assert library._fingerprint({"a.c": b"a"}, gcc) == library._fingerprint({"a.c": b"a"}, gcc)


def test_without_a_compiler_says_what_to_install(fresh, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(NativeUnavailableError, match="install gcc"):
        load_library()
    assert not fresh.exists() or not list(fresh.iterdir())


def test_can_be_switched_off(fresh, monkeypatch):
    monkeypatch.setenv("CAG_AVATAR_NATIVE", "0")
    with pytest.raises(NativeUnavailableError, match="CAG_AVATAR_NATIVE"):
        load_library()


def test_a_failing_compiler_leaves_nothing_behind(fresh, monkeypatch, tmp_path):
    fake = tmp_path / "badcc"
    fake.write_text("#!/bin/sh\necho 'no such flag' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CC", str(fake))
    with pytest.raises(NativeUnavailableError, match="no such flag"):
        load_library()
    assert not list(fresh.iterdir())


def test_without_openmp_it_is_built_for_one_core(fresh, compiler, monkeypatch, tmp_path, caplog):
    fake = tmp_path / "cc"
    real = shutil.which("gcc")
    fake.write_text(f'#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec {real} "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("CC", str(fake))
    load_library()
    assert "one core" in caplog.text


def test_compiles_without_warnings_for_smaller_vectors(compiler, tmp_path):
    """Machines without AVX-512 run other lines of the source."""
    from importlib import resources

    folder = resources.files("cag_avatar.native")
    for name in (*library._SOURCES, *library._HEADERS):
        (tmp_path / name).write_bytes(folder.joinpath(name).read_bytes())
    sources = [str(tmp_path / name) for name in library._SOURCES]
    import platform

    targets = [["-mavx2", "-mfma"], ["-msse4.1"]] if platform.machine() == "x86_64" else [[]]
    for target in targets:
        command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]
        command += ["-fopenmp", "-std=gnu11", "-fPIC", "-shared", *target, *sources]
        done = subprocess.run(
            [*command, "-o", str(tmp_path / "x.so")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
