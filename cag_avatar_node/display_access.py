"""Who may see the page: this machine, and elsewhere those who know the token."""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from cag_avatar.errors import InputError

__all__ = ["PageAccess", "is_loopback", "make_token"]

#: Characters that need no quoting in an address or a cookie.
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{8,128}")


def is_loopback(host: str) -> bool:
    """Whether an address, without a port, can be reached from this machine only."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def make_token() -> str:
    """A new token of 128 random bits."""
    return secrets.token_urlsafe(16)


@dataclass(frozen=True)
class PageAccess:
    """Decides about requests.

    Raises:
        InputError: a token that is too short or has other characters.
    """

    token: str = ""
    """What a request must bring; empty: nothing."""
    loopback_only: bool = True
    """The page is served on a loopback address: requests for other host names are refused, because
    a name that its owner lets point here (DNS rebinding) would give any web site the pictures."""

    def __post_init__(self) -> None:
        if self.token and not _TOKEN.fullmatch(self.token):
            raise InputError(
                "parameter token: give 8 to 128 letters, digits, or any of . _ ~ - (empty: one is "
                "made up where the address needs one)"
            )
        if not self.token and not self.loopback_only:
            raise InputError("an address other than loopback needs a token")

    @classmethod
    def for_host(cls, host: str, token: str) -> PageAccess:
        """Access for a page on ``host``: elsewhere than on loopback with a token, made up if it is
        empty."""
        loopback = is_loopback(host)
        return cls(token or ("" if loopback else make_token()), loopback)

    def allows_host(self, host: str) -> bool:
        """Whether the Host header (name, or name:port) is one that the page is served under."""
        if not self.loopback_only:
            return True
        return is_loopback(_without_port(host))

    def allows_origin(self, origin: str | None, host: str) -> bool:
        """Whether a WebSocket's Origin header is the page itself; programs send none."""
        if origin is None:
            return True
        return origin.partition("://")[2].lower() == host.lower()

    def allows_token(
        self, query: Mapping[str, str], cookies: Mapping[str, str], headers: Mapping[str, str]
    ) -> bool:
        """Whether the token comes as ``?token=``, as the cookie, or as ``Authorization: Bearer``.

        Every comparison takes the same time however much of the token is right.
        """
        if not self.token:
            return True
        scheme, _, bearer = headers.get("Authorization", "").partition(" ")
        given = [query.get("token", ""), *_cookies(cookies), bearer if scheme == "Bearer" else ""]
        found = [hmac.compare_digest(one.encode(), self.token.encode()) for one in given]
        return any(found)


COOKIE_PREFIX = "cag_avatar_token"


def cookie_name(port: int | None) -> str:
    """Name of the cookie; cookies do not heed ports, so that two pages of a host need two names."""
    return f"{COOKIE_PREFIX}_{port}"


def _cookies(cookies: Mapping[str, str]) -> list[str]:
    return [value for name, value in cookies.items() if name.startswith(COOKIE_PREFIX)]


def _without_port(host: str) -> str:
    """``name:port`` -> ``name``; ``[::1]:port`` -> ``[::1]``."""
    if host.startswith("["):
        return host.partition("]")[0]
    return host.partition(":")[0]
