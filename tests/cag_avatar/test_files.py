from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cag_avatar.files import replacing, replacing_folder


def test_a_file_appears_whole_and_readable(tmp_path: Path) -> None:
    target = tmp_path / "new" / "picture.png"
    with replacing(target) as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == target.parent
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert target.stat().st_mode & 0o777 == 0o644
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_file_leaves_the_old_one_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "avatar.cag"
    target.write_text("old")
    with suppress(RuntimeError), replacing(target) as temporary:
        temporary.write_text("ha")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_replaces_the_old_one_only_when_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "dataset"
    with replacing_folder(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    with replacing_folder(target) as folder:
        (folder / "b").write_text("2")
        assert (target / "a").is_file()
    assert [p.name for p in target.iterdir()] == ["b"]
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_folder_leaves_the_old_one_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    target.mkdir()
    (target / "a").write_text("1")
    with suppress(RuntimeError), replacing_folder(target) as folder:
        (folder / "b").write_text("2")
        raise RuntimeError
    assert [p.name for p in target.iterdir()] == ["a"]
    assert list(tmp_path.iterdir()) == [target]
