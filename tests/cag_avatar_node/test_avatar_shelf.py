"""Avatars by name, loaded in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cag_avatar.errors import InputError
from cag_avatar_node.avatar_shelf import AvatarShelf, avatar_paths

PATHS = avatar_paths("a.cag", ["x/b.cag", "x/c.cag"])


@dataclass
class Loaded:
    name: str


class Loader:
    """Loads when it is let; keeps a record."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.loaded: list[str] = []

    def __call__(self, path: Path) -> Loaded:
        assert self.go_on.wait(10)
        if path.stem == "c":
            raise InputError(f"{path} is broken")
        self.loaded.append(path.stem)
        return Loaded(path.stem)


@pytest.fixture
def loader() -> Loader:
    return Loader()


def make(loader: Loader) -> tuple[AvatarShelf[Loaded], list[str]]:
    failures: list[str] = []
    shelf = AvatarShelf(PATHS, loader, lambda name, error: failures.append(f"{name}: {error}"))
    loader.go_on.set()
    assert shelf.first().name == "a"
    loader.go_on.clear()
    return shelf, failures


def test_names_and_paths() -> None:
    assert list(PATHS) == ["a", "b", "c"]
    assert avatar_paths("", ["", "b.cag"]) == {"b": Path("b.cag")}
    assert avatar_paths("b.cag", ["b.cag"]) == {"b": Path("b.cag")}
    with pytest.raises(InputError, match="avatar is not set"):
        avatar_paths("", [""])
    with pytest.raises(InputError, match="same name b"):
        avatar_paths("b.cag", ["x/b.cag"])


def test_it_is_loaded_in_the_background_and_given_once(
    loader: Loader, wait_until: Callable[..., None]
) -> None:
    shelf, _ = make(loader)
    assert shelf.select("b") == "b is being loaded"
    assert shelf.take_ready() is None
    assert shelf.shown == "a"
    loader.go_on.set()
    taken: list[Loaded] = []
    wait_until(lambda: taken.extend(filter(None, [shelf.take_ready()])) or taken, "b")
    assert taken == [Loaded("b")]
    assert shelf.take_ready() is None
    assert shelf.shown == "b"
    assert shelf.select("a") == "a is shown", "kept"
    assert shelf.take_ready() == Loaded("a")
    assert loader.loaded == ["a", "b"]
    shelf.close()


def test_the_newest_request_counts(loader: Loader, wait_until: Callable[..., None]) -> None:
    shelf, _ = make(loader)
    shelf.select("b")
    wait_until(lambda: shelf._wanted is None, "loading")
    shelf.select("a")
    loader.go_on.set()
    wait_until(lambda: "b" in shelf._loaded, "b")
    assert shelf.take_ready() == Loaded("a")
    assert shelf.take_ready() is None
    shelf.close()


def test_a_bad_file_leaves_the_present_one(loader: Loader, wait_until: Callable[..., None]) -> None:
    shelf, failures = make(loader)
    loader.go_on.set()
    shelf.select("c")
    wait_until(lambda: failures, "the failure")
    assert failures == ["c: x/c.cag is broken"]
    assert shelf.failures == 1
    assert shelf.take_ready() is None
    assert shelf.shown == "a"
    shelf.select("b")
    wait_until(shelf.take_ready, "b")
    shelf.close()


def test_unknown_names_and_a_closed_shelf_are_refused(loader: Loader) -> None:
    shelf, _ = make(loader)
    with pytest.raises(InputError, match="'z' is unknown: this node has a, b, c"):
        shelf.select("z")
    shelf.close()
    with pytest.raises(InputError, match="shutting down"):
        shelf.select("b")
