"""Several of the nodes in one process; images go between them without copies.

``python -m cag_avatar_node.composition NODE ... --ros-args -p NODE:PARAMETER:=VALUE ...``. What a
node's failure costs is more here: it ends them all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module

from cag_avatar.errors import InputError
from cag_avatar_node.local_images import LocalImages
from cag_avatar_node.managed_node import ManagedNode, run_managed_nodes

__all__ = ["NODES", "main", "makers"]

#: Modules of the nodes, and their classes.
NODES = {
    "video_source": "VideoSource",
    "expression_estimator": "ExpressionEstimatorNode",
    "avatar_renderer": "AvatarRenderer",
    "avatar_display": "AvatarDisplay",
}


def makers(names: Sequence[str]) -> list[Callable[[], ManagedNode]]:
    """What makes these nodes, for one process.

    Raises:
        InputError: a name is not one of NODES, or stands twice.
    """
    for name in names:
        if name not in NODES:
            raise InputError(f"composition: '{name}' is no node; choose from {', '.join(NODES)}")
        if names.count(name) > 1:
            raise InputError(f"composition: '{name}' stands twice")
    shared = LocalImages()
    return [
        partial(getattr(import_module(f"cag_avatar_node.{name}"), NODES[name]), local_images=shared)
        for name in names
    ]


def main(args: Sequence[str] | None = None) -> int:
    """Run the nodes that the command line names; returns the exit code."""
    words = list(sys.argv[1:] if args is None else args)
    names = words[: words.index("--ros-args")] if "--ros-args" in words else words
    try:
        if not names:
            raise InputError(f"composition: name nodes: {', '.join(NODES)}")
        made = makers(names)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run_managed_nodes(made, ["composition", *words[len(names) :]])


if __name__ == "__main__":
    sys.exit(main())
