"""docs/foxglove_layout.json against what the nodes publish."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cag_avatar.head_models.arkit import ARKIT_NAMES

LAYOUT = Path(__file__).resolve().parents[2] / "docs" / "foxglove_layout.json"
CONTENT = json.loads(LAYOUT.read_text())


def paths() -> list[dict[str, str]]:
    """The message paths of the plots and transitions."""
    return [path for panel in CONTENT["configById"].values() for path in panel.get("paths", [])]


def panels(tree: Any) -> Iterator[str]:
    """Panels that are placed."""
    if isinstance(tree, str):
        yield tree
    else:
        assert tree["direction"] in ("row", "column")
        yield from panels(tree["first"])
        yield from panels(tree["second"])


def test_every_panel_is_placed_once() -> None:
    placed = list(panels(CONTENT["layout"]))
    assert sorted(placed) == sorted(CONTENT["configById"])
    kinds = {name.split("!")[0] for name in placed}
    assert kinds == {"Image", "StateTransitions", "Plot", "DiagnosticSummary"}
    labels = {path["label"]: path["value"] for path in paths()}
    assert f"coefficients[{ARKIT_NAMES.index('jawOpen')}]" in labels["jawOpen"]


def test_topics_and_fields_are_those_of_the_nodes(
    world: Any, tiny_avatar_path: Path, numbered_video: Path
) -> None:
    from cag_avatar_node.avatar_display import AvatarDisplay
    from cag_avatar_node.avatar_renderer import AvatarRenderer
    from cag_avatar_node.expression_estimator import ExpressionEstimatorNode
    from cag_avatar_node.video_source import VideoSource

    nodes = [
        world.start(VideoSource, video=str(numbered_video)),
        world.start(ExpressionEstimatorNode),
        world.start(AvatarRenderer, avatar=str(tiny_avatar_path), size=64, backend="cpu"),
        world.start(AvatarDisplay, port=0),
    ]
    types = {
        publisher.topic_name: publisher.msg_type for node in nodes for publisher in node.publishers
    }
    names = {node.get_name() for node in nodes}
    configurations = CONTENT["configById"].values()
    used = [panel["imageMode"]["imageTopic"] for panel in configurations if "imageMode" in panel]
    used += [panel["topicToRender"] for panel in configurations if "topicToRender" in panel]
    for path in paths():
        found = re.fullmatch(r"(/[\w/]+)\.(\w+)(.*)", path["value"])
        assert found is not None, path
        used.append(found[1])
        assert found[2] in types[found[1]].get_fields_and_field_types(), path
        for node in re.findall(r'name=="(\w+)"', found[3]):
            assert node in names, path
    assert set(used) <= set(types), "topics that no node publishes"
    for key in set(re.findall(r'key=="(\w+)"', "".join(path["value"] for path in paths()))):
        assert key == "rate_hz" or re.fullmatch(r"(page_)?latency_ms_p(50|95)", key)
