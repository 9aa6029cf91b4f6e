"""The interactive page, without a browser: handles are moved, clients are stood in for."""

from __future__ import annotations

import math
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cag_avatar.avatar.animator import Animator
from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.geometry import matrix_to_quaternion, rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_NAMES
from cag_avatar.viewer.page import AvatarPage
from cag_avatar.viewer.scene import AvatarScene, Viewpoint
from tests.conftest import make_avatar


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Client:
    """Stands in for a browser that looks from the front."""

    def __init__(self, front: Viewpoint, number: int = 7) -> None:
        self.client_id = number
        self.pictures: list[np.ndarray] = []
        self.arrived = threading.Event()
        self.moved = None
        self.camera = SimpleNamespace(
            position=np.array(front.position), wxyz=np.array(front.wxyz), fov=front.fov,
            aspect=1.5, on_update=self._on_update,
        )  # fmt: skip
        self.scene = SimpleNamespace(set_background_image=self._show)

    def _on_update(self, callback):
        self.moved = callback

    def _show(self, image, **_):
        self.pictures.append(image)
        self.arrived.set()

    def next(self) -> np.ndarray:
        assert self.arrived.wait(20)
        self.arrived.clear()
        return self.pictures[-1]


@pytest.fixture
def page():
    pytest.importorskip("viser", reason="viser is not installed: pip install 'cag_avatar[view]'")
    with AvatarPage(make_avatar(), port=free_port(), backend="cpu", size=64, max_fps=20) as page:
        yield page
    assert not page._thread.is_alive()


def test_the_page_answers_and_closes(page):
    with urllib.request.urlopen(page.address, timeout=10) as answer:
        assert answer.status == 200
        assert b"<html" in answer.read().lower()
    page.close()
    with pytest.raises(urllib.error.URLError), urllib.request.urlopen(page.address, timeout=2):
        pass


def test_sliders_change_the_picture_and_reset_brings_it_back(page):
    assert set(page.sliders) == set(ARKIT_NAMES)
    still = page.picture()
    assert still.shape == (64, 64, 3)
    for handle in (page.sliders["jawOpen"], page.turns["yaw (to their left)"]):
        handle.value = handle.max
        assert not np.array_equal(page.picture(), still)
    page.reset()
    assert np.array_equal(page.picture(), still)
    page.random_expression()
    moved = [name for name, handle in page.sliders.items() if handle.value != 0]
    assert 1 <= len(moved) <= 8
    assert not np.array_equal(page.picture(), still)
    page.paint.value = "attention"
    painted = page.picture()
    page.paint.value = "influence"
    assert not np.array_equal(page.picture(), painted)


def test_the_gaze_moves_both_eyes(page):
    # Callbacks run in viser's threads when a client moves a slider; here directly.
    for name, value in (("gaze to their left", 0.5), ("gaze up", -1.0)):
        page.gaze[name].value = value
        page._gaze_moved(name)(None)
    looks = {n: h.value for n, h in page.sliders.items() if n.startswith("eyeLook") and h.value}
    assert looks == {
        "eyeLookOutLeft": 0.5, "eyeLookInRight": 0.5, "eyeLookDownLeft": 1.0,
        "eyeLookDownRight": 1.0,
    }  # fmt: skip


def test_clients_get_pictures_when_something_changes_and_not_too_often(page, monkeypatch):
    drawn, draw = [], page.picture
    monkeypatch.setattr(
        page, "picture", lambda view: (drawn.append(time.monotonic()), draw(view))[1]
    )
    client = Client(AvatarScene(make_avatar(), "cpu", 64).front)
    monkeypatch.setattr(page._server, "get_clients", lambda: {client.client_id: client})
    page._connected(client)
    first = client.next()
    assert first.shape == (64, 96, 3)
    client.camera.position = client.camera.position + np.array([0.05, 0.0, 0.0])
    client.moved(None)
    assert not np.array_equal(client.next(), first)
    for value in np.linspace(0, 1, 30):
        page.sliders["jawOpen"].value = float(value)
        page._changed(None)
    time.sleep(0.3)
    assert 3 <= len(drawn) <= 2 + (time.monotonic() - drawn[0]) / 0.05
    assert np.diff(drawn).min() > 0.049
    last = page.picture(Viewpoint(*(tuple(v) for v in (client.camera.position, client.camera.wxyz)),
                                  client.camera.fov, 1.5))  # fmt: skip
    np.testing.assert_array_equal(client.pictures[-1], last)


def test_a_client_that_fails_does_not_end_the_page(page, monkeypatch):
    front = AvatarScene(make_avatar(), "cpu", 64).front
    broken, good = Client(front, 1), Client(front, 2)
    broken.scene = SimpleNamespace()
    monkeypatch.setattr(page._server, "get_clients", lambda: {1: broken, 2: good})
    page._changed(None)
    good.next()
    page._changed(None)
    good.next()


def test_bad_settings_are_named():
    pytest.importorskip("viser", reason="viser is not installed: pip install 'cag_avatar[view]'")
    for name, value in (("port", 0), ("max_fps", 0.0), ("size", 8)):
        with pytest.raises(InputError, match=name):
            AvatarPage(make_avatar(), **{name: value})


def test_without_viser_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(MissingDependencyError, match=r"cag_avatar\[view\]"):
        AvatarPage(make_avatar())


def test_a_scene_shows_what_the_animator_shows():
    """A camera elsewhere and a turned head equal the person moved before a fixed camera."""
    avatar = make_avatar()
    home = avatar.record.neutral_head_pose
    lean = rotation_vector_to_matrix(torch.tensor([0.0, 0.2, 0.0], dtype=torch.float64)).numpy()
    avatar.record.neutral_torso_pose[:3, :3] = home[:3, :3] @ lean
    scene, animator = AvatarScene(avatar, "cpu", 72), Animator(avatar, "cpu")
    code = np.zeros(52, np.float32)
    code[17] = 0.7
    person = home.copy()
    turned = rotation_vector_to_matrix(torch.tensor([0.2, -0.6, 0.1], dtype=torch.float64))
    person[:3, :3] = turned.numpy() @ home[:3, :3]
    torso = person @ np.linalg.inv(home) @ avatar.record.neutral_torso_pose
    pitch, yaw, roll = 0.1, 0.4, -0.2
    nod = Rotation.from_euler("YXZ", [yaw, pitch, roll]).as_matrix()
    pivot = avatar.neck_pivot.double().numpy()
    head = person.copy()
    head[:3, :3] = person[:3, :3] @ nod
    head[:3, 3] = person[:3, :3] @ (pivot - nod @ pivot) + person[:3, 3]
    eye = np.linalg.inv(person)
    wxyz = matrix_to_quaternion(torch.from_numpy(eye[:3, :3])).tolist()
    viewpoint = Viewpoint(tuple(eye[:3, 3]), tuple(wxyz), 2 * math.atan(36 / 150))
    seen = scene.picture(code, (pitch, yaw, roll), viewpoint).astype(int)
    expected = animator.render(code, head, torso).astype(int)
    assert (expected < 200).any()
    assert np.abs(seen - expected).max() <= 2


def test_turns_go_where_their_names_say():
    scene = AvatarScene(make_avatar(), "cpu", 64)

    def weight(turn):
        dark = 255.0 - scene.picture(np.zeros(52), turn, scene.front).mean(-1)
        rows, columns = np.mgrid[:64, :64]
        top = rows < 26  # the head above its neck
        return [(axis * dark * top).sum() / (dark * top).sum() for axis in (columns, rows)]

    still = weight((0.0, 0.0, 0.0))
    # Roll: the top goes to the subject's right, the left of the picture.
    assert weight((0.0, 0.0, 0.4))[0] < still[0] - 1
    assert "attention" not in AvatarScene(make_avatar(fusion="concat"), "cpu", 64).paints
