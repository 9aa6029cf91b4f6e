"""Images between nodes of one process, handed over as they are instead of through DDS.

A message of an image of 512 x 512 is copied five times on its way between two nodes, which takes
longer than decoding it. Only nodes that are given the same LocalImages do this; for all others, and
for other processes, the topic is there as ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

__all__ = ["LocalImage", "LocalImages", "LocalTopic"]


@dataclass(eq=False)
class LocalImage:
    """What sensor_msgs/Image says, of memory that nobody writes to any more."""

    header: Header
    encoding: str
    height: int
    width: int
    step: int
    data: memoryview
    is_bigendian: int = 0

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], encoding: str, header: Header) -> LocalImage:
        """An image whose channels are in the order of the encoding, contiguous, [H, W, C]."""
        height, width, channels = pixels.shape
        return cls(header, encoding, height, width, width * channels, pixels.reshape(-1).data)


Listener: TypeAlias = Callable[[LocalImage], None]


class LocalTopic:
    """One topic inside the process; for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()
        self._sources = 0

    @property
    def has_source(self) -> bool:
        """Whether a node of this process publishes here."""
        return self._sources > 0

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def add_source(self) -> None:
        """A node begins to publish."""
        with self._lock:
            self._sources += 1

    def remove_source(self) -> None:
        """It ends."""
        with self._lock:
            self._sources -= 1

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` with every image, on the publisher's thread."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def leave(self, listener: Listener) -> None:
        """Call it no more."""
        with self._lock:
            self._listeners = tuple(one for one in self._listeners if one != listener)

    def publish(self, image: LocalImage) -> None:
        """Hand an image to all listeners."""
        for listener in self._listeners:
            listener(image)


class LocalImages:
    """The topics of one process, by their full names."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._topics: dict[str, LocalTopic] = {}

    def topic(self, name: str) -> LocalTopic:
        """The topic of that full name."""
        with self._lock:
            return self._topics.setdefault(name, LocalTopic())
