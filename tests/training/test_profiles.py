from __future__ import annotations

import typing

import pytest
from cag_avatar_training.config import TrainConfig
from cag_avatar_training.profiles import Profile, profile_config

from cag_avatar.errors import InputError
from cag_avatar_cli.train import training_config


def test_standard_is_the_default() -> None:
    assert profile_config("standard") == TrainConfig()


@pytest.mark.parametrize("name", typing.get_args(Profile))
def test_every_profile_is_valid_and_says_its_name(name: Profile) -> None:
    assert profile_config(name).profile == name
    assert profile_config(name).to_dict()["profile"] == name


def test_paper_has_its_sizes_and_schedule() -> None:
    paper = profile_config("paper")
    assert paper.iterations == 15_000
    assert (paper.avatar.uv_resolution, paper.avatar.density) == (128, {})
    assert (paper.avatar.width, paper.avatar.depth) == (256, 6)
    assert paper.avatar.max_color == 0
    assert (paper.avatar.attention, paper.avatar.local_numbers) == ("softmax", 0)
    assert (paper.loss.perceptual_weight, paper.loss.perceptual_from) == (0.05, 1.0)
    assert paper.refinements() == []


def test_quick_does_less() -> None:
    quick, standard = profile_config("quick"), profile_config("standard")
    assert quick.iterations < standard.iterations
    assert len(quick.refinements()) <= len(standard.refinements())


def test_single_options_override_the_profile() -> None:
    plain = training_config("quick", None, None, 0, "last", "cpu")
    assert plain.iterations == profile_config("quick").iterations
    assert plain.avatar == profile_config("quick").avatar
    changed = training_config("quick", "concat", 7, 3, "blocks", "cpu")
    assert (changed.iterations, changed.avatar.fusion) == (7, "concat")
    assert (changed.seed, changed.split, changed.backend) == (3, "blocks", "cpu")
    assert changed.sizes == plain.sizes


def test_unknown_profile() -> None:
    with pytest.raises(InputError, match="profile: unknown 'fast'"):
        profile_config("fast")  # type: ignore[arg-type]
