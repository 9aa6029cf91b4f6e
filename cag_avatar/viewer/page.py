"""The interactive page: sliders for an avatar's coefficients, its head and its gaze.

The page is viser's; the pictures are ours. A client's camera says where it looks from, the server
renders the avatar for it and sends the picture as the background of the client's scene, no oftener
than ``max_fps``: so the page shows what the avatar's own rasteriser makes, on a machine without a
GPU too. One thread renders for all clients; the sliders are shared by them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.avatar.model import Avatar
from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.insight.families import FAMILIES, FAMILY_COLORS, family_of
from cag_avatar.rendering.rasterizer import Backend
from cag_avatar.viewer.scene import AvatarScene, Viewpoint

__all__ = ["AvatarPage"]

_log = logging.getLogger(__name__)

#: Sliders of the head: farthest, degrees.
_TURNS = {"pitch (down)": 30.0, "yaw (to their left)": 45.0, "roll": 30.0}
#: What a gaze slider from -1 to 1 moves: (positive, negative) coefficients.
_GAZE = {
    "gaze to their left": (
        ("eyeLookOutLeft", "eyeLookInRight"),
        ("eyeLookInLeft", "eyeLookOutRight"),
    ),
    "gaze up": (("eyeLookUpLeft", "eyeLookUpRight"), ("eyeLookDownLeft", "eyeLookDownRight")),
}
#: Coefficients that a random expression moves.
_RANDOM = 8


class AvatarPage:
    """Serves an avatar until :meth:`close`; also a context manager.

    Args:
        avatar: with its capture record.
        host: address to listen at.
        port: port; the next free one if it is taken.
        backend: rasteriser.
        size: height of the pictures in pixels.
        max_fps: pictures a second and client, at most.

    Raises:
        MissingDependencyError: viser is not installed.
        InputError: the avatar has no record, or a setting is out of range.
    """

    def __init__(
        self,
        avatar: Avatar,
        host: str = "127.0.0.1",
        port: int = 8080,
        backend: Backend = "auto",
        size: int = 448,
        max_fps: float = 15.0,
    ) -> None:
        try:
            import viser
        except ModuleNotFoundError as error:
            raise MissingDependencyError("viser", "the interactive page", "view") from error
        if not 1 <= port <= 65535:
            raise InputError(f"port: {port} must lie in 1 .. 65535")
        if not 0.1 <= max_fps <= 240:
            raise InputError(f"max_fps: {max_fps} must lie in 0.1 .. 240")
        self._scene = AvatarScene(avatar, backend, size)
        self._interval = 1.0 / max_fps
        self._random = np.random.default_rng()
        self._wake = threading.Condition()
        self._waiting: dict[int, Any] = {}
        self._closed = False
        self._server: Any = viser.ViserServer(host, port, "cag_avatar", verbose=False)
        self.sliders: dict[str, Any] = {}
        """Handle of each coefficient's slider, by name."""
        self.turns: dict[str, Any] = {}
        """Handles of pitch, yaw and roll, degrees."""
        self.gaze: dict[str, Any] = {}
        """Handles of the gaze, -1 to 1; empty if the code has no eyeLook coefficients."""
        self._add_controls(avatar)
        self._place_camera()
        self._server.on_client_connect(self._connected)
        self._server.on_client_disconnect(self._disconnected)
        self._thread = threading.Thread(target=self._serve, name="avatar-page", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Address of the page."""
        return f"http://{self._server.get_host()}:{self._server.get_port()}"

    def picture(self, viewpoint: Viewpoint | None = None) -> NDArray[np.uint8]:
        """What the page shows now from a viewpoint, by default the front: [H, W, 3] uint8 RGB."""
        code = np.array(
            [self.sliders[name].value for name in self._scene.expression_names], np.float32
        )
        pitch, yaw, roll = (math.radians(handle.value) for handle in self.turns.values())
        return self._scene.picture(
            code, (pitch, yaw, roll), viewpoint or self._scene.front, self.paint.value
        )

    def reset(self) -> None:
        """Face, gaze and head at rest."""
        for handle in (*self.gaze.values(), *self.turns.values()):
            handle.value = 0.0
        for name, value in zip(self._scene.expression_names, self._scene.neutral_code, strict=True):
            self.sliders[name].value = float(value)

    def random_expression(self) -> None:
        """A few coefficients somewhere in their training range, the others at rest."""
        record, names = self._scene.record, self._scene.expression_names
        self.reset()
        for index in self._random.choice(len(names), min(_RANDOM, len(names)), replace=False):
            handle = self.sliders[names[index]]
            value = self._random.uniform(record.code_min[index], record.code_max[index])
            handle.value = float(np.clip(value, handle.min, handle.max))

    def close(self) -> None:
        """Stop rendering and serving."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join(10.0)
        self._server.stop()

    def __enter__(self) -> AvatarPage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add_controls(self, avatar: Avatar) -> None:
        gui, scene = self._server.gui, self._scene
        reset, random = gui.add_button("Reset"), gui.add_button("Random expression")
        reset.on_click(lambda _: self.reset())
        random.on_click(lambda _: self.random_expression())
        self.paint = gui.add_dropdown("colours", scene.paints, initial_value="natural")
        """Handle of what the colours show."""
        self.paint.on_update(self._changed)
        legend = gui.add_markdown(_legend(scene.expression_names), visible=False)

        @self.paint.on_update
        def _(_: object) -> None:
            legend.visible = self.paint.value != "natural"

        with gui.add_folder("head"):
            for name, most in _TURNS.items():
                self.turns[name] = self._slider(name, -most, most, 0.0, 0.5)
            if {n for pair in _GAZE.values() for side in pair for n in side} <= set(
                scene.expression_names
            ):
                for name in _GAZE:
                    self.gaze[name] = self._slider(name, -1.0, 1.0, 0.0, 0.02)
                    self.gaze[name].on_update(self._gaze_moved(name))
        low, high = _ranges(avatar)
        for family in FAMILIES:
            members = [i for i, n in enumerate(scene.expression_names) if family_of(n) == family]
            if members:
                with gui.add_folder(family, expand_by_default=False):
                    for i in members:
                        name, rest = scene.expression_names[i], float(scene.neutral_code[i])
                        self.sliders[name] = self._slider(name, low[i], high[i], rest, 0.01)

    def _slider(self, name: str, low: float, high: float, value: float, step: float) -> Any:
        handle = self._server.gui.add_slider(name, low, high, step, value)
        handle.on_update(self._changed)
        return handle

    def _gaze_moved(self, name: str) -> Callable[[object], None]:
        def moved(_: object) -> None:
            value = self.gaze[name].value
            for sign, coefficients in zip((1, -1), _GAZE[name], strict=True):
                for coefficient in coefficients:
                    self.sliders[coefficient].value = float(max(0.0, sign * value))

        return moved

    def _place_camera(self) -> None:
        front = self._scene.front
        self._server.scene.set_up_direction("+y")
        camera = self._server.initial_camera
        camera.position = front.position
        camera.look_at = (0.0, front.position[1], -0.06)
        camera.up = (0.0, 1.0, 0.0)
        camera.fov = front.fov

    def _connected(self, client: Any) -> None:
        client.camera.on_update(lambda _: self._ask([client]))
        self._ask([client])

    def _disconnected(self, client: Any) -> None:
        with self._wake:
            self._waiting.pop(client.client_id, None)

    def _changed(self, _: object) -> None:
        """A control moved: every client needs a new picture."""
        self._ask(list(self._server.get_clients().values()))

    def _ask(self, clients: Sequence[Any]) -> None:
        with self._wake:
            self._waiting.update({client.client_id: client for client in clients})
            self._wake.notify_all()

    def _serve(self) -> None:
        """Render for whoever waits, until closed; what comes meanwhile is one more picture."""
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                clients, self._waiting = list(self._waiting.values()), {}
            start = time.monotonic()
            for client in clients:
                try:
                    self._send(client)
                except Exception:
                    # One client that leaves meanwhile must not end the page for the others.
                    _log.warning("no picture for client %s", client.client_id, exc_info=True)
            with self._wake:
                left = self._interval - (time.monotonic() - start)
                self._wake.wait_for(lambda: self._closed, max(left, 0.0))

    def _send(self, client: Any) -> None:
        camera = client.camera
        viewpoint = Viewpoint(
            tuple(float(x) for x in camera.position),  # type: ignore[arg-type]
            tuple(float(x) for x in camera.wxyz),  # type: ignore[arg-type]
            float(camera.fov),
            float(camera.aspect),
        )
        image = self.picture(viewpoint)
        client.scene.set_background_image(image, format="jpeg", jpeg_quality=85)


def _ranges(avatar: Avatar) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of each slider, [E] each: the bounds, or half a range beyond the training's."""
    record = avatar.record
    assert record is not None
    low, high = (t.cpu().double().numpy() for t in (avatar.code_low, avatar.code_high))
    neutral = avatar.neutral_code.cpu().double().numpy()
    span = 0.5 * (record.code_max - record.code_min) + 0.1
    low = np.where(np.isfinite(low), low, np.minimum(record.code_min, neutral) - span)
    high = np.where(np.isfinite(high), high, np.maximum(record.code_max, neutral) + span)
    return low, high


def _legend(tokens: Sequence[str]) -> str:
    """Markdown: a coloured square for each family."""
    present = {family_of(token) for token in tokens} | {"neck"}
    squares = []
    for name, color in zip(FAMILIES, FAMILY_COLORS, strict=True):
        if name in present:
            code = "".join(f"{round(255 * c):02x}" for c in color)
            squares.append(f'<span style="color:#{code}">&#9632;</span> {name}')
    return " ".join(squares)
