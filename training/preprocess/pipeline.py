"""The stages in their order."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cag_avatar_training.dataset import Dataset, DatasetInfo, DatasetWriter, Tracking
from cag_avatar_training.matting import check_networks
from cag_avatar_training.preprocess.config import PreprocessConfig
from cag_avatar_training.preprocess.crop import crop_frames, find_crop
from cag_avatar_training.preprocess.fit import ClipFitter
from cag_avatar_training.preprocess.irises import find_irises
from cag_avatar_training.preprocess.landmarks import find_landmarks, too_short
from cag_avatar_training.preprocess.looks import read_looks
from cag_avatar_training.preprocess.matte import matte_frames
from cag_avatar_training.preprocess.output import write_frames
from cag_avatar_training.preprocess.reliability import find_reliability
from cag_avatar_training.preprocess.torso import follow_torso
from cag_avatar_training.preprocess.workspace import StageStore, Workspace, file_fingerprint
from cag_avatar_training.progress import Advance, StageProgress
from cag_avatar_training.video import probe_video

import cag_avatar
from cag_avatar.errors import InputError
from cag_avatar.head_models import load_head_model
from cag_avatar.tracking.clip_fit import Observations
from cag_avatar.tracking.face_landmarker import find_landmarker_model
from cag_avatar.tracking.irises import with_irises
from cag_avatar.tracking.landmark_correction import correction_path

__all__ = ["preprocess", "work_folder"]

_LOG = logging.getLogger(__name__)

#: Note in the dataset on how its images are composited.
_BACKGROUND = "foreground colours where alpha < 1; composite with alpha over any colour"


def work_folder(out: Path | str) -> Path:
    """Where the stages of an unfinished dataset keep their results: DIR.work beside it."""
    out = Path(out)
    return out.with_name(out.name + ".work")


class _Stages:
    """Opens stages: their stores, their progress and the log's word on going on."""

    def __init__(self, work: Workspace, progress: StageProgress) -> None:
        self._work = work
        self._progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def open(
        self,
        name: str,
        depends: tuple[str, ...],
        settings: Any,
        total: int | None,
        needs: str | None = None,
    ) -> Iterator[tuple[StageStore, Advance]]:
        store = self._work.stage(name, depends, settings, needs)
        if store.whole:
            _LOG.info("%s: done before", name)
        elif store.done:
            _LOG.info("%s: goes on at frame %d", name, store.done)
        with self._progress.stage(name, total) as advance:
            yield store, advance
        self.seconds[name] = round(store.seconds, 2)


def preprocess(
    video: Path | str, out: Path | str, config: PreprocessConfig | None = None
) -> Dataset:
    """Make a dataset folder from a video of one head.

    Frames without a face are left out. Nothing is at ``out`` unless the whole succeeds. The stages
    keep what they have done in a folder beside it (:func:`work_folder`, about 1.8 MB a frame at
    512 x 512): a run that was interrupted goes on there when it is repeated, and gives the same
    result. A changed setting repeats only the stages that depend on it.

    Args:
        video: file that FFmpeg reads.
        out: dataset folder to write; a dataset already there is replaced.
        config: settings.

    Raises:
        InputError: not a video, too short, no face, two faces, a frame size that changes.
    """
    settings = config or PreprocessConfig()
    check_networks(settings.matte)
    out = Path(out)
    info = probe_video(video)
    if 0 < info.frames < settings.min_seconds * info.fps:
        raise too_short(info, info.frames / info.fps, settings)
    model = load_head_model(settings.head_model)
    DatasetWriter.check_target(out)
    landmarker = find_landmarker_model(settings.landmarker)
    source = {"video": file_fingerprint(info.path), "landmarker": file_fingerprint(landmarker)}
    with (
        Workspace.open(work_folder(out)) as work,
        ExitStack() as resources,
        StageProgress(settings.progress) as progress,
    ):
        stages = _Stages(work, progress)
        try:
            with stages.open("landmarks", (), source, info.frames or None) as (stage, advance):
                found = find_landmarks(info, settings, stage, advance)
        except InputError:
            work.remove()  # the video is of no use: there is nothing to go on with
            raise
        count = len(found.frames)
        crop = find_crop(found.landmarks, info, settings.size)
        landmarks = crop.landmarks(found.landmarks)
        with stages.open("crop", (stage.key,), settings.size, count) as (stage, advance):
            images, own = crop_frames(info, found, crop, stage, advance, resources)
        crop_key, fit_key, irises = stage.key, stage.key, None
        if settings.irises:
            with stages.open("irises", (crop_key,), None, count) as (stage, advance):
                irises = find_irises(images.__getitem__, landmarks, stage, advance)
            fit_key = stage.key
        looks = None
        known = correction_path(model.name, pictures=True).is_file()
        if known and settings.looks and settings.fit.correction != "none":
            with stages.open("looks", (crop_key,), settings.head_model, count) as (stage, advance):
                looks = read_looks(images.__getitem__, landmarks, model.name, stage, advance)
        fitter = ClipFitter(
            model,
            Observations(landmarks, found.scores, found.colors, looks, irises),
            settings.size,
            crop.centre(info),
            settings.fit,
        )
        model_settings = [settings.head_model, settings.fit, settings.looks]
        with stages.open("fit", (fit_key,), model_settings, None) as (stage, _):
            fit = fitter.to_landmarks(stage)
        landmarks_only = fit.landmark_rmse()
        with stages.open("matte", (stage.key,), settings.matte, count) as (stage, advance):
            alphas = matte_frames(
                images, own, count, fit, settings.matte, stage, advance, resources
            )
        steps = fitter.outline_steps(count)
        with stages.open("outline", (stage.key,), None, steps) as (stage, advance):
            fit = fitter.to_outline(stage, fit, alphas, advance)
        outline = stage
        if settings.photometric:
            alignment = settings.alignment
            steps = count * len(alignment.blurs)
            with stages.open("photometric", (stage.key,), alignment, steps) as (stage, advance):
                fit = fitter.to_pictures(stage, outline, fit, images, alignment, advance)
        fit = fit.steadied(found.segments(), settings.steady)
        if settings.irises:
            fit = fit.with_conjugate_gaze()
        with stages.open("torso", (stage.key,), settings.steady, count) as (stage, advance):
            torso, labels = follow_torso(fit, images, alphas, stage, advance, resources)
        torso_key = stage.key
        with stages.open("reliability", (crop_key,), None, count) as (stage, advance):
            reliability = find_reliability(images.__getitem__, landmarks, stage, advance)
        depends = (torso_key, stage.key)
        with stages.open("write", depends, settings.matte, count, "dataset") as (stage, advance):
            folder = stage.folder / "dataset"
            with DatasetWriter.resume(out, folder, stage.done) as writer:
                write_frames(
                    writer, images, alphas, own is not None, landmarks, labels, settings.matte,
                    stage, advance,
                )  # fmt: skip
                figures = {
                    "landmark_rmse_interocular": round(fit.landmark_rmse(), 5),
                    "landmark_rmse_before_outline": round(landmarks_only, 5),
                    "frames_in_video": len(found.times),
                    "frames_with_face": count,
                    "frames_without_face": found.without_face(),
                    "irises_in_pictures": irises is not None,
                    "seconds": stages.seconds,
                }
                writer.finish(
                    DatasetInfo(
                        camera=fit.camera,
                        fps=info.fps,
                        source=info.path.name,
                        head_model=model.name,
                        code_names=model.expression_names,
                        crop={"x": crop.x, "y": crop.y, "size": crop.side},
                        background=_BACKGROUND,
                        tool_version=cag_avatar.__version__,
                        tracking=figures,
                    ),
                    Tracking(
                        identity=fit.identity.numpy(),
                        vertex_offsets=fit.offsets.numpy(),
                        codes=fit.state.code.numpy(),
                        head_pose=fit.state.head_pose().numpy(),
                        torso_pose=torso,
                        landmarks=landmarks if irises is None else with_irises(landmarks, irises),
                        timestamps=found.times[found.frames],
                        source_frames=found.frames,
                        reliability=reliability,
                        scores=found.scores,
                    ),
                )
        if not settings.keep_work:
            work.remove()
    return Dataset.open(out)
