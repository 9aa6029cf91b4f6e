"""The DDS profile is given to nodes only where it can work."""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import pytest

from cag_avatar_node import transport

CHOICES = (
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_BUILTIN_TRANSPORTS",
)


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHOICES:
        monkeypatch.delenv(name, raising=False)


def test_profile_exists_and_holds_a_whole_image() -> None:
    environment = transport.image_transport_environment()
    path = Path(environment["FASTDDS_DEFAULT_PROFILES_FILE"])
    root = ElementTree.parse(path).getroot()
    space = "{http://www.eprosima.com}"
    sizes = [int(element.text or 0) for element in root.iter(space + "maxMessageSize")]
    segments = [int(element.text or 0) for element in root.iter(space + "segment_size")]
    assert 1920 * 1080 * 3 < sizes[0] < segments[0]


@pytest.mark.parametrize("name", CHOICES)
def test_the_users_choice_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "something")
    assert transport.image_transport_environment() == {}


def test_too_little_shared_memory_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(transport, "_SHARED_MEMORY", tmp_path)
    usage = SimpleNamespace(free=transport.SHARED_MEMORY_NEEDED - 1)
    monkeypatch.setattr(transport.shutil, "disk_usage", lambda _: usage)
    with caplog.at_level(logging.WARNING):
        assert transport.image_transport_environment() == {}
    assert "--shm-size" in caplog.text
