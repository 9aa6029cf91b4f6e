"""The command line: exit codes and one-line errors, in a process of its own where that matters."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from cag_avatar import __version__
from cag_avatar_cli.main import COMMANDS, main


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name}" in text for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_no_command_and_unknown_command_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["traim"]) == 2
    assert "no command 'traim'" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"cag-avatar {name}" in capsys.readouterr().out


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("cag-avatar: error")]
    assert len(lines) == 1
    return lines[0]


def test_text_file_is_not_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = tmp_path / "notes.mp4"
    video.write_text("not a video")
    out = tmp_path / "dataset"
    assert main(["preprocess", str(video), "-o", str(out)]) == 2
    assert "notes.mp4" in one_error(capsys)
    assert not out.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.mp4"]


@pytest.mark.parametrize("damage", ["missing", "truncated", "text"])
def test_bad_avatar_file(
    damage: str, tmp_path: Path, tiny_avatar_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.cag"
    if damage == "truncated":
        bad.write_bytes(tiny_avatar_path.read_bytes()[:2000])
    elif damage == "text":
        bad.write_text("hello")
    out = tmp_path / "out.mp4"
    assert main(["render", str(bad), "--drive", str(tmp_path), "-o", str(out)]) == 2
    assert "bad.cag" in one_error(capsys)
    assert not out.exists()


def test_a_dataset_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "a.cag"
    assert main(["train", str(tmp_path / "empty"), "-o", str(out)]) == 2
    assert "empty" in one_error(capsys)
    assert not out.exists()


def test_exit_code_reaches_the_shell(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cag_avatar_cli.main", "preprocess", "no.mp4", "-o", "d"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no.mp4" in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    check = "import sys, cag_avatar_cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="not set on ARM")
def test_tracking_commands_leave_blas_one_thread(tmp_path: Path) -> None:
    check = (
        "import os, sys, cag_avatar_cli.main as cli\n"
        "assert 'numpy' not in sys.modules, 'its library has read the environment'\n"
        "cli.main(['preprocess', 'no.mp4', '-o', 'd'])\n"
        "sys.exit(os.environ['OPENBLAS_NUM_THREADS'] != '1')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, env=environment)
    assert done.returncode == 0
