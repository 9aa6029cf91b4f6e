"""Decides when the avatar is drawn, and as what; knows neither ROS nor pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar_node.driving_gate import DrivingGate
from cag_avatar_node.face_blend import Face
from cag_avatar_node.idle_motion import IdleConfig, IdleMotion
from cag_avatar_node.presence import Gate, Presence, PresenceConfig, PresenceState, Shown
from cag_avatar_node.robot_expression import RobotExpression

__all__ = ["Director", "DrivableAvatar", "RateConfig"]

#: Seconds between looks at the clock while nothing moves: how late a change of state may be seen.
_LOOK_S = 0.04
_LOOK_IDLE_S = 0.1


@dataclass(frozen=True)
class RateConfig:
    """How often pictures are drawn."""

    timer: bool = False
    """At ``rate_hz``, gliding from code to code; else one picture for each message."""
    rate_hz: float = 30.0
    """Pictures a second of the timer, of fades and of blinks."""
    idle_rate_hz: float = 10.0
    """Pictures a second of the resting face; 0: one, without blinks and sway."""

    def __post_init__(self) -> None:
        if not (self.rate_hz > 0 and self.idle_rate_hz >= 0):
            raise InputError("rate_hz must be positive and idle_rate_hz not negative")


class DrivableAvatar(Protocol):
    """What is needed of a loaded avatar."""

    @property
    def rest(self) -> Face:
        """The face at rest."""
        ...

    @property
    def shut(self) -> NDArray[np.float32]:
        """Coefficients of the closed eyes, left and right, [2]."""
        ...

    def express(self, change: NDArray[np.float32]) -> Face:
        """The resting face with an expression [52] added."""
        ...


class Director:
    """Holds the presence, the resting face and the robot's own expression together.

    Used by one thread; time is passed in (seconds, any monotonic clock).

    Args:
        avatar: to begin with.
        presence: times of the states.
        idle: how the resting face moves.
        rates: how often to draw.
        robot: the robot's own expression.
        gate: the vehicle's state.
    """

    def __init__(
        self,
        avatar: DrivableAvatar,
        presence: PresenceConfig,
        idle: IdleConfig,
        rates: RateConfig,
        robot: RobotExpression,
        gate: DrivingGate,
    ) -> None:
        self._avatar: Any = avatar
        self._rates = rates
        self._idle = IdleMotion(idle)
        self._idle_seconds = 0.0
        self._now = 0.0
        self.robot = robot
        self.gate = gate
        self.presence = Presence(presence, self._idle_face, interpolate=rates.timer)
        self.head_moves = True
        self._drawn: Shown | None = None
        self._next_frame = -np.inf
        self._audience = 0

    def set_avatar(self, avatar: DrivableAvatar) -> None:
        """Another avatar from the next picture on."""
        self._avatar, self._drawn = avatar, None

    def look(self, now: float) -> Shown:
        """What is to be seen at a time."""
        self._now = now
        gate = Gate.OPEN
        if not self.gate.open(now):
            gate = Gate.FREEZE if self.gate.policy == "freeze" else Gate.DRIVING
        shown = self.presence.look(now, gate, self.robot.active(now))
        if shown.state is PresenceState.LIVE:
            self.robot.clear()  # the operator speaks for themselves
        elif self.presence.present(now) is True:
            self.robot.dismiss(now)
        return shown

    def express(self, change: NDArray[np.float32], now: float) -> None:
        """The robot means to show an expression (what it adds to a face at rest, float32 [52]); it
        is left out while an operator is there."""
        if not self.presence.occupied(now):
            self.robot.show(change, now)

    def wanted_by_message(self, shown: Shown) -> bool:
        """Whether the message that just came is to be drawn at once."""
        if self._rates.timer or shown.frozen:
            return False
        return shown.state in (PresenceState.LIVE, PresenceState.HOLD, PresenceState.DECAY)

    def wanted_by_clock(self, shown: Shown, now: float, audience: int) -> bool:
        """Whether a picture is due, given the number of those who watch; newcomers see even what
        stands still."""
        grew, self._audience = audience > self._audience, audience
        drawn = self._drawn
        if grew or drawn is None:
            return True
        if shown.face is None or drawn.face is None:
            return (shown.face is None) != (drawn.face is None)
        if self._is_still(shown, now):
            return shown.face is not drawn.face and not self._same_face(shown.face, drawn.face)
        return now >= self._next_frame

    def drew(self, shown: Shown, now: float, *, by_message: bool = False) -> None:
        """A picture was drawn (or would have been, had anybody watched)."""
        self._drawn = shown
        period = self._period(shown, now)
        if by_message:
            # The next message comes before the clock draws in between.
            self._next_frame = now + 1.5 * period
        elif now - self._next_frame > period:
            self._next_frame = now + period
        else:
            self._next_frame += period

    def repeats(self, shown: Shown) -> bool:
        """Whether this is the picture that was drawn last."""
        return self._drawn is not None and shown.face is self._drawn.face

    def due(self, shown: Shown, now: float) -> float:
        """When to look again."""
        if shown.face is None or shown.frozen:
            return now + _LOOK_IDLE_S
        if self._is_still(shown, now):
            return now + (_LOOK_IDLE_S if shown.state is PresenceState.IDLE else _LOOK_S)
        return max(now, min(self._next_frame, now + _LOOK_IDLE_S))

    def _is_still(self, shown: Shown, now: float) -> bool:
        if shown.state is PresenceState.IDLE and self._rates.idle_rate_hz == 0:
            return self.presence.arrived(now) and not self.robot.changing(now)
        return shown.still

    def _period(self, shown: Shown, now: float) -> float:
        calm = shown.state is PresenceState.IDLE and self.presence.arrived(now)
        if not calm or self.robot.changing(now) or self._rates.idle_rate_hz == 0:
            return 1 / self._rates.rate_hz
        slow = 1 / self._rates.idle_rate_hz
        until = self._idle.until_blink(self._idle_seconds)
        return max(1 / self._rates.rate_hz, min(slow, until))

    def _idle_face(self, seconds: float) -> Face:
        now = self._now
        rest: Face = self._avatar.rest
        if self.robot.active(now):
            rest = self._avatar.express(self.robot.at(now))
        if self._rates.idle_rate_hz == 0:
            return rest
        if seconds < self._idle_seconds:
            self._idle.restart()
        self._idle_seconds = seconds
        moved = self._idle.face(rest, seconds, self._avatar.shut)
        return moved if self.head_moves else Face(moved.code, rest.motion)

    @staticmethod
    def _same_face(first: Face, second: Face) -> bool:
        return bool(
            np.array_equal(first.code, second.code) and np.array_equal(first.motion, second.motion)
        )
