from __future__ import annotations

import logging

import pytest
import torch
from cag_avatar_training import dataset as dataset_module
from cag_avatar_training.device_frames import DeviceFrames
from cag_avatar_training.loss_reader import LossReader

CPU = torch.device("cpu")
WHITE = torch.ones(3)


def same(a, b):
    assert torch.equal(a.target(WHITE), b.target(WHITE))
    assert torch.equal(a.mouth, b.mouth)
    assert torch.equal(a.parsing, b.parsing)
    assert a.camera == b.camera


def test_kept_frames_are_copied_once(tiny_dataset, monkeypatch):
    frames = DeviceFrames(tiny_dataset, CPU, room=1 << 20)
    copies = []
    original = dataset_module.Frame._on_device
    monkeypatch.setattr(
        dataset_module.Frame,
        "_on_device",
        lambda self, plane: copies.append(plane) or original(self, plane),
    )
    kept = frames.frame(3, 36)
    same(kept, tiny_dataset.frame(3, 36, CPU))
    del copies[:]
    again = frames.frame(3, 36)
    assert again is kept
    again.target(WHITE)
    again.mouth.sum()
    assert copies == []
    same(frames.frame(4, 36), tiny_dataset.frame(4, 36, CPU))


def test_without_room_frames_come_from_the_dataset(tiny_dataset, caplog):
    none = DeviceFrames(tiny_dataset, CPU)
    little = DeviceFrames(tiny_dataset, CPU, room=tiny_dataset.frame(0, 36).nbytes)
    with caplog.at_level(logging.WARNING):
        assert none.frame(0, 36) is not none.frame(0, 36)
        assert caplog.text == ""
        assert little.frame(0, 36) is little.frame(0, 36)
        assert little.frame(1, 36) is not little.frame(1, 36)
    assert caplog.text.count("no room on the GPU") == 1


def test_losses_are_read_at_once_on_a_cpu():
    reader = LossReader(CPU)
    assert [reader.read(torch.tensor(v)) for v in (0.5, 0.25)] == [0.5, 0.25]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_losses_come_a_step_late_on_a_gpu():
    reader = LossReader(torch.device("cuda"))
    losses = [torch.tensor(v, device="cuda") for v in (0.5, 0.25, 0.125)]
    assert [reader.read(loss) for loss in losses] == [0.5, 0.5, 0.25]
