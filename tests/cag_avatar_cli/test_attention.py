from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cag_avatar.avatar.file import save_avatar
from cag_avatar_cli import attention
from cag_avatar_cli.main import main
from tests.cag_avatar_cli.test_main import one_error
from tests.conftest import make_avatar


def test_picture_and_figures(tiny_avatar_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture, figures = tmp_path / "me.png", tmp_path / "me.json"
    words = ["attention", str(tiny_avatar_path), "-o", str(picture), "--json", str(figures)]
    assert main(words) == 0
    drawn = cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE)
    assert drawn is not None
    assert len(np.unique(drawn)) > 200
    said = json.loads(figures.read_text())
    assert set(said["attention"]) == set(said["influence_position_mm"]) == set(said["gaussians"])


def test_a_fusion_without_attention_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "draw_listening", lambda *_: None)
    save_avatar(tmp_path / "me.cag", make_avatar(fusion="concat"))
    figures = tmp_path / "me.json"
    words = ["attention", str(tmp_path / "me.cag"), "-o", "me.png", "--json", str(figures)]
    assert main(words) == 0
    assert "no attention map: the fusion 'concat'" in capsys.readouterr().out
    said = json.loads(figures.read_text())
    assert said["attention"] is None
    assert max(said["influence_position_mm"]["lips"].values()) > 0


def test_a_format_that_cannot_be_drawn(
    tiny_avatar_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out" / "me.xyz"
    assert main(["attention", str(tiny_avatar_path), "-o", str(out)]) == 2
    assert "me.xyz" in one_error(capsys)
    assert not out.exists()
