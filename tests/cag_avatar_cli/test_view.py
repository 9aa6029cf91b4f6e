from __future__ import annotations

from pathlib import Path

import pytest

from cag_avatar_cli.main import main
from tests.cag_avatar.viewer.test_page import free_port


def test_the_page_is_named_and_ends(
    tiny_avatar_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("viser", reason="viser is not installed: pip install 'cag_avatar[view]'")
    port = free_port()
    words = ["view", str(tiny_avatar_path), "--port", str(port), "--seconds", "0.1"]
    assert main([*words, "--size", "64", "--backend", "cpu"]) == 0
    assert f"page: http://127.0.0.1:{port}" in capsys.readouterr().out
