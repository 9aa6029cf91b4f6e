"""Several avatars: found by name, loaded in the background, swapped when ready."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from cag_avatar.errors import InputError

__all__ = ["AvatarShelf", "avatar_paths"]


class _Named(Protocol):
    @property
    def name(self) -> str: ...


A = TypeVar("A", bound=_Named)


def avatar_paths(first: str, others: Sequence[str]) -> dict[str, Path]:
    """Names (file name without folder and suffix) and paths; the first is shown at first.

    Raises:
        InputError: no path, or two files with the same name.
    """
    result: dict[str, Path] = {}
    for text in [first, *others]:
        if not text:
            continue
        path = Path(text).expanduser()
        known = result.setdefault(path.stem, path)
        if known != path:
            raise InputError(
                f"parameter avatars: {known} and {path} have the same name {path.stem}: rename one"
            )
    if not result:
        raise InputError("parameter avatar is not set: give the path of an avatar file (*.cag)")
    return result


class AvatarShelf(Generic[A]):
    """Loads avatars, one at a time, in a thread of its own; loaded ones are kept.

    Args:
        paths: by name, the one to begin with first.
        load: makes an avatar of a path; takes seconds, raises InputError on a bad file.
        on_failure: called, in that thread, with the error of an avatar that could not be loaded.
    """

    def __init__(
        self,
        paths: dict[str, Path],
        load: Callable[[Path], A],
        on_failure: Callable[[str, Exception], None],
    ) -> None:
        self._paths = paths
        self._load = load
        self._on_failure = on_failure
        self._condition = threading.Condition()
        self._wanted: str | None = None  # to be loaded next
        self._asked: str | None = None  # the newest request
        self._ready: A | None = None
        self._closed = False
        self._failed = 0
        self._thread: threading.Thread | None = None
        self._loaded: dict[str, A] = {}
        self.shown = next(iter(paths))

    @property
    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(self._paths)

    @property
    def failures(self) -> int:
        """How many avatars could not be loaded in the background."""
        return self._failed

    def first(self) -> A:
        """Load the first avatar here and now. Raises InputError on a bad file."""
        avatar = self._load(self._paths[self.shown])
        self._loaded[self.shown] = avatar
        return avatar

    def select(self, name: str) -> str:
        """Ask for another avatar; the newest request counts. Returns what is done, in words.

        Raises:
            InputError: an unknown name, or the shelf is closed.
        """
        if name not in self._paths:
            raise InputError(
                f"avatar {name[:80]!r} is unknown: this node has {', '.join(self._paths)}"
            )
        with self._condition:
            if self._closed:
                raise InputError("the node is shutting down")
            self._asked = name
            if name in self._loaded:
                self._wanted, self._ready = None, self._loaded[name]
                return f"{name} is shown"
            self._wanted, self._ready = name, None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="avatars", daemon=True)
                self._thread.start()
            self._condition.notify_all()
            return f"{name} is being loaded"

    def take_ready(self) -> A | None:
        """The avatar that is to be shown from now on, once; None: no change."""
        if self._ready is None:  # the usual case, without the lock
            return None
        with self._condition:
            avatar, self._ready = self._ready, None
            if avatar is not None:
                self.shown = avatar.name
            return avatar

    def close(self, timeout: float = 30.0) -> None:
        """Stop loading and forget the avatars."""
        with self._condition:
            self._closed = True
            self._wanted = self._ready = None
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)
        self._loaded.clear()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._wanted is not None or self._closed)
                name = self._wanted
                if self._closed or name is None:
                    return
                self._wanted = None
            try:
                avatar = self._load(self._paths[name])
            except Exception as error:
                self._failed += 1
                self._on_failure(name, error)
                continue
            with self._condition:
                self._loaded[name] = avatar
                # Somebody may have asked for another one meanwhile.
                if self._asked == name and not self._closed:
                    self._ready = avatar
