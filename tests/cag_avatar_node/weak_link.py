"""Two machines in one: network namespaces joined by a link that delays, loses and breaks.

The link is two TAP devices and a thread that carries Ethernet frames between them, so that it works
where the kernel has no netem. Needs root, iproute2 and /dev/net/tun.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time
import uuid

import pytest

_TUNSETIFF, _TAP, _NO_INFO = 0x400454CA, 0x0002, 0x1000


def require_namespaces() -> None:
    """Skip where this machine does not let us make two machines."""
    if os.geteuid() != 0 or shutil.which("ip") is None or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs root, iproute2 and /dev/net/tun")
    name = f"probe{uuid.uuid4().hex[:6]}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        pytest.skip("this kernel or sandbox has no network namespaces")
    subprocess.run(["ip", "netns", "del", name], check=True)


class WeakLink:
    """Two namespaces, ``a`` and ``b``, and the link between them.

    ``loss`` in [0, 1), ``delay`` and ``jitter`` in seconds (uniform, order is not kept), ``up``
    false loses everything; all may change at any time. ``carried`` counts the bytes of the
    Ethernet frames from a to b.
    """

    def __init__(self) -> None:
        self.loss, self.delay, self.jitter, self.up = 0.0, 0.0, 0.0, True
        self.carried = 0
        self._random = random.Random(1)
        self._stop = threading.Event()
        tag = uuid.uuid4().hex[:6]
        self.a, self.b = f"a{tag}", f"b{tag}"
        self._taps = []
        for index, name in enumerate((self.a, self.b), start=1):
            device = f"tap{index}{tag}"
            handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH", device.encode(), _TAP | _NO_INFO))
            self._taps.append(handle)
            self._ip("netns", "add", name)
            self._ip("link", "set", device, "netns", name)
            for command in (
                ["addr", "add", f"10.77.0.{index}/24", "dev", device],
                ["link", "set", "lo", "up"],
                ["link", "set", device, "up"],
                ["route", "add", "224.0.0.0/4", "dev", device],
            ):
                self._ip("-n", name, *command)
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def within(self, namespace: str, command: list[str]) -> list[str]:
        """The command line that runs a command in a namespace."""
        return ["ip", "netns", "exec", namespace, *command]

    def close(self) -> None:
        """Take it all down."""
        self._stop.set()
        self._thread.join(2.0)
        for handle in self._taps:
            os.close(handle)
        for name in (self.a, self.b):
            subprocess.run(["ip", "netns", "del", name], check=False)

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def _carry(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []
        count = 0
        while not self._stop.is_set():
            timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.1
            ready, _, _ = select.select(self._taps, [], [], min(timeout, 0.1))
            for handle in ready:
                frame = os.read(handle, 65536)
                if not self.up or self._random.random() < self.loss:
                    continue
                if handle == self._taps[0]:
                    self.carried += len(frame)
                late = self.delay + self.jitter * self._random.uniform(-1, 1)
                to = self._taps[1] if handle == self._taps[0] else self._taps[0]
                count += 1
                heapq.heappush(waiting, (time.monotonic() + max(late, 0.0), count, to, frame))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, to, frame = heapq.heappop(waiting)
                try:
                    os.write(to, frame)
                except OSError:  # the device is going down
                    continue
