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
SPACE = "{http://www.eprosima.com}"


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHOICES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("one_host", [False, True])
def test_profile_exists_and_holds_a_whole_image(one_host: bool) -> None:
    environment = transport.image_transport_environment(one_host)
    root = ElementTree.parse(environment["FASTDDS_DEFAULT_PROFILES_FILE"]).getroot()
    sizes = [int(element.text or 0) for element in root.iter(SPACE + "maxMessageSize")]
    segments = [int(element.text or 0) for element in root.iter(SPACE + "segment_size")]
    assert 1920 * 1080 * 3 < sizes[0] < segments[0]


def test_one_host_announces_itself_more_often_and_is_the_same_otherwise() -> None:
    both = [ElementTree.parse(transport.profile_path(one)).getroot() for one in (False, True)]
    (rtps,) = both[1].iter(SPACE + "rtps")
    (builtin,) = both[1].iter(SPACE + "builtin")
    (period,) = builtin.iter(SPACE + "leaseAnnouncement")
    assert [element.text for element in period] == ["1"]
    rtps.remove(builtin)
    plain, less = (
        ["".join(element.itertext()).split() for element in root.iter()] for root in both
    )
    assert plain == less


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
