"""Mattes and pictures."""

from __future__ import annotations

import numpy as np
from cag_avatar_training.validation.config import ValidationConfig
from cag_avatar_training.validation.evidence import Evidence
from cag_avatar_training.validation.findings import Finding, NotChecked, counted, frame_ranges

__all__ = ["check_border", "check_covered", "check_light", "check_matte", "check_sharpness"]

#: Matte that comes and goes in a single frame, pixels at 256: a flash, however steady the rest.
_FLASH = 5.0


def check_matte(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Holes, islands, flicker."""
    findings: list[Finding | NotChecked] = []
    total = len(evidence)
    holes = np.flatnonzero(evidence.hole > config.hole)
    if len(holes):
        findings.append(
            Finding(
                "matte-holes",
                "error" if len(holes) > config.hole_frames * total else "warning",
                f"the matte has holes in the head in {counted(len(holes), 'frame')} (up to "
                f"{100 * evidence.hole.max():.1f} % of it)",
                "background would be trained into the face: make the matte again, or leave these "
                "frames out",
                frame_ranges(holes, join=3),
            )
        )
    islands = np.flatnonzero(evidence.island > config.island)
    if len(islands):
        findings.append(
            Finding(
                "matte-islands",
                "warning",
                f"in {counted(len(islands), 'frame')} the matte keeps something apart from the "
                f"person (up to {100 * evidence.island.max():.1f} % of the person's area)",
                "clear what stands behind the person, or make the matte again",
                frame_ranges(islands, join=3),
            )
        )
    flicker = float(evidence.toggled.mean())
    flashes = np.flatnonzero(evidence.toggled > _FLASH)
    if flicker > config.flicker or len(flashes):
        findings.append(
            Finding(
                "matte-flicker",
                "warning",
                f"the matte flickers: along the outline {flicker:.2f} pixels come and go from "
                f"frame to frame (at worst {evidence.toggled.max():.1f})",
                "a steadier light and a plain background help; make the matte again",
                frame_ranges(flashes) if flicker <= config.flicker else (),
            )
        )
    return findings


def check_sharpness(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Pictures out of focus or blurred by motion."""
    usual = float(np.median(evidence.sharpness))
    if usual < config.soft:
        return [
            Finding(
                "blur",
                "warning",
                f"the whole clip is out of focus: fine detail of the face has a contrast of "
                f"{100 * usual:.2f} %",
                "focus on the face, clean the lens, use more light",
            )
        ]
    blurred = np.flatnonzero(evidence.sharpness < config.blurred * usual)
    if len(blurred) == 0:
        return []
    share = len(blurred) / len(evidence)
    return [
        Finding(
            "blur",
            "warning" if share > config.blurred_frames else "note",
            f"{counted(len(blurred), 'frame')} ({100 * share:.0f} %) are blurred",
            "move more slowly or use more light (a shorter exposure); leave these frames out",
            frame_ranges(blurred, join=3),
        )
    ]


def check_light(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Faces burnt out or in the dark."""
    findings: list[Finding | NotChecked] = []
    burnt = np.flatnonzero(evidence.overexposed > config.overexposed)
    if len(burnt) > 0.1 * len(evidence):
        findings.append(
            Finding(
                "light",
                "warning",
                f"in {counted(len(burnt), 'frame')} parts of the face are burnt out (up to "
                f"{100 * evidence.overexposed.max():.0f} % of it at full white)",
                "lower the exposure or move the lamp",
                frame_ranges(burnt, join=3),
            )
        )
    usual = float(np.median(evidence.brightness))
    if usual < config.dark:
        findings.append(
            Finding(
                "light",
                "warning",
                f"the face is dark: its mean brightness is {100 * usual:.0f} % of white",
                "use more light",
            )
        )
    return findings


def check_border(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Heads that the picture's border cuts."""
    cut = np.flatnonzero(evidence.cut > config.cut)
    share = len(cut) / len(evidence)
    if share <= config.cut_frames:
        return []
    return [
        Finding(
            "cut",
            "warning",
            f"the border cuts the head in {counted(len(cut), 'frame')} ({100 * share:.0f} %; "
            f"at worst {100 * evidence.cut.max():.0f} % of it is outside)",
            "keep the whole head in the picture, with room to move",
            frame_ranges(cut, join=3),
        )
    ]


def check_covered(evidence: Evidence, config: ValidationConfig) -> list[Finding | NotChecked]:
    """Mouth or eyes behind a hand, as the dataset's own reliability says."""
    reliability = getattr(evidence.tracking, "reliability", None)
    if reliability is None:
        return [NotChecked("covered", "the dataset does not say how reliable mouth and eyes are")]
    findings: list[Finding | NotChecked] = []
    for column, name in enumerate(("mouth", "left eye", "right eye")):
        frames = np.flatnonzero(np.asarray(reliability)[:, column] < config.covered)
        share = len(frames) / len(evidence)
        if len(frames) == 0:
            continue
        findings.append(
            Finding(
                "covered",
                "warning" if share > config.covered_frames else "note",
                f"the {name} is covered in {counted(len(frames), 'frame')} ({100 * share:.0f} %)",
                "they are not trained on there; record again if they are many",
                frame_ranges(frames, join=3),
            )
        )
    return findings
