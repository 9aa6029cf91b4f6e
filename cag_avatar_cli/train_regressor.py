"""``cag-avatar train-regressor``."""

from __future__ import annotations

from dataclasses import replace

from cag_avatar_training.dataset import Dataset
from cag_avatar_training.progress import bar
from cag_avatar_training.regressor.learning import train_regressor
from cag_avatar_training.regressor.readings import read_faces

from cag_avatar.avatar.code_distribution import CodeDistribution
from cag_avatar.avatar.driver import CodeLayout, resting_code
from cag_avatar.avatar.file import load_avatar, save_avatar
from cag_avatar.errors import InputError
from cag_avatar_cli.options import OptionalOutputPath, PathArgument


def command(avatar: PathArgument, dataset: PathArgument, output: OptionalOutputPath = None) -> None:
    """Give an avatar the network that tells its person's code from MediaPipe's output.

    Training does that by itself where the dataset keeps MediaPipe's scores; this is for avatars and
    datasets from before. It learns from the training frames alone, as tracked, and also notes how
    their codes lie if the avatar does not know.

    Args:
        avatar: *.cag file.
        dataset: folder that it was trained on.
        output: *.cag file to write; by default the avatar itself.
    """
    opened, made = Dataset.open(dataset), load_avatar(avatar)
    if made.record is None:
        raise InputError(f"{avatar}: has no capture record; train it again")
    split = made.record.protocol.get("split", "last")
    if opened.info.code_names != made.expression_names:
        raise InputError(f"{dataset}: was made for another head model than the avatar")
    source = made.record.protocol.get("source", opened.info.source)
    if source != opened.info.source:
        raise InputError(
            f"{dataset}: is of {opened.info.source}, the avatar was made from {source}"
        )
    frames = opened.split(split)[0]
    codes = opened.tracking.codes
    with bar("faces") as progress:
        readings = read_faces(opened, frames, progress)
    with bar("regressor") as progress:
        regressor = train_regressor(opened, readings, codes[readings.frames], show=progress)
    distribution = made.record.distribution
    if distribution is None:
        seen = codes[frames]
        distribution = CodeDistribution.of(seen, resting_code(seen, CodeLayout.of(made.head)))
    made.record = replace(made.record, regressor=regressor, distribution=distribution)
    save_avatar(output or avatar, made)
    print(f"avatar: {output or avatar} (regressor: {regressor.protocol})")
