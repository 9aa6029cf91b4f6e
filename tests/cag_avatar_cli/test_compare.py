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
    for region in ("whole", "matte", "head", "mouth", "eyes"):
        assert region in text
    assert "teeth" not in text
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["as_tracked"]["l1_mouth"] > 0
    assert metrics["as_tracked"]["l1_eyes"] is None
    assert metrics["protocol"]["regions"]["eyes"]["frames"] == 0
