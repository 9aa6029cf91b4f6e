"""All checks on a dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cag_avatar_training.dataset import Dataset
from cag_avatar_training.validation.config import ValidationConfig
from cag_avatar_training.validation.coverage import angle_span, check_range, name_coverage
from cag_avatar_training.validation.evidence import Evidence, FrameSink, gather
from cag_avatar_training.validation.expression import (
    check_code_range,
    check_frozen,
    check_jaw,
    check_repeats,
)
from cag_avatar_training.validation.findings import Finding, NotChecked
from cag_avatar_training.validation.pictures import (
    check_border,
    check_covered,
    check_light,
    check_matte,
    check_sharpness,
)
from cag_avatar_training.validation.placement import (
    check_camera,
    check_drift,
    check_jumps,
    check_poses,
    check_reprojection,
)
from cag_avatar_training.validation.sides import check_sides
from cag_avatar_training.validation.timing import check_order, check_shift, check_timestamps

from cag_avatar.head_models import HeadModel, load_head_model

__all__ = ["ValidationResult", "judge", "validate"]

Check = Callable[[Evidence, ValidationConfig], "list[Finding | NotChecked]"]

_CHECKS: tuple[Check, ...] = (
    check_order,
    check_shift,
    check_sides,
    check_jaw,
    check_camera,
    check_matte,
    check_frozen,
    check_repeats,
    check_code_range,
    check_poses,
    check_jumps,
    check_drift,
    check_reprojection,
    check_timestamps,
    check_range,
    check_sharpness,
    check_light,
    check_border,
    check_covered,
)

#: What an error brings along: these faults are then not reported as ones of their own.
_CONSEQUENCES: dict[str, tuple[str, ...]] = {
    "poses": ("wrong-order", "shifted", "camera", "matte-holes", "drift", "reprojection",
              "pose-jumps", "sides", "cut"),
    "code-range": ("wrong-order", "shifted", "sides", "missing-jaw", "camera", "matte-holes",
                   "drift", "reprojection", "pose-jumps", "cut", "blur", "light"),
    "wrong-order": ("shifted", "sides", "missing-jaw", "camera", "matte-holes", "matte-flicker",
                    "drift", "reprojection", "pose-jumps", "frozen"),
    "sides": ("camera", "matte-holes", "drift", "reprojection", "missing-jaw", "pose-jumps"),
    "shifted": ("sides", "drift", "reprojection", "pose-jumps", "matte-holes", "missing-jaw"),
    "camera": ("reprojection", "drift", "matte-holes"),
    "frozen": ("missing-jaw", "reprojection", "range"),
    "missing-jaw": ("reprojection", "range"),
}  # fmt: skip
_ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class ValidationResult:
    """What was found."""

    findings: tuple[Finding, ...]
    """Errors first."""
    not_checked: tuple[NotChecked, ...]
    evidence: Evidence
    config: ValidationConfig

    @property
    def errors(self) -> int:
        """Number of errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """Number of warnings."""
        return sum(finding.severity == "warning" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        evidence = self.evidence
        spans = {
            name: angle_span(evidence.angles[:, i])
            for i, name in enumerate(("pitch", "yaw", "roll"))
        }
        return {
            "errors": self.errors,
            "warnings": self.warnings,
            "findings": [finding.to_dict() for finding in self.findings],
            "not_checked": [vars(entry) for entry in self.not_checked],
            "frames": len(evidence),
            "angles_degrees": {
                name: [round(s.low, 2), round(s.high, 2)] for name, s in spans.items()
            },
            "coverage": {
                entry.name: {"max": round(entry.maximum, 4), "shown": round(entry.shown, 4)}
                for entry in name_coverage(evidence, self.config)
            },
        }


def judge(evidence: Evidence, config: ValidationConfig) -> ValidationResult:
    """Run every check on measurements that are already there."""
    findings: list[Finding] = []
    skipped: list[NotChecked] = []
    for check in _CHECKS:
        for entry in check(evidence, config):
            if isinstance(entry, Finding):
                findings.append(entry)
            else:
                skipped.append(entry)
    findings = _without_consequences(findings)
    findings.sort(key=lambda f: _ORDER[f.severity])
    return ValidationResult(tuple(findings), tuple(skipped), evidence, config)


def _without_consequences(findings: list[Finding]) -> list[Finding]:
    """Turn what another error explains into notes; a cause is never explained by its effect."""
    causes = [f.check for f in findings if f.severity == "error"]
    out = []
    for finding in findings:
        because = next(
            (
                cause
                for cause in _CONSEQUENCES
                if cause in causes
                and finding.check in _CONSEQUENCES[cause]
                and (finding.check != "range" or _explains_range(cause, finding))
            ),
            None,
        )
        if because is None:
            out.append(finding)
        else:
            what = f"{finding.what} (probably a consequence of the error '{because}')"
            out.append(replace(finding, severity="note", what=what))
    return out


def _explains_range(cause: str, finding: Finding) -> bool:
    """Whether an expression does not occur because of the fault."""
    return "jawOpen" in finding.what if cause == "missing-jaw" else "reached" in finding.what


def validate(
    dataset: Dataset,
    config: ValidationConfig | None = None,
    model: HeadModel | None = None,
    sink: FrameSink | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ValidationResult:
    """Say what is wrong with a dataset.

    Args:
        dataset: opened dataset.
        config: thresholds.
        model: head model of the dataset; by default the bundled one of that name.
        sink: gets every frame (for the overlay video).
        progress: called with (frames done, frames in all).

    Raises:
        InputError: a picture cannot be read, or the head model is unknown or does not fit.
    """
    settings = config or ValidationConfig()
    head = model or load_head_model(dataset.info.head_model)
    return judge(gather(dataset, head, settings, sink, progress), settings)
