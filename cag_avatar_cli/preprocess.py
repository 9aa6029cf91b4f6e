"""``cag-avatar preprocess``."""

from __future__ import annotations

from cag_avatar_training.matting import MatteConfig
from cag_avatar_training.preprocess import PreprocessConfig, preprocess

from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar_cli.options import OutputPath, PathArgument

_MATTE = MatteConfig()
_FIT = FitConfig()


def command(
    video: PathArgument,
    output: OutputPath,
    size: int = 512,
    head_model: str = "anny",
    fit: FitConfig = _FIT,
    matte: MatteConfig = _MATTE,
    irises: bool = True,
    looks: bool = True,
    photometric: bool = True,
    keep_work: bool = False,
) -> None:
    """Make a dataset folder from a video of one head.

    An interrupted run goes on when it is repeated: what it has done lies in OUTPUT.work, which is
    removed at the end.

    Args:
        video: of one person, at least 2 seconds of whose face are seen.
        output: dataset folder to write.
        size: width and height of the dataset's images, pixels.
        head_model: the head model that is fitted: "anny", or one that import-flame made.
        fit: weights of the fit.
        matte: settings of the matte and of the labels of eyes, lips and mouth.
        irises: look for the irises in the pictures; the landmarker hardly sees looks up and down.
        looks: read the pictures of the face, too, to correct the landmarker's errors.
        photometric: align the frames by the pictures themselves, after landmarks and outline.
        keep_work: keep OUTPUT.work: another run repeats only what its settings change.
    """
    config = PreprocessConfig(
        size=size,
        head_model=head_model,
        fit=fit,
        matte=matte,
        irises=irises,
        looks=looks,
        photometric=photometric,
        keep_work=keep_work,
    )
    dataset = preprocess(video, output, config)
    tracking = dataset.info.tracking
    error = tracking["landmark_rmse_interocular"]
    total, missing = tracking["frames_in_video"], tracking["frames_without_face"]
    print(
        f"dataset: {output} ({len(dataset)} of {total} frames, landmark error {100 * error:.2f} % "
        "of the distance between the eyes)"
    )
    if missing:
        shown = ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in missing[:8])
        print(f"without a face, left out: frames {shown}{' ...' if missing[8:] else ''}")
    covered = int((dataset.tracking.reliability[:, 0] < 0.5).sum())
    if covered:
        print(f"mouth covered, not trained on: {covered} frames")
