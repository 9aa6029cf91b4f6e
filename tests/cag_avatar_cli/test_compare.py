"""What compare and evaluate print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cag_avatar_training.config import LossConfig, RefinementConfig, TrainConfig

from cag_avatar_cli import compare
from cag_avatar_cli.main import main
from tests.conftest import TINY_SIZE, tiny_config


def tiny_profile(_: str) -> TrainConfig:
    return TrainConfig(
        avatar=tiny_config(),
        sizes=((0.0, TINY_SIZE),),
        loss=LossConfig(perceptual_weight=0),
        refinement=RefinementConfig(at=()),
        profile="quick",
    )


def test_compare(
    tiny_dataset_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compare, "profile_config", tiny_profile)
    monkeypatch.setenv("COLUMNS", "160")
    out = tmp_path / "out"
    words = f"compare {tiny_dataset_path} -o {out} --fusions concat concat:width=16 --no-refine "
    words += "--iterations 2 --seeds 0 1 --backend cpu"
    assert main(words.split()) == 0
    text = capsys.readouterr().out
    assert "cell 4 of 4" in text
    assert "as tracked; all but PSNR times 1000" in text
    assert "change against concat, as tracked" in text
    assert "multiply-adds" in text
    assert "2 iterations" in " ".join(text.split())
    assert {p.name for p in out.iterdir()} == {"cells", "table.json", "table.csv", "report.html"}
    rows = json.loads((out / "table.json").read_text())["figures"]
    assert [(row["fusion"], len(row["figures"]["l1"]["values"])) for row in rows] == [
        ("concat", 2),
        ("concat:width=16", 2),
    ]


def test_compare_refuses_what_it_does_not_know(
    tiny_dataset_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["compare", str(tiny_dataset_path), "-o", str(out)]
    assert main([*words, "--fusions", "gates"]) == 2
    assert "unknown 'gates'" in capsys.readouterr().err
    assert main([*words, "--splits", "first"]) == 2
    assert "unknown 'first'" in capsys.readouterr().err
    assert not out.exists()


def test_evaluate_prints_the_regions(
    tiny_avatar_path: Path,
    tiny_dataset_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["evaluate", str(tiny_avatar_path), str(tiny_dataset_path), "-o", str(tmp_path / "e")]
    assert main([*words, "--no-refine", "--every", "3", "--backend", "cpu"]) == 0
    text = capsys.readouterr().out
    for region in ("whole", "matte", "head", "mouth", "eyes"):
        assert region in text
    assert "teeth" not in text
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["as_tracked"]["l1_mouth"] > 0
    assert metrics["as_tracked"]["l1_eyes"] is None
    assert metrics["protocol"]["regions"]["eyes"]["frames"] == 0
