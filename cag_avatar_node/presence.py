"""What the avatar shows: the operator's face, what bridges its absence, or nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from cag_avatar.errors import InputError
from cag_avatar_node.face_blend import Face, Interpolator, blend_faces, smoothstep

__all__ = ["Gate", "Presence", "PresenceConfig", "PresenceState", "Shown"]


class PresenceState(str, Enum):
    """Where what is shown comes from."""

    LIVE = "live"
    """The newest code."""
    HOLD = "hold"
    """The last code, unchanged; also while the picture is frozen."""
    DECAY = "decay"
    """Between the last code and the face at rest."""
    IDLE = "idle"
    """The face at rest, blinking; or an expression of the robot's own."""
    HIDDEN = "hidden"
    """No face at all."""


class Gate(str, Enum):
    """What may keep the avatar from being shown."""

    OPEN = "open"
    """Nothing."""
    CONSENT = "consent"
    """The operator does not consent: hidden."""
    DRIVING = "driving"
    """The vehicle moves: hidden."""
    FREEZE = "freeze"
    """The vehicle moves: the last picture stays."""


@dataclass(frozen=True)
class PresenceConfig:
    """How long each state lasts, in seconds."""

    live_s: float = 0.1
    """Without a message for so long (or 2.5 times their usual interval, if that is longer), the
    expression is not live any more but held."""
    hold_s: float = 0.25
    """Since the last code, for which it is kept."""
    decay_s: float = 0.75
    """In which it then fades to rest; 0: at once."""
    idle_s: float = 30.0
    """For which the face at rest is then shown before the avatar is hidden, unless the operator is
    said to be present."""
    return_s: float = 0.2
    """In which a code that comes back is eased in."""
    presence_timeout_s: float = 0.0
    """For which a word about the operator's presence counts; 0: for ever."""
    show_idle_at_start: bool = False
    """Show the face at rest before an operator was ever present."""
    require_consent: bool = False
    """Show nothing until the operator consents."""

    def __post_init__(self) -> None:
        for name in ("live_s", "hold_s", "decay_s", "idle_s", "return_s", "presence_timeout_s"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} {getattr(self, name)} must not be negative")


@dataclass(frozen=True)
class Shown:
    """What to show."""

    state: PresenceState
    """Where it comes from."""
    reason: str = ""
    """Why nothing is shown: absent, consent or driving; empty while something is."""
    face: Face | None = None
    """The face; None while hidden."""
    still: bool = False
    """Whether it is the same as before as long as state and code stay."""
    frozen: bool = False
    """Whether the vehicle's state keeps it from moving."""

    @property
    def name(self) -> str:
        """The state in one word, with the reason: ``live``, ``hidden:absent``, ..."""
        return f"{self.state.value}:{self.reason}" if self.reason else self.state.value


class Presence:
    """Follows the operator and bridges their absence; LIVE, HOLD, DECAY, IDLE, HIDDEN.

    Time is passed in (seconds, any monotonic clock). An operator is present from their first code
    or from the first word that they are; no longer when ``idle_s`` has passed without a code, or
    when it is said that they are not and what was shown has faded. Who withdraws consent is hidden,
    whether consent is required or not.

    Args:
        config: how long each state lasts.
        idle: the face at rest, given the seconds for which nothing else was shown.
        interpolate: glide from code to code (pictures at a rate of their own).
    """

    def __init__(
        self,
        config: PresenceConfig,
        idle: Callable[[float], Face],
        *,
        interpolate: bool = False,
    ) -> None:
        self._config = config
        self._idle = idle
        self._interpolate = interpolate
        self._glide: Interpolator | None = None
        self._last: Face | None = None
        self._last_time = 0.0
        self._interval = 0.0
        self._lost = True
        self._idle_since: float | None = None
        self._present: bool | None = None
        self._present_time = 0.0
        self._consent: bool | None = None
        self._return_from: Face | None = None
        self._return_time = 0.0
        self._return_s = 0.0
        self._shown: Face | None = None
        self._frozen = False

    # What happens.

    def see(self, face: Face | None, now: float) -> None:
        """A message: a face, or None when none was seen."""
        if face is None or self.present(now) is False:
            self._lost = True
            return
        before = self._state(now)
        if before is not PresenceState.LIVE:
            self._ease_in(before, now)
        gap = now - self._last_time
        if self._last is not None and 0 < gap <= self._config.hold_s:
            self._interval += (gap - self._interval) * (0.2 if self._interval else 1.0)
        if self._glide is None:
            self._glide = Interpolator()
        if self._interpolate:
            self._glide.add(face, now)
        self._last, self._last_time, self._lost = face, now, False

    def tell_present(self, flag: bool, now: float) -> None:
        """Whether an operator is there, by the word of another node."""
        self._present, self._present_time = flag, now

    def tell_consent(self, flag: bool) -> None:
        """Whether the operator consents to being shown."""
        self._consent = flag

    def present(self, now: float) -> bool | None:
        """The last word about presence; None: there is none that still counts."""
        timeout = self._config.presence_timeout_s
        if timeout and now - self._present_time > timeout:
            return None
        return self._present

    def occupied(self, now: float) -> bool:
        """Whether an operator is there: by word, or by codes that are shown or fading."""
        if self.present(now) is True:
            return True
        return self._state(now) not in (PresenceState.IDLE, PresenceState.HIDDEN)

    def arrived(self, now: float) -> bool:
        """Whether the newest code is shown as it is: later live pictures are the same."""
        easing = self._return_from is not None and now < self._return_time + self._return_s
        gliding = self._interpolate and self._glide is not None and not self._glide.arrived(now)
        return not easing and not gliding

    # What is shown.

    def look(self, now: float, driving: Gate = Gate.OPEN, speaking: bool = False) -> Shown:
        """What to show at a time.

        Args:
            now: the time.
            driving: what the vehicle's state says: OPEN, DRIVING or FREEZE.
            speaking: whether the robot has an expression of its own to show, which brings a hidden
                avatar back when no operator is present.
        """
        if self._consent is False or (self._config.require_consent and not self._consent):
            return self._hide(Gate.CONSENT)
        if driving is Gate.DRIVING:
            return self._hide(driving)
        if driving is Gate.FREEZE:
            if self._state(now) is PresenceState.HIDDEN and not speaking:
                self._shown = None  # a picture of who has gone does not stay
            if self._shown is None:
                return self._hide(Gate.DRIVING)
            self._frozen = True
            return Shown(PresenceState.HOLD, face=self._shown, still=True, frozen=True)
        if self._frozen:
            self._frozen = False
            self._begin_return(self._shown, self._config.return_s, now)
        state = self._state(now)
        if state is PresenceState.HIDDEN and speaking:
            state = PresenceState.IDLE
        if state is PresenceState.HIDDEN:
            self._shown, self._idle_since = None, None
            return Shown(state, "absent", still=True)
        face = self._face(state, now)
        self._shown = face
        still = state in (PresenceState.LIVE, PresenceState.HOLD) and self.arrived(now)
        return Shown(state, face=face, still=still)

    def _state(self, now: float) -> PresenceState:
        config = self._config
        present = self.present(now)
        if self._last is None:
            waiting = present is True or (present is None and config.show_idle_at_start)
            return PresenceState.IDLE if waiting else PresenceState.HIDDEN
        gap = now - self._last_time
        # Slow codes are live as well: else the state would flicker.
        live_s = min(max(config.live_s, 2.5 * self._interval), config.hold_s)
        if not self._lost and (gap <= 0 or gap < live_s):
            return PresenceState.LIVE
        if gap < config.hold_s:
            return PresenceState.HOLD
        if gap < config.hold_s + config.decay_s:
            return PresenceState.DECAY
        if present is True:
            return PresenceState.IDLE
        idle_s = 0.0 if present is False else config.idle_s
        idle_for = gap - config.hold_s - config.decay_s
        return PresenceState.IDLE if idle_for < idle_s else PresenceState.HIDDEN

    def _face(self, state: PresenceState, now: float) -> Face:
        config = self._config
        if state is PresenceState.IDLE or self._last is None:
            face = self._idle(self._idle_seconds(now))
        else:
            face = self._last
            if self._interpolate and self._glide is not None:
                face = self._glide.at(now) or face
            if state is PresenceState.DECAY:
                passed = now - self._last_time - config.hold_s
                rest = self._idle(self._idle_seconds(now))
                face = blend_faces(face, rest, smoothstep(passed / config.decay_s))
            else:
                self._idle_since = None
        if self._return_from is not None:
            share = (now - self._return_time) / self._return_s
            if share >= 1:
                self._return_from = None
            else:
                face = blend_faces(self._return_from, face, smoothstep(share))
        return face

    def _idle_seconds(self, now: float) -> float:
        if self._idle_since is None or self._idle_since > now:
            self._idle_since = now
        return now - self._idle_since

    def _ease_in(self, before: PresenceState, now: float) -> None:
        """A code is back: from what is shown now, the longer the gap the slower."""
        config = self._config
        if before is PresenceState.HIDDEN or self._shown is None:
            start, share = self._idle(0.0), 1.0
        else:
            start = self._shown
            gap = now - self._last_time
            share = min(1.0, gap / config.hold_s) if config.hold_s and self._last else 1.0
        if before is not PresenceState.HOLD:
            self._glide = None
        self._begin_return(start, config.return_s * share, now)

    def _begin_return(self, start: Face | None, duration: float, now: float) -> None:
        self._return_from = start if duration > 0 else None
        self._return_time, self._return_s = now, duration

    def _hide(self, gate: Gate) -> Shown:
        self._shown, self._frozen = None, False
        return Shown(PresenceState.HIDDEN, gate.value, still=True)
