"""What the capture shows of the person, and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from cag_avatar_training.validation.config import ValidationConfig
from cag_avatar_training.validation.evidence import Evidence, Floats
from cag_avatar_training.validation.findings import Finding, NotChecked

__all__ = ["AngleSpan", "NameCoverage", "angle_span", "check_range", "name_coverage"]


@dataclass(frozen=True)
class NameCoverage:
    """How much of one coefficient occurs."""

    name: str
    maximum: float
    shown: float
    """Share of frames above ``range_reached``."""


@dataclass(frozen=True)
class AngleSpan:
    """Where an angle of the head lies in 96 % of the frames, degrees."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """Degrees."""
        return self.high - self.low


def name_coverage(evidence: Evidence, config: ValidationConfig) -> list[NameCoverage]:
    """Coverage of every coefficient, in the order of the code."""
    codes = evidence.tracking.codes
    return [
        NameCoverage(
            name, float(codes[:, i].max()), float((codes[:, i] > config.range_reached).mean())
        )
        for i, name in enumerate(evidence.info.code_names)
    ]


def angle_span(values: Floats) -> AngleSpan:
    """Span of an angle over time, [T] degrees."""
    low, high = np.percentile(values, [2, 98])
    return AngleSpan(float(low), float(high))


@dataclass(frozen=True)
class _Expression:
    """An expression that an avatar needs to have seen."""

    names: tuple[str, ...]
    """Coefficients that must be reached together (their mean)."""
    sentence: str
    advice: str


_EXPRESSIONS = (
    _Expression(
        ("mouthSmileLeft", "mouthSmileRight"),
        "nobody smiled in this capture",
        "smile broadly once or twice, mouth closed and with teeth",
    ),
    _Expression(
        ("jawOpen",),
        "the mouth never opened wide",
        "open the mouth wide, and say a long 'aah'",
    ),
    _Expression(
        ("browInnerUp",),
        "the brows were never raised",
        "raise the brows, as if surprised",
    ),
    _Expression(
        ("browDownLeft", "browDownRight"),
        "nobody frowned in this capture",
        "pull the brows together, as if cross",
    ),
)


def check_range(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Expressions and views that never occur."""
    findings: list[Finding | NotChecked] = []
    if evidence.arkit:
        findings += _expressions(evidence, config)
    else:
        findings.append(NotChecked("range", "of expressions: needs ARKit names"))
    for column, least, word, advice in (
        (1, config.yaw_range, "turned (yaw", "turn the head slowly to both sides"),
        (0, config.pitch_range, "nodded (pitch", "look up and down slowly, moving the head"),
    ):
        span = angle_span(evidence.angles[:, column])
        if span.width < least:
            findings.append(
                Finding(
                    "range",
                    "warning",
                    f"the head hardly {word} {span.low:.0f} to {span.high:.0f} degrees)",
                    f"{advice}: an avatar shows holes and smears from sides it has not seen",
                )
            )
    return findings


def _expressions(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    findings: list[Finding | NotChecked] = []

    def together(names: tuple[str, ...], figure: Callable[[Floats], float]) -> float:
        return figure(np.mean([evidence.code(name) for name in names], axis=0))

    for entry in _EXPRESSIONS:
        reached = together(entry.names, lambda values: float(np.percentile(values, 99)))
        if reached < config.range_reached:
            findings.append(_missing(entry.sentence, entry.names, reached, entry.advice))
    lids = ("eyeBlinkLeft", "eyeBlinkRight")
    # A blink lasts a few frames: a percentile over a long clip would miss it.
    reached = together(lids, lambda values: float(values.max()))
    if reached < config.blink_reached:
        findings.append(
            _missing("nobody blinked in this capture", lids, reached, "blink now and then")
        )
    lips = max(
        together((name,), lambda values: float(np.percentile(values, 99)))
        for name in ("mouthPucker", "mouthFunnel")
    )
    if lips < config.range_reached:
        findings.append(
            _missing("the lips were never rounded", ("mouthPucker", "mouthFunnel"), lips,
                     "say 'oh' and 'oo'", "note")
        )  # fmt: skip
    return findings


def _missing(
    sentence: str, names: tuple[str, ...], reached: float, advice: str, severity: str = "warning"
) -> Finding:
    return Finding(
        "range",
        severity,  # type: ignore[arg-type]
        f"{sentence} ({' and '.join(names)} reached {reached:.2f} of 1)",
        f"{advice}: the avatar cannot show what it has not seen",
    )
