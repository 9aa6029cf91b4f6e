"""Training of an avatar on a dataset."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from cag_avatar_training.capture import capture_record
from cag_avatar_training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    training_fingerprint,
)
from cag_avatar_training.config import TrainConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.device import device_of
from cag_avatar_training.device_frames import DeviceFrames
from cag_avatar_training.frame import Frame
from cag_avatar_training.gradient_sampling import sample_rows
from cag_avatar_training.initialization import initialize_colors
from cag_avatar_training.local_smoothing import LocalSmoothing
from cag_avatar_training.loss_reader import LossReader
from cag_avatar_training.losses import photometric_loss
from cag_avatar_training.monitoring import (
    PlateauWatch,
    TrainingObserver,
    take_validation_frames,
)
from cag_avatar_training.motion import Motion
from cag_avatar_training.perceptual import load_perceptual
from cag_avatar_training.progress import progress_bars
from cag_avatar_training.refinement import (
    corrected_motion,
    correction_size,
    refine_frames,
)
from cag_avatar_training.regressor.learning import regressor_of_training
from torch import Tensor

from cag_avatar.avatar.distillation import fit_offset_basis
from cag_avatar.avatar.file import save_avatar
from cag_avatar.avatar.inference import PreparedAvatar
from cag_avatar.avatar.model import Avatar
from cag_avatar.avatar.precision import fastest_dtype
from cag_avatar.errors import InputError
from cag_avatar.fusion.compiled_offsets import compiled_offsets
from cag_avatar.gaussians.attributes import Gaussians
from cag_avatar.head_models import load_head_model
from cag_avatar.rendering.rasterizer import get_rasterizer

__all__ = ["TrainResult", "Trainer", "train"]

_log = logging.getLogger(__name__)
#: Frames whose meshes are posed together.
_POSED_TOGETHER = 16
#: Seconds between checkpoints.
_CHECKPOINT_PERIOD = 30.0


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves."""

    avatar: Avatar
    """With its capture record."""
    path: Path | None
    """File it was written to."""
    seconds: float
    """Time spent, refinement included."""
    iterations_per_second: float
    """Of the iterations alone, without refinement."""
    protocol: dict[str, Any]
    """How it was trained, as stored in the file."""


class _Posed(NamedTuple):
    """What a frame's motion makes of the avatar, network aside."""

    vertices: Tensor
    """Camera space, metres, [V, 3]."""
    tokens: Tensor
    """Expression tokens, [T]."""


class Trainer:
    """One training run; :meth:`run` does it, the rest is its parts.

    Held-out frames are never read; the validation frames of ``config.early_stop`` are taken out of
    the training frames.

    Args:
        dataset: to train on.
        config: settings.
        workdir: folder for checkpoints; None keeps none.

    Raises:
        InputError: the dataset does not fit its head model, or a setting is unusable.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig, workdir: Path | None = None) -> None:
        self.dataset = dataset
        self.config = config
        self.workdir = workdir
        frames, self.held_out = dataset.split(config.split)
        self.frames, validation = take_validation_frames(frames, config.early_stop)
        self.plateau = (
            PlateauWatch(
                validation,
                config.early_stop,
                None if workdir is None else workdir / "validation.json",
            )
            if validation
            else None
        )
        head = load_head_model(dataset.info.head_model)
        tracking = dataset.tracking
        if tracking.vertex_offsets.shape != tuple(head.vertices.shape):
            raise InputError(
                f"{dataset.path / 'tracking.safetensors'}: vertex_offsets is for "
                f"{len(tracking.vertex_offsets)} vertices, head model '{head.name}' has "
                f"{len(head.vertices)}; preprocess the video again"
            )
        if dataset.info.code_names != head.expression_names:
            raise InputError(
                f"{dataset.path / 'dataset.json'}: field 'code_names' is not that of head model "
                f"'{head.name}'; preprocess the video again"
            )
        torch.manual_seed(config.seed)
        rest = head.rest_vertices(
            torch.from_numpy(tracking.identity), torch.from_numpy(tracking.vertex_offsets)
        )
        self.rasterizer = get_rasterizer(config.backend)
        self.device = device_of(self.rasterizer)
        self.avatar = Avatar(config.avatar, head, rest).to(self.device)
        self.images = DeviceFrames(dataset, self.device)
        self.losses = LossReader(self.device)
        self.background = torch.tensor(config.background, device=self.device)
        self.view = torch.eye(4, device=self.device)
        self.tracked = Motion.tracked(tracking, self.device)
        count = correction_size(len(head.expression_names))
        self.corrections = torch.zeros(len(dataset), count, device=self.device)
        self.motion = self.tracked.clone()
        if config.initial_colors:
            initialize_colors(self.avatar, dataset, self.frames, self.motion, self.background)
        self.optimizer = self._make_optimizer()
        smoothed = self.avatar.local is not None and config.local_smoothing > 0
        self.smoothing = LocalSmoothing(self.avatar, config.local_smoothing) if smoothed else None
        self.compiled = compiled_offsets(self.avatar)
        self.autocast = self.compiled is None and fastest_dtype(self.device.type) == torch.bfloat16
        self.iteration = 0
        self.seconds = 0.0
        self.train_seconds = 0.0
        self.perceptual = (
            load_perceptual(config.loss.perceptual_net, str(self.device))
            if config.loss.perceptual_weight > 0 and config.loss.perceptual_from < 1
            else None
        )
        self._static: Tensor | None = None
        self._posed_frames: dict[int, _Posed] = {}
        self._order: tuple[int, list[int]] = (-1, [])

    def _make_optimizer(self) -> torch.optim.Adam:
        rates = self.config.rates
        attributes = self.avatar.attributes
        network = [*self.avatar.fusion.parameters(), *self.avatar.network.parameters()]
        groups = [
            {"params": network, "lr": rates.network, "decay": rates.network_decay, "eps": 1e-8},
        ]
        for parameter, rate in (
            (attributes.color_base, rates.color_base),
            (attributes.color_rest, rates.color_rest),
            (attributes.opacity_logit, rates.opacity),
            (attributes.log_scale, rates.scale),
            (attributes.rotation, rates.rotation),
        ):
            if parameter.numel():
                groups.append({"params": [parameter], "lr": rate, "decay": rates.attribute_decay})
        if self.avatar.local is not None:
            own = list(self.avatar.local.parameters())
            groups.append({"params": own, "lr": rates.local, "decay": rates.network_decay})
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-15, fused=True)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    def frame_at(self, iteration: int) -> int:
        """Frame shown at an iteration: every epoch is a new permutation, a function of the seed."""
        epoch, position = divmod(iteration, len(self.frames))
        if self._order[0] != epoch:
            generator = np.random.default_rng([self.config.seed, epoch])
            order = generator.permutation(len(self.frames)).tolist()
            self._order = (epoch, [self.frames[i] for i in order])
        return self._order[1][position]

    def gaussians(self, index: int, raw: Tensor) -> Gaussians:
        """The Gaussians of a frame from the network's outputs [N, 12], with gradients for them and
        for the attributes."""
        code, head_pose, torso_pose = self.motion.frame(index)
        vertices = self._posed(index).vertices
        return self.avatar.gaussians(code, head_pose, torso_pose, raw=raw, vertices=vertices)

    @torch.no_grad()
    def raw_offsets(self, index: int) -> Tensor:
        """Outputs of the network for a frame, of all Gaussians, without gradients: [N, 12]."""
        avatar = self.avatar
        tokens = self._posed(index).tokens
        static = self._attention()
        if self.compiled is not None:
            return self.compiled.outputs(static, self.compiled.frame_values(static, tokens))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            context = avatar.fusion.context(static, tokens)
            first = avatar.network.static(avatar.encoding)
            return avatar.decode(avatar.network, first, context).float()

    def learn_offsets(self, index: int, rows: Tensor, gradient: Tensor) -> None:
        """Give fusion and network their gradients, from those of some outputs of raw_offsets().

        Args:
            index: frame.
            rows: Gaussians, [R].
            gradient: of their outputs, [R, 12].
        """
        avatar = self.avatar
        tokens = self._posed(index).tokens
        due = self._attention_is_due()
        if self.compiled is not None:
            values = self.compiled.frame_values(self._static, tokens)
            given = self.compiled.backward(self._static, values, rows, gradient, due)
            sources = (values, avatar.attention(rows) if due else None)
            known = [(s, g) for s, g in zip(sources, given, strict=True) if s is not None]
            known = [(s, g) for s, g in known if s.requires_grad and g is not None]
            if known:
                torch.autograd.backward([s for s, _ in known], [g for _, g in known])
            return
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            attention = avatar.attention(rows) if due else avatar.fusion.rows(self._static, rows)
            context = avatar.fusion.context(attention, tokens)
            first = avatar.network.static(avatar.encoding[rows])
            raw = avatar.decode(avatar.network, first, context, rows).float()
        raw.backward(gradient)

    @torch.no_grad()
    def _posed(self, index: int) -> _Posed:
        """Mesh and tokens of a frame, kept: they change only when poses and codes are refined."""
        if index not in self._posed_frames:
            # Several at once: a mesh alone is many small operations.
            missing = [i for i in self.frames if i not in self._posed_frames and i != index]
            together = [index, *missing[: _POSED_TOGETHER - 1]]
            motion, head = self.motion, self.avatar.head
            meshes = head.posed_vertices(
                self.avatar.rest, motion.codes[together], motion.head_pose[together],
                motion.torso_pose[together],
            )  # fmt: skip
            for i, mesh in zip(together, meshes, strict=True):
                tokens = self.avatar.tokens(*motion.frame(i))
                self._posed_frames[i] = _Posed(mesh, tokens)
        return self._posed_frames[index]

    def _attention_is_due(self) -> bool:
        return self.iteration % self.config.attention_every == 0

    def _attention(self) -> Tensor | None:
        """What the fusion knows of the positions, without gradients.

        It does not depend on the frame and changes slowly, so it is computed only every few
        iterations, and kept in between.
        """
        if self._static is None or self._attention_is_due():
            self._static = self.avatar.attention()
        return self._static

    def step(self) -> float:
        """One iteration; returns the loss, on a GPU that of the iteration before (LossReader)."""
        config = self.config
        done = self.iteration / config.iterations
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * group["decay"] ** -done
        index = self.frame_at(self.iteration)
        frame = self.images.frame(index, config.size_at(self.iteration))
        target = frame.target(self.background)
        raw = self.raw_offsets(index).requires_grad_(True)
        g = self.gaussians(index, raw)
        image = self.rasterizer.render(
            g.means, g.quaternions, g.scales, g.opacities, g.colors, self.view, frame.camera,
            self.background,
        ).image  # fmt: skip
        loss = photometric_loss(
            image, target, frame.mouth, config.loss.mouth_weight, config.loss.huber_delta
        )
        loss = loss + self._perceptual_loss(image, target, frame)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        assert raw.grad is not None
        rows, gradient = sample_rows(raw.grad, config.gradient_fraction, self.iteration)
        if len(rows):
            self.learn_offsets(index, rows, gradient)
        self.optimizer.step()
        self.avatar.attributes.limit_scales(config.max_growth)
        self.iteration += 1
        if self.smoothing is not None:
            rate = config.rates.local * config.rates.network_decay**-done
            self.smoothing.after_step(self.iteration, rate)
        return self.losses.read(loss)

    def _perceptual_loss(self, image: Tensor, target: Tensor, frame: Frame) -> Tensor | float:
        """Eq. 9's term on a random square centred on the person; 0 when it is not due."""
        loss = self.config.loss
        late = self.iteration >= loss.perceptual_from * self.config.iterations
        if self.perceptual is None or not late or self.iteration % loss.perceptual_every:
            return 0.0
        generator = np.random.default_rng([self.config.seed, 1, self.iteration])
        height, width = image.shape[:2]
        side = min(loss.perceptual_crop, height, width)
        rows, columns = torch.nonzero(frame.alpha > 0.5, as_tuple=True)
        if len(rows) == 0:
            return 0.0
        pick = int(generator.integers(len(rows)))
        top = min(max(int(rows[pick]) - side // 2, 0), height - side)
        left = min(max(int(columns[pick]) - side // 2, 0), width - side)
        window = (slice(top, top + side), slice(left, left + side))
        with torch.no_grad():
            features = self.perceptual.features(target[window])
        distance = self.perceptual(image[window], features)
        return loss.perceptual_weight * loss.perceptual_every * distance

    def refine(self, advance: Callable[[], None] | None = None) -> None:
        """Refine the motion of the training frames against the avatar as it is now.

        ``advance`` is called after every frame.
        """
        self.corrections = refine_frames(
            PreparedAvatar(self.avatar),
            self.dataset,
            self.frames,
            self.tracked,
            self.corrections,
            self.config.refinement,
            self.config.loss,
            self.background,
            self.rasterizer,
            advance,
        )
        self._apply_corrections()

    def _apply_corrections(self) -> None:
        self.motion = corrected_motion(self.tracked, self.corrections, self.avatar.neck_pivot)
        self._posed_frames.clear()

    @property
    def fingerprint(self) -> str:
        """Identifies settings and data."""
        return training_fingerprint(dict(self.config.to_dict()), self.dataset.path)

    @property
    def checkpoint_path(self) -> Path | None:
        """Where checkpoints go."""
        return None if self.workdir is None else self.workdir / "checkpoint.safetensors"

    def _trained(self) -> dict[str, Tensor]:
        return dict(self.avatar.named_parameters())

    def save(self) -> None:
        """Write a checkpoint, if there is a work folder."""
        if self.checkpoint_path is None:
            return
        names = {id(parameter): name for name, parameter in self._trained().items()}
        moments = {
            f"{names[id(parameter)]}.{key}": value
            for parameter, state in self.optimizer.state.items()
            for key, value in state.items()
        }
        save_checkpoint(
            self.checkpoint_path,
            self.fingerprint,
            Checkpoint(
                self.iteration,
                self.seconds,
                self._trained(),
                moments,
                self.corrections,
                self._static,
            ),
        )

    def resume(self) -> None:
        """Go on from the checkpoint in the work folder. Raises InputError if it does not fit."""
        if self.checkpoint_path is None or not self.checkpoint_path.is_file():
            raise InputError(f"{self.checkpoint_path}: no checkpoint to resume from; start afresh")
        checkpoint = load_checkpoint(self.checkpoint_path, self.fingerprint)
        with torch.no_grad():
            for name, parameter in self._trained().items():
                parameter.copy_(checkpoint.parameters[name])
        for name, parameter in self._trained().items():
            prefix = f"{name}."
            state = {
                k[len(prefix) :]: v.to(self.device)
                for k, v in checkpoint.moments.items()
                if k.startswith(prefix)
            }
            if state:
                self.optimizer.state[parameter] = state
        self.corrections = checkpoint.corrections.to(self.device)
        attention = checkpoint.attention
        self._static = None if attention is None else attention.to(self.device)
        self._apply_corrections()
        self.iteration = checkpoint.iteration
        self.seconds = checkpoint.seconds
        if self.plateau is not None:
            self.plateau.resume(self.iteration)
        _log.info("resumed at iteration %d", self.iteration)

    def run(self, show_progress: bool = True, observers: Sequence[TrainingObserver] = ()) -> None:
        """Train to the end. On Ctrl-C (or any error) a checkpoint is written first.

        ``observers`` are told of every iteration.
        """
        config = self.config
        due = set(config.refinements())
        last_saved = time.monotonic()
        with progress_bars(show_progress) as bars:
            task = bars.add_task("training", total=config.iterations, completed=self.iteration)
            try:
                stop = self.plateau is not None and self.plateau.stalled()
                while self.iteration < config.iterations and not stop:
                    start = time.perf_counter()
                    if self.iteration in due and self.iteration > 0:
                        refining = bars.add_task("refining", total=len(self.frames))
                        self.refine(partial(bars.advance, refining))
                    due.discard(self.iteration)
                    middle = time.perf_counter()
                    loss = self.step()
                    end = time.perf_counter()
                    self.train_seconds += end - middle
                    self.seconds += end - start
                    bars.update(task, advance=1, description=f"training  loss {loss:.4f}")
                    stop = self.plateau is not None and self.plateau.after_step(self)
                    for observer in observers:
                        observer.after_step(self, loss)
                    if time.monotonic() - last_saved > _CHECKPOINT_PERIOD:
                        self.save()
                        last_saved = time.monotonic()
            except BaseException:
                self.save()
                if self.checkpoint_path is not None:
                    _log.warning("stopped; resume from %s", self.checkpoint_path)
                raise
            finally:
                for observer in observers:
                    observer.close()
        self.save()

    def protocol(self) -> dict[str, Any]:
        """How this training was done, as plain JSON values."""
        loss = self.config.loss
        perceptual = "off"
        if self.perceptual is not None:
            perceptual = (
                f"{self.perceptual.description}, weight {loss.perceptual_weight}, from iteration "
                f"{round(loss.perceptual_from * self.config.iterations)}, every "
                f"{loss.perceptual_every}, crop {loss.perceptual_crop} px"
            )
        return {
            "source": self.dataset.info.source,
            "profile": self.config.profile,
            "frames": len(self.dataset),
            "split": self.config.split,
            "training_frames": len(self.frames),
            "held_out_frames": len(self.held_out),
            "validation_frames": [] if self.plateau is None else self.plateau.frames,
            "gaussians": self.avatar.num_gaussians,
            "iterations": self.iteration,
            "seconds": round(self.seconds, 1),
            "seed": self.config.seed,
            "sizes": [list(stage) for stage in self.config.sizes],
            "background": list(self.config.background),
            "mask": "matte of the dataset",
            "perceptual": perceptual,
            "refined_training_frames_at": self.config.refinements(),
            "device": self.rasterizer.name,
            "network_dtype": "bfloat16" if self.autocast else "float32",
            "config": dict(self.config.to_dict()),
        }


def train(
    dataset: Dataset,
    output: Path | str | None,
    config: TrainConfig | None = None,
    workdir: Path | str | None = None,
    resume: bool = False,
    show_progress: bool = True,
    observers: Sequence[TrainingObserver] = (),
    live: bool = True,
) -> TrainResult:
    """Train an avatar and write it to a .cag file.

    Args:
        dataset: to train on; its held-out frames are not read.
        output: file to write; None writes none.
        config: settings.
        workdir: folder for checkpoints and refined motion; None keeps neither.
        resume: go on from the checkpoint in ``workdir``, if there is one.
        show_progress: bars on the terminal.
        observers: told of every iteration, see monitoring.py.
        live: give the file what only live driving needs, its person's regressor and a live basis.

    Raises:
        InputError: the data or a setting is unusable.
        KeyboardInterrupt: Ctrl-C, after a checkpoint was written.
    """
    trainer = Trainer(dataset, config or TrainConfig(), None if workdir is None else Path(workdir))
    if resume and trainer.checkpoint_path is not None and trainer.checkpoint_path.is_file():
        trainer.resume()
    started = trainer.iteration
    trainer.run(show_progress, observers)
    protocol = trainer.protocol()
    record = capture_record(
        dataset,
        trainer.motion,
        trainer.frames,
        trainer.config.background,
        trainer.avatar.head,
    )
    avatar = trainer.avatar.requires_grad_(False).eval().cpu()
    avatar.record = replace(record, protocol=protocol)
    if output is not None:
        if live:
            codes = trainer.motion.codes[trainer.frames].cpu().numpy()
            regressor = regressor_of_training(dataset, trainer.frames, codes)
            avatar.record = replace(avatar.record, regressor=regressor)
            avatar.live_basis = fit_offset_basis(avatar)
        save_avatar(output, avatar)
    done = trainer.iteration - started
    return TrainResult(
        avatar=avatar,
        path=None if output is None else Path(output),
        seconds=trainer.seconds,
        iterations_per_second=done / trainer.train_seconds if trainer.train_seconds else 0.0,
        protocol=protocol,
    )
