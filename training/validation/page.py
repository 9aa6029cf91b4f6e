"""The page that shows a dataset and what is wrong with it: one file, nothing fetched."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cag_avatar_training.report import PAGE_STYLE
from cag_avatar_training.validation.charts import angle_map, bar_rows, curve, strip
from cag_avatar_training.validation.coverage import name_coverage
from cag_avatar_training.validation.evidence import Evidence
from cag_avatar_training.validation.findings import Finding, counted, frames_in_words
from cag_avatar_training.validation.placement import landmark_errors
from cag_avatar_training.validation.validate import ValidationResult

from cag_avatar.files import replacing

__all__ = ["EmbeddedVideo", "write_page"]

_STYLE = """
.finding{border-left:6px solid #94a3b8;background:#f5f7fa;padding:.5rem .9rem;margin:.5rem 0;
border-radius:4px} .error{border-color:#c0262d} .warning{border-color:#d98a00}
.finding b{text-transform:uppercase;font-size:11px;letter-spacing:.05em;margin-right:.5em}
.error b{color:#c0262d} .warning b{color:#a66a00} .finding p{margin:.15rem 0}
.finding small{color:#5a6475} a[data-frame]{color:#2f6fed;cursor:pointer}
video{width:480px;max-width:100%;border-radius:6px;background:#000}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));gap:8px}
figure{margin:0} figcaption{font-size:11px;color:#5a6475;height:17px}
output{color:#1c2330;font-weight:600} svg.time{width:100%;height:54px;cursor:crosshair}
polyline{fill:none;stroke:#2f6fed;stroke-width:1.2;vector-effect:non-scaling-stroke}
.cursor{stroke:#c0262d;stroke-width:1;vector-effect:non-scaling-stroke}
.level{stroke:#94a3b8;stroke-dasharray:4 3;vector-effect:non-scaling-stroke}
svg text{font-size:11px;fill:#5a6475} .strip{display:flex;align-items:center;gap:8px}
.strip span{width:90px;font-size:12px} .strip svg{height:16px!important}
"""

#: Pointer over a curve: its value; click: the video goes there. Playing moves the red lines.
_SCRIPT = """
const video=document.querySelector('video'),charts=[...document.querySelectorAll('svg.time')];
const data=charts.map(c=>c.dataset.values?Uint8Array.from(atob(c.dataset.values),
 x=>x.charCodeAt(0)):null);
function show(frame){
 document.getElementById('frame').textContent='frame '+frame;
 charts.forEach((c,i)=>{
  const x=frame/Math.max(1,page.frames-1)*c.viewBox.baseVal.width,l=c.querySelector('.cursor');
  l.setAttribute('x1',x);l.setAttribute('x2',x);
  if(data[i]){const low=+c.dataset.low,high=+c.dataset.high;
   c.closest('figure').querySelector('output').textContent=
    (low+data[i][frame]/255*(high-low)).toFixed(high-low>20?1:2)+c.dataset.unit;}
 });
}
function go(frame){
 show(frame);
 if(video)video.currentTime=(Math.floor(frame/page.step)+.5)/page.rate;
}
function at(chart,event){
 const box=chart.getBoundingClientRect();
 const part=Math.min(1,Math.max(0,(event.clientX-box.left)/box.width));
 return Math.round(part*(page.frames-1));
}
charts.forEach(c=>{
 c.addEventListener('mousemove',e=>show(at(c,e)));
 c.addEventListener('click',e=>go(at(c,e)));
});
document.querySelectorAll('a[data-frame]').forEach(a=>
 a.addEventListener('click',()=>go(+a.dataset.frame)));
if(video){
 const follow=()=>{
  show(Math.min(page.frames-1,Math.floor(video.currentTime*page.rate)*page.step));
  if(!video.paused)requestAnimationFrame(follow);
 };
 video.addEventListener('play',follow);video.addEventListener('seeked',follow);
}
"""

_NAMES = {"error": "error", "warning": "warning", "note": "note"}


@dataclass(frozen=True)
class EmbeddedVideo:
    """The overlay video."""

    path: Path
    step: int
    """Every so many frames one is shown."""
    rate: float
    """Its frames per second."""


def write_page(
    path: Path | str, title: str, result: ValidationResult, video: EmbeddedVideo | None = None
) -> Path:
    """Write the page.

    Args:
        path: file to write.
        title: heading.
        result: what validate() returned.
        video: embedded in the page.
    """
    evidence = result.evidence
    heading = html.escape(title)
    sections = [
        _summary(result),
        _overlay(video),
        _over_time(evidence),
        "<h2>Where the head turned</h2><p>Frames by yaw (across; to the right: to the subject's "
        "left) and pitch (down: down), degrees. Empty cells are views that an avatar has not "
        f"seen.</p>{angle_map(evidence.angles[:, 1], evidence.angles[:, 0])}",
        _coverage(result),
        _curves(evidence),
    ]
    values = {
        "frames": len(evidence),
        "step": video.step if video else 1,
        "rate": video.rate if video else evidence.info.fps,
    }
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{heading}</title>'
        f"<style>{PAGE_STYLE}{_STYLE}</style><h1>{heading}</h1>{''.join(sections)}"
        f"<script>const page={json.dumps(values)};{_SCRIPT}</script></html>"
    )
    with replacing(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def _summary(result: ValidationResult) -> str:
    evidence = result.evidence
    camera = evidence.info.camera
    verdict = f"{counted(result.errors, 'error')}, {counted(result.warnings, 'warning')}"
    if result.errors == result.warnings == 0:
        verdict = "Nothing is wrong with this dataset."
    lead = (
        f'<p class="lead">{html.escape(evidence.info.source)}: {len(evidence)} frames, '
        f"{camera.width} x {camera.height}, {evidence.info.fps:g} frames/s, head model "
        f"{html.escape(evidence.info.head_model)}</p><h2>{verdict}</h2>"
    )
    skipped = "".join(
        f"<li>{html.escape(n.check)}: {html.escape(n.why)}</li>" for n in result.not_checked
    )
    skipped = f"<p>Not checked:</p><ul>{skipped}</ul>" if skipped else ""
    return lead + "".join(_finding(f) for f in result.findings) + skipped


def _finding(finding: Finding) -> str:
    words = html.escape(frames_in_words(finding.frames))
    if finding.frames:
        words = f'<a data-frame="{finding.frames[0][0]}">{words}</a>'
    what = html.escape(finding.what[:1].upper() + finding.what[1:])
    advice = html.escape(finding.advice[:1].upper() + finding.advice[1:])
    return (
        f'<div class="finding {finding.severity}"><p><b>{_NAMES[finding.severity]}</b>{what}.</p>'
        f"<p>{advice}.</p><small>{html.escape(finding.check)}: {words}</small></div>"
    )


def _overlay(video: EmbeddedVideo | None) -> str:
    if video is None:
        return '<p id="frame"></p>'
    data = base64.b64encode(video.path.read_bytes()).decode()
    every = "" if video.step == 1 else f" 1 in {video.step} frames is shown."
    return (
        "<h2>Overlay</h2><p>Outlines of the fitted mesh: head blue, mouth pink, the subject's left "
        f"eye green, right eye orange; landmarks yellow.{every} Click on a curve or on frame "
        f'numbers to go there. <b id="frame"></b></p><video controls muted loop src="data:video/mp4'
        f';base64,{data}"></video>'
    )


def _over_time(evidence: Evidence) -> str:
    figures = [
        curve("yaw (to the subject's left), degrees", evidence.angles[:, 1], -45, 45, 0),
        curve("pitch (down), degrees", evidence.angles[:, 0], -30, 30, 0),
        curve("roll, degrees", evidence.angles[:, 2], -30, 30, 0),
        curve("sharpness", evidence.sharpness, 0, max(0.05, float(evidence.sharpness.max()))),
    ]
    errors = landmark_errors(evidence)
    if errors is not None:
        figures.insert(
            3, curve("landmark error, % of the eye distance", 100 * errors, 0, 10, unit=" %")
        )
    strips = ""
    reliability = getattr(evidence.tracking, "reliability", None)
    if reliability is not None:
        rows = np.asarray(reliability, np.float64)
        strips = "<h3>Reliability</h3><p>Green: seen, red: covered.</p>" + "".join(
            strip(name, rows[:, i]) for i, name in enumerate(("mouth", "left eye", "right eye"))
        )
    elif evidence.landmarks is not None:
        strips = "<h3>Face found</h3>" + strip("landmarks", evidence.seen.astype(np.float64))
    return f"<h2>Over time</h2><div class='grid'>{''.join(figures)}</div>{strips}"


def _coverage(result: ValidationResult) -> str:
    reached = result.config.range_reached
    entries = name_coverage(result.evidence, result.config)
    rows: Sequence[tuple[str, float, float]] = [(e.name, e.maximum, e.shown) for e in entries]
    return (
        f"<h2>How much of each coefficient occurs</h2><p>Light: largest value; dark and the number:"
        f" share of frames above {reached:g}; orange: never reached.</p>{bar_rows(rows, reached)}"
    )


def _curves(evidence: Evidence) -> str:
    codes = evidence.tracking.codes.astype(np.float64)
    arkit = evidence.arkit
    low, high = (0.0, 1.0) if arkit else (float(codes.min()), float(codes.max()))
    figures = "".join(
        curve(name, codes[:, i], low, high) for i, name in enumerate(evidence.info.code_names)
    )
    return f"<h2>Expression code over time</h2><div class='grid'>{figures}</div>"
