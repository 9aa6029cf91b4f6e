from __future__ import annotations

import dataclasses

import pytest
import torch
from cag_avatar_training.config import (
    LearningRates,
    LossConfig,
    RefinementConfig,
    TrainConfig,
)
from cag_avatar_training.local_smoothing import surface_neighbours
from cag_avatar_training.losses import photometric_loss
from cag_avatar_training.trainer import Trainer, train

from cag_avatar.avatar.file import load_avatar
from cag_avatar.errors import InputError
from tests.conftest import TINY_SIZE, tiny_config


def config(**changes) -> TrainConfig:
    values = {
        "avatar": tiny_config(),
        "iterations": 12,
        "sizes": ((0.0, TINY_SIZE // 2), (0.5, TINY_SIZE)),
        "loss": LossConfig(perceptual_from=0.5, perceptual_every=3, perceptual_crop=64),
        "refinement": RefinementConfig(at=(0.25,), steps=2, size=TINY_SIZE // 2),
        "backend": "cpu",
    }
    return TrainConfig(**(values | changes))


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.avatar.named_parameters()}


def test_one_frame_is_learned(tiny_dataset):
    trainer = Trainer(
        tiny_dataset,
        config(
            iterations=60,
            sizes=((0.0, TINY_SIZE),),
            refinement=RefinementConfig(at=()),
            loss=LossConfig(perceptual_weight=0),
            rates=LearningRates(color_base=0.1),
        ),
    )
    trainer.frames = [5]
    losses = [trainer.step() for _ in range(60)]
    assert sum(losses[-5:]) < 0.25 * sum(losses[:5])


def test_own_matrices_are_drawn_to_their_neighbours(tiny_dataset):
    """Smoothed at the rate that the matrices learn with, which falls."""
    given: list[float] = []
    rough = {}
    for strength in (0.0, 200.0):
        trainer = Trainer(tiny_dataset, config(local_smoothing=strength))
        if trainer.smoothing is not None:
            smooth = trainer.smoothing.after_step

            def record(iteration: int, rate: float, smooth=smooth) -> None:
                given.append(rate)
                smooth(iteration, rate)

            trainer.smoothing.after_step = record  # type: ignore[method-assign]
        trainer.run(show_progress=False)
        weight = trainer.avatar.local.weight.detach()
        avatar = trainer.avatar
        normals = avatar.binding.gaussian_rest_frames[:, :, 2]
        near = surface_neighbours(avatar.binding.rest_points, normals, avatar.sample_region)
        rough[strength] = float((weight[near].mean(1) - weight).std() / weight.std())
    rates = config().rates
    expected = [rates.local * rates.network_decay ** (-i / 12) for i in range(12)]
    assert given == pytest.approx(expected)
    assert rough[200.0] < 0.7 * rough[0.0]


def test_fusions_without_own_matrices_are_not_smoothed(tiny_dataset):
    assert Trainer(tiny_dataset, config(avatar=tiny_config(fusion="concat"))).smoothing is None


def test_training_is_deterministic_and_resumes_where_it_stopped(tiny_dataset, tmp_path):
    """Stopped between two refreshes of the attention, after a refinement: nothing differs."""
    whole = Trainer(tiny_dataset, config())
    whole.run(show_progress=False)

    first = Trainer(tiny_dataset, config(), tmp_path)
    plain_step = first.step

    def interrupted() -> float:
        if first.iteration == 6:
            raise KeyboardInterrupt
        return plain_step()

    first.step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.run(show_progress=False)
    assert first.checkpoint_path.is_file()

    second = Trainer(tiny_dataset, config(), tmp_path)
    second.resume()
    assert second.iteration == 6
    second.run(show_progress=False)
    for name, value in state(whole).items():
        assert torch.equal(value, state(second)[name]), name
    assert torch.equal(whole.corrections, second.corrections)
    assert whole.corrections.abs().max() > 0


def test_another_seed_gives_another_avatar(tiny_dataset):
    trainers = [Trainer(tiny_dataset, config(seed=seed)) for seed in (0, 1)]
    assert not torch.equal(*(t.avatar.network.first.weight for t in trainers))
    assert [t.frame_at(0) for t in trainers] != [t.frame_at(5) for t in trainers]


def test_every_training_frame_is_shown_once_an_epoch(tiny_dataset):
    trainer = Trainer(tiny_dataset, config())
    count = len(trainer.frames)
    epochs = [[trainer.frame_at(e * count + i) for i in range(count)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == trainer.frames
    assert epochs[0] != epochs[1]


def test_held_out_frames_are_never_read(tiny_dataset, monkeypatch):
    trainer = Trainer(tiny_dataset, config())
    read = []
    original = tiny_dataset.frame

    def record(index, *rest, **named):
        read.append(index)
        return original(index, *rest, **named)

    monkeypatch.setattr(tiny_dataset, "frame", record)
    tracked = trainer.tracked.clone()
    trainer.run(show_progress=False)
    assert read
    assert not set(read) & set(trainer.held_out)
    for index in trainer.held_out:
        assert torch.equal(trainer.motion.codes[index], tracked.codes[index])
        assert trainer.corrections[index].abs().max() == 0


def test_refinement_does_not_touch_the_dataset(tiny_dataset):
    before = {k: v.copy() for k, v in vars(tiny_dataset.tracking).items() if v is not None}
    Trainer(tiny_dataset, config()).run(show_progress=False)
    for name, value in before.items():
        assert (value == vars(tiny_dataset.tracking)[name]).all()


def test_a_checkpoint_of_other_settings_is_refused(tiny_dataset, tmp_path):
    trainer = Trainer(tiny_dataset, config(), tmp_path)
    trainer.step()
    trainer.save()
    with pytest.raises(InputError, match="other settings"):
        Trainer(tiny_dataset, config(seed=5), tmp_path).resume()
    path = trainer.checkpoint_path
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="truncated"):
        Trainer(tiny_dataset, config(), tmp_path).resume()
    with pytest.raises(InputError, match="no checkpoint"):
        Trainer(tiny_dataset, config(), tmp_path / "empty").resume()


def test_train_writes_an_avatar_with_its_protocol(tiny_dataset, tmp_path):
    result = train(tiny_dataset, tmp_path / "a.cag", config(iterations=4), show_progress=False)
    loaded = load_avatar(tmp_path / "a.cag")
    assert loaded.record.camera == tiny_dataset.info.camera
    protocol = loaded.record.protocol
    assert protocol["iterations"] == 4
    assert protocol["training_frames"] == 12
    assert "ST-LPIPS alex" in protocol["perceptual"]
    assert result.iterations_per_second > 0
    assert loaded.record.code_max[17] > 0.5
    assert (loaded.record.pose_max >= 0).all()


def test_schedule():
    settings = config(iterations=100)
    assert [settings.size_at(i) for i in (0, 49, 50, 99)] == [36, 36, 72, 72]
    assert settings.refinements() == [25]
    off = dataclasses.replace(settings, refinement=RefinementConfig(steps=0))
    assert off.refinements() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("iterations", 0),
        ("split", "first"),
        ("sizes", ((0.1, 64),)),
        ("sizes", ((0.0, 8),)),
        ("background", (2.0, 0.0, 0.0)),
        ("attention_every", 0),
    ],
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(InputError, match=field):
        TrainConfig(**{field: value})


def test_learning_from_every_row_is_plain_back_propagation(tiny_dataset):
    """Two passes, all rows forward and some with gradients, are one pass when all rows count."""
    loss_of = LossConfig(perceptual_weight=0)
    trainer = Trainer(tiny_dataset, config(loss=loss_of, gradient_fraction=1.0))
    plain = Trainer(tiny_dataset, config(loss=loss_of))
    for avatar in (trainer.avatar, plain.avatar):
        torch.manual_seed(0)
        # Queries that are zero, as at the start, give keys no gradient.
        for parameters in (avatar.network.last.weight, avatar.fusion.query.weight):
            torch.nn.init.normal_(parameters, std=0.05)
    index = plain.frame_at(0)
    frame = tiny_dataset.frame(index, plain.config.size_at(0))
    g = plain.avatar.gaussians(*plain.motion.frame(index))
    image = plain.rasterizer.render(
        g.means, g.quaternions, g.scales, g.opacities, g.colors, plain.view, frame.camera,
        plain.background,
    ).image  # fmt: skip
    photometric_loss(image, frame.target(plain.background), frame.mouth).backward()
    trainer.step()
    for (name, own), other in zip(
        trainer.avatar.named_parameters(), plain.avatar.parameters(), strict=True
    ):
        assert own.grad is not None, name
        assert (own.grad - other.grad).norm() < 0.01 * other.grad.norm(), name
