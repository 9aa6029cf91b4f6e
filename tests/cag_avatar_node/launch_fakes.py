"""Plain-Python stand-ins for ``launch`` and ``launch_ros``: they record what a launch file makes,
and say what would be started with given arguments."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "/share/cag_avatar"


class Description:
    """LaunchDescription."""

    def __init__(self, entities: list[Any]) -> None:
        self.entities = entities


class Recorded:
    """Any action: what it was made with."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.args = args
        self.options = options


class DeclareLaunchArgument(Recorded):
    """An argument."""


class SetEnvironmentVariable(Recorded):
    """An environment variable."""


class Node(Recorded):
    """A node; ``launch_ros.actions.Node`` takes no positional arguments."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)


@dataclass
class Substitution:
    """A value that depends on the arguments."""

    kind: str
    parts: tuple[Any, ...]


def resolve(value: Any, arguments: dict[str, str]) -> Any:
    """A value with the arguments put in."""
    if not isinstance(value, Substitution):
        return value
    parts = [resolve(part, arguments) for part in value.parts]
    if value.kind == "configuration":
        return arguments[parts[0]]  # KeyError: an argument that is not declared
    if value.kind == "equals":
        return parts[0] == parts[1]
    if value.kind == "path":
        return "/".join(resolve(part, arguments) for part in parts[0])
    if value.kind == "share":
        return "/share/" + str(parts[0])
    text, kind = parts[0], value.parts[1]
    return {"true": True, "false": False}[text] if kind is bool else kind(text)


def _substitution(kind: str) -> Any:
    return lambda *parts: Substitution(kind, parts)


@contextmanager
def faked_launch() -> Iterator[None]:
    """While open, ``launch`` and ``launch_ros`` are the stand-ins."""
    contents: dict[str, dict[str, Any]] = {
        "launch": {"LaunchDescription": Description},
        "launch.actions": {
            "DeclareLaunchArgument": DeclareLaunchArgument,
            "SetEnvironmentVariable": SetEnvironmentVariable,
        },
        "launch.conditions": {"IfCondition": lambda predicate: predicate},
        "launch.substitutions": {
            "LaunchConfiguration": _substitution("configuration"),
            "EqualsSubstitution": _substitution("equals"),
            "PathJoinSubstitution": _substitution("path"),
        },
        "launch_ros": {},
        "launch_ros.actions": {"Node": Node},
        "launch_ros.parameter_descriptions": {
            "ParameterValue": lambda value, value_type: Substitution("typed", (value, value_type))
        },
        "launch_ros.substitutions": {"FindPackageShare": _substitution("share")},
    }
    before = {name: sys.modules.get(name) for name in contents}
    for name, attributes in contents.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name, module_before in before.items():
            if module_before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module_before


def load(path: Path) -> ModuleType:
    """A launch file as a module; inside :func:`faked_launch`, or where launch is installed."""
    spec = importlib.util.spec_from_file_location(path.name.replace(".", "_"), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Launch:
    """A launch file with arguments."""

    def __init__(self, path: Path, **given: str) -> None:
        with faked_launch():
            entities = load(path).generate_launch_description().entities
        self.arguments = {
            entity.args[0]: entity.options
            for entity in entities
            if isinstance(entity, DeclareLaunchArgument)
        }
        defaults = {
            name: options["default_value"]
            for name, options in self.arguments.items()
            if "default_value" in options
        }
        assert set(given) <= set(self.arguments), "an argument that is not declared"
        self.values = {name: resolve(value, {}) for name, value in defaults.items()} | given
        self.nodes = [entity for entity in entities if isinstance(entity, Node)]
        self.environment = {
            entity.args[0]: entity.args[1]
            for entity in entities
            if isinstance(entity, SetEnvironmentVariable)
        }

    def value(self, value: Any) -> Any:
        """A value with the arguments put in; a list is put together."""
        if isinstance(value, list):
            return "".join(resolve(part, self.values) for part in value)
        return resolve(value, self.values)

    def started(self) -> dict[str, Node]:
        """The nodes whose condition holds, by name."""
        return {
            node.options["name"]: node
            for node in self.nodes
            if self.value(node.options.get("condition", True))
        }

    def parameters(self, name: str) -> dict[str, Any]:
        """Parameters that a started node gets from the arguments."""
        given: dict[str, Any] = {}
        for entry in self.started()[name].options["parameters"]:
            if isinstance(entry, dict):
                given |= {key: self.value(value) for key, value in entry.items()}
        return given

    def remappings(self, name: str) -> dict[str, str]:
        """Remappings of a started node."""
        found = self.started()[name].options.get("remappings", [])
        return {self.value(old): self.value(new) for old, new in found}
