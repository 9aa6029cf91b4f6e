from __future__ import annotations

from pathlib import Path

import pytest

from cag_avatar_cli.main import main
from tests.cag_avatar_cli.test_main import one_error


@pytest.mark.parametrize("name", ["me.obj", "me", "me.ply.txt"])
def test_the_suffix_chooses_the_format(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / name
    assert main(["export", "no.cag", "-o", str(out)]) == 2
    said = one_error(capsys)
    assert name in said
    assert all(suffix in said for suffix in (".ply", ".mp4", ".onnx"))
    assert not out.parent.exists()


def test_ply_of_an_expression_and_of_a_frame(
    tiny_avatar_path: Path, tiny_dataset_path: Path, tmp_path: Path
) -> None:
    start = ["export", str(tiny_avatar_path), "-o"]
    neutral, smile, frame = (tmp_path / f"{n}.PLY" for n in ("neutral", "smile", "frame"))
    assert main([*start, str(neutral)]) == 0
    assert main([*start, str(smile), "--expression", "jawOpen=0.5", "mouthSmileLeft=0.5"]) == 0
    assert main([*start, str(frame), "--dataset", str(tiny_dataset_path), "--frame", "3"]) == 0
    content = {path.read_bytes() for path in (neutral, smile, frame)}
    assert len(content) == 3
    assert len({len(c) for c in content}) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--frame", "3"], "together"),
        (["--dataset", "DATASET", "--frame", "99"], "0 .. 14"),
        (["--dataset", "DATASET", "--frame", "1", "--expression", "jawOpen=1"], "either"),
        (["--expression", "grin=1"], "grin"),
    ],
)
def test_bad_requests_are_one_line(
    options: list[str], said: str, tiny_avatar_path: Path, tiny_dataset_path: Path,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = [w.replace("DATASET", str(tiny_dataset_path)) for w in options]
    out = tmp_path / "me.ply"
    assert main(["export", str(tiny_avatar_path), "-o", str(out), *words]) == 2
    assert said in one_error(capsys)
    assert not out.exists()
