"""The page's web server in a thread of its own, so that ROS keeps the main one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from aiohttp import web

from cag_avatar.errors import InputError

__all__ = ["ServerThread"]


class ServerThread:
    """An event loop in a thread, with a web server once :meth:`serve` was called.

    Args:
        name: name of the thread.
    """

    def __init__(self, name: str = "page") -> None:
        self.loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def serve(self, make: Callable[[], web.Application], host: str, port: int) -> int:
        """Serve an application, made in the loop's thread; returns the port (0: any free one).

        Raises:
            InputError: the address cannot be served on.
        """

        async def start() -> int:
            runner = web.AppRunner(make(), access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            self._runner = runner
            await web.TCPSite(runner, host, port).start()
            return int(runner.addresses[0][1])

        try:
            return asyncio.run_coroutine_threadsafe(start(), self.loop).result()
        except OSError as error:
            why = error.strerror or error
            raise InputError(
                f"cannot serve on {host} port {port}: {why}; set the parameter port to a free one "
                "(0: any) and host to an address of this machine"
            ) from error

    def stop(self) -> None:
        """End the server and the thread; open requests are cut off after a second."""
        if not self._thread.is_alive():
            return
        if self._runner is not None:
            asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self.loop).result(10.0)
            self._runner = None
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5.0)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()
