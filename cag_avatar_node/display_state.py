"""What the page is to show: the avatar's state as the renderer tells it, or that it is gone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["HIDDEN_REASONS", "DisplayKind", "DisplayState", "decide_state", "parse_state"]

#: Why an avatar may be hidden; an empty reason is taken as absent.
HIDDEN_REASONS = ("absent", "consent", "driving")


class DisplayKind(str, Enum):
    """Kinds of state; their order is their code on the wire."""

    LIVE = "live"
    """The newest picture."""
    HOLD = "hold"
    """The last expression, unchanged: the stream has a gap."""
    DECAY = "decay"
    """The expression fades to neutral."""
    IDLE = "idle"
    """At rest, blinking."""
    HIDDEN = "hidden"
    """The renderer hides the avatar; the reason says why."""
    WAITING = "waiting"
    """No picture came yet."""
    LOST = "lost"
    """Pictures have stopped."""
    INACTIVE = "inactive"
    """The display node is not active."""

    @property
    def code(self) -> int:
        """Number of the kind on the wire."""
        return list(DisplayKind).index(self)

    @property
    def shows_picture(self) -> bool:
        """Whether pictures are shown; else a placard."""
        return self in (DisplayKind.LIVE, DisplayKind.HOLD, DisplayKind.DECAY, DisplayKind.IDLE)


@dataclass(frozen=True)
class DisplayState:
    """A kind, and for hidden avatars the reason."""

    kind: DisplayKind
    """What is shown."""
    reason: str = ""
    """One of HIDDEN_REASONS, for HIDDEN only."""


_TOLD = (
    DisplayKind.LIVE,
    DisplayKind.HOLD,
    DisplayKind.DECAY,
    DisplayKind.IDLE,
    DisplayKind.HIDDEN,
)


def parse_state(text: str) -> DisplayState:
    """The state in a message of ``avatar_renderer/state``, such as ``live`` or ``hidden:driving``.

    A hidden avatar stays hidden whatever its reason: an unknown one is kept as "absent".

    Raises:
        ValueError: not a state.
    """
    name, _, reason = text.strip().lower().partition(":")
    try:
        kind = DisplayKind(name)
    except ValueError:
        kind = DisplayKind.LOST
    if kind not in _TOLD:
        known = ", ".join(kind.value for kind in _TOLD)
        raise ValueError(f"state {text[:40]!r} is not one of {known}")
    if kind is not DisplayKind.HIDDEN:
        return DisplayState(kind)
    return DisplayState(kind, reason if reason in HIDDEN_REASONS else "absent")


def decide_state(
    told: DisplayState | None,
    picture_age: float | None,
    stale_s: float,
    active: bool = True,
    require_state: bool = False,
    still: bool = False,
) -> DisplayState:
    """The state to show.

    Args:
        told: what the renderer said last; None: nothing, or the renderer is gone.
        picture_age: seconds since the newest picture arrived; None before the first.
        stale_s: age from which pictures count as stopped, seconds.
        active: whether the display node is active.
        require_state: show nothing unless the renderer has told its state.
        still: whether an idle or frozen avatar is a single picture, so that none has to follow.

    Returns:
        ``told`` while pictures come; a hidden avatar is hidden whether they come or not.
    """
    if not active:
        return DisplayState(DisplayKind.INACTIVE)
    if told is not None and told.kind is DisplayKind.HIDDEN:
        return told
    if picture_age is None:
        return DisplayState(DisplayKind.WAITING)
    rests = told is not None and told.kind in (DisplayKind.IDLE, DisplayKind.HOLD)
    if picture_age > stale_s and not (rests and still):
        return DisplayState(DisplayKind.LOST)
    if told is None:
        return DisplayState(DisplayKind.WAITING if require_state else DisplayKind.LIVE)
    return told
