"""What the stages share: frames on disk, threads in order, the notes of a stage, progress."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from cag_avatar_training import progress
from cag_avatar_training.preprocess.frame_store import FrameStore
from cag_avatar_training.preprocess.parallel import ordered_map, prefetched
from cag_avatar_training.preprocess.workspace import Workspace, file_fingerprint
from cag_avatar_training.progress import StageProgress


def test_frames_come_back(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 6, 7, 3), dtype=np.uint8)
    with FrameStore(tmp_path / "frames", (6, 7, 3)) as store:
        for t in (3, 0, 1):
            store.write(t, frames[t])
        for t in (0, 1, 3):
            np.testing.assert_array_equal(store[t], frames[t])
        with pytest.raises(IndexError, match="frame 4 was not written"):
            store[4]
        with pytest.raises(ValueError, match="the store holds"):
            store.write(0, frames[0, :5])
    with FrameStore(tmp_path / "frames", (6, 7, 3)) as store:
        np.testing.assert_array_equal(store[3], frames[3])


def test_results_are_in_order_and_few_are_under_way() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.002 * (item % 3))
        return item * item

    results = ordered_map(work, range(40), workers=2)
    assert next(results) == 0
    assert len(begun) <= 4
    assert list(results) == [t * t for t in range(1, 40)]


def test_items_are_drawn_ahead_in_another_thread() -> None:
    drawn: list[str] = []

    def items():  # type: ignore[no-untyped-def]
        for k in range(100):
            drawn.append(threading.current_thread().name)
            yield k

    with prefetched(items(), ahead=3) as ahead:
        assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert set(drawn) == {"prefetch"}
    assert len(drawn) <= 10

    def broken():  # type: ignore[no-untyped-def]
        yield 1
        raise RuntimeError("torn tape")

    with prefetched(broken()) as ahead:
        assert next(ahead) == 1
        with pytest.raises(RuntimeError, match="torn tape"):
            next(ahead)


def test_a_stage_remembers_what_counts(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "w") as work:
        stage = work.stage("matte", ("a",), {"x": 1})
        stage.save("part", {"v": np.arange(3)}, note=[1, 2])
        stage.commit(2)
        again = work.stage("matte", ("a",), {"x": 1})
        assert (again.done, again.whole) == (2, False)
        arrays, notes = again.load("part")
        assert arrays["v"].tolist() == [0, 1, 2]
        assert notes == {"note": [1, 2]}
        assert work.stage("matte", ("a",), {"x": 1}, needs="absent").done == 0
        assert work.stage("matte", ("b",), {"x": 1}).done == 0
        assert not (tmp_path / "w" / "matte" / "part.safetensors").exists()


def test_the_fingerprint_sees_content_and_length(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    first = file_fingerprint(path)
    assert file_fingerprint(path) == first
    path.write_bytes(b"x" * 9 + b"y")
    assert file_fingerprint(path) != first


def test_a_log_gets_a_few_lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    with StageProgress(terminal=False) as bars, bars.stage("matte", 200) as advance:
        for done in range(1, 201):
            advance(done)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 11
    assert lines[4].startswith("matte: 100 of 200 (50 %), about ")
    assert lines[-1].startswith("matte: done in ")
    caplog.clear()
    with StageProgress(False) as bars, bars.stage("matte", 200) as advance:
        advance(100)
    assert not caplog.records
