"""Who may see the page."""

from __future__ import annotations

import hmac

import pytest

from cag_avatar.errors import InputError
from cag_avatar_node.display_access import PageAccess, cookie_name, is_loopback, make_token


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST.", "::1", "[::1]", "x.localhost"]
)
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    assert PageAccess.for_host(host, "") == PageAccess()


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.1.4", "robot", "localhost.evil.com", "127.0.0.1.nip.io"]
)
def test_elsewhere_there_is_a_token(host: str) -> None:
    assert not is_loopback(host)
    first, second = PageAccess.for_host(host, ""), PageAccess.for_host(host, "")
    assert len(first.token) >= 20
    assert first.token != second.token
    assert PageAccess.for_host(host, "my-token-1").token == "my-token-1"


def test_bad_tokens_are_named() -> None:
    for token in ("short", "with space1", "semi;colon", "x" * 129, "ümläut-token"):
        with pytest.raises(InputError, match="parameter token"):
            PageAccess(token)
    with pytest.raises(InputError, match="needs a token"):
        PageAccess("", loopback_only=False)


def test_a_token_on_loopback_is_asked_for() -> None:
    access = PageAccess.for_host("127.0.0.1", "my-token-1")
    assert access.loopback_only
    assert not access.allows_token({}, {}, {})


def test_where_a_token_may_be() -> None:
    token = make_token()
    access = PageAccess(token)
    assert access.allows_token({"token": token}, {}, {})
    assert access.allows_token({}, {cookie_name(8008): token}, {})
    assert access.allows_token({}, {cookie_name(1): "stale-token", cookie_name(2): token}, {})
    assert access.allows_token({}, {}, {"Authorization": f"Bearer {token}"})
    for wrong in ("", token[:-1], token + "x", token.lower() + "-", "é"):
        assert not access.allows_token({"token": wrong}, {cookie_name(1): wrong}, {})
        assert not access.allows_token({}, {}, {"Authorization": f"Bearer {wrong}"})
    assert not access.allows_token({}, {"other": token}, {"Authorization": f"Basic {token}"})
    assert PageAccess().allows_token({}, {}, {})


def test_no_comparison_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(given: bytes, token: bytes) -> bool:
        compared.append(given)
        return given == token

    monkeypatch.setattr(hmac, "compare_digest", compare)
    headers = {"Authorization": "Bearer b"}
    access = PageAccess("my-token-1")
    assert access.allows_token({"token": "my-token-1"}, {cookie_name(1): "a"}, headers)
    assert compared == [b"my-token-1", b"a", b"b"], "a right one must not end the comparing"


def test_hosts() -> None:
    local = PageAccess()
    for host in ("127.0.0.1:8008", "localhost", "localhost:8008", "[::1]:8008"):
        assert local.allows_host(host)
    for host in ("evil.com:8008", "", "127.0.0.1.evil.com", "192.168.1.4:8008", "[fe80::1]:8008"):
        assert not local.allows_host(host)
    assert PageAccess("my-token-1", loopback_only=False).allows_host("robot:8008")


def test_origins() -> None:
    access = PageAccess()
    assert access.allows_origin(None, "localhost:8008")
    assert access.allows_origin("http://localhost:8008", "localhost:8008")
    for origin in ("http://evil.com", "http://localhost:9000", "null", ""):
        assert not access.allows_origin(origin, "localhost:8008")
