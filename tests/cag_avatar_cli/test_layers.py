"""The layers point one way: the avatar knows neither ROS nor training, nor those each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "cag_avatar": {"cag_avatar_training", "cag_avatar_node", "cag_avatar_cli", "rclpy"},
    "training": {"cag_avatar_node", "cag_avatar_cli", "rclpy"},
    "cag_avatar_node": {"cag_avatar_training", "cag_avatar_cli"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("folder", list(FORBIDDEN))
def test_layer_imports(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    bad = {str(f): imported(f) & FORBIDDEN[folder] for f in files}
    assert not {name: found for name, found in bad.items() if found}
