"""An operator's shape, solved beside the live frames."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cag_avatar.head_models import ARKIT_INDEX
from cag_avatar.tracking import fitting, operator_solver
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.fit_state import FitState
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding
from cag_avatar.tracking.live_irises import learn_irises, look_at_eyes
from cag_avatar.tracking.operator_shape import OperatorFrames, OperatorShape, solve_operator
from cag_avatar.tracking.operator_solver import OperatorSolver
from cag_avatar.tracking.surface_basis import ShapeSpace, SurfacePoints
from tests.cag_avatar.tracking.painted_eyes import painted_clip

COUNT = 6


@pytest.fixture(scope="module")
def points(embedding: LandmarkEmbedding, shape_space: ShapeSpace) -> SurfacePoints:
    return shape_space.points(embedding.faces, embedding.barycentric)


@pytest.fixture(scope="module")
def truth(points: SurfacePoints) -> FitState:
    """A person of their own who turns the head."""
    g = torch.Generator().manual_seed(3)
    yaw = torch.linspace(-0.4, 0.4, COUNT)
    zero = torch.zeros(COUNT)
    turn = torch.stack(
        [yaw.cos(), zero, yaw.sin(), zero, -zero - 1, zero, yaw.sin(), zero, -yaw.cos()], -1
    ).reshape(COUNT, 3, 3)
    shape = torch.zeros(len(points.shape))
    shape[:10] = torch.randn(10, generator=g)
    code = torch.zeros(COUNT, 52)
    code[:, ARKIT_INDEX["jawOpen"]] = 0.2
    return FitState(
        shape, 700.0, (160.0, 130.0), turn, torch.tensor([[0.0, 0.0, 0.86]]).repeat(COUNT, 1), code
    )


@pytest.fixture(scope="module")
def frames(points: SurfacePoints, truth: FitState) -> OperatorFrames:
    pixels = fitting.landmark_residuals(truth, points, torch.zeros(COUNT, 478, 2)).numpy()
    landmarks = np.concatenate([pixels, np.zeros((COUNT, 478, 1))], -1).astype(np.float32)
    scores = np.full((COUNT, 52), 0.1, np.float32)
    colors = np.full((COUNT, 468, 3), 120.0, np.float32)
    eyes = [(None, None)] * COUNT
    return OperatorFrames(
        "anny", (320, 260), FitConfig(correction="none"), landmarks, scores, colors, eyes
    )


def test_frames_and_shape_come_through_as_they_are(frames: OperatorFrames) -> None:
    again = OperatorFrames.from_bytes(frames.to_bytes())
    assert again.config == frames.config
    assert (again.head_model, again.size) == (frames.head_model, frames.size)
    for name in ("landmarks", "scores", "colors"):
        np.testing.assert_array_equal(getattr(again, name), getattr(frames, name))
    corrected = solve_operator(replace(frames, config=FitConfig()))
    back = OperatorShape.from_bytes(corrected.to_bytes())
    np.testing.assert_array_equal(back.rest, corrected.rest)
    assert back.focal == corrected.focal
    assert corrected.typical is not None
    assert back.typical is not None
    np.testing.assert_array_equal(back.typical.features, corrected.typical.features)
    np.testing.assert_array_equal(back.typical.error, corrected.typical.error)
    assert back.irises is None


def test_eyes_come_through_and_are_learned(frames: OperatorFrames) -> None:
    """Also those that a frame does not show."""
    clip = painted_clip()
    looks = [look_at_eyes(p, m) for p, m in zip(clip.pictures, clip.landmarks, strict=True)]
    looks[3] = (None, looks[3][1])
    looks[4] = (None, None)
    given = replace(frames, eyes=looks)
    again = OperatorFrames.from_bytes(given.to_bytes())
    for pair, back in zip(given.eyes, again.eyes, strict=True):
        for look, other in zip(pair, back, strict=True):
            assert (look is None) == (other is None)
            for a, b in zip(look or (), other or (), strict=True):
                np.testing.assert_array_equal(a, b)
    learned = learn_irises(again.eyes, clip.landmarks)
    assert learned is not None
    shape = OperatorShape(np.zeros((478, 3), np.float32), 700.0, None, learned)
    restored = OperatorShape.from_bytes(shape.to_bytes()).irises
    assert restored is not None
    np.testing.assert_array_equal(restored.rings, learned.rings)
    np.testing.assert_array_equal(restored.centres, learned.centres)
    assert restored.proportion == learned.proportion


def test_the_person_is_found_beside_the_caller(
    frames: OperatorFrames, points: SurfacePoints, truth: FitState
) -> None:
    solver = OperatorSolver(frames)
    shape = solver.result()
    assert solver.done
    assert solver.error is None
    assert shape.typical is None
    true, mean = points.rest(truth.shape).numpy(), points.mean.numpy()

    def error(rest: NDArray[np.floating]) -> float:
        """Up to the size, which the assumed distance decides."""
        size = (rest * true).sum() / np.square(rest).sum()
        return float(np.abs(size * rest - true).mean())

    assert error(shape.rest) < 0.6 * error(mean)
    assert shape.focal == pytest.approx(700.0, rel=0.1)
    expected = solve_operator(frames)
    np.testing.assert_allclose(shape.rest, expected.rest, atol=1e-4)


def test_what_went_wrong_is_told(frames: OperatorFrames) -> None:
    solver = OperatorSolver(replace(frames, head_model="nobody"))
    with pytest.raises(RuntimeError, match="head model 'nobody' is unknown"):
        solver.result()
    assert solver.done
    assert "nobody" in (solver.error or "")


def test_cancelled_it_leaves_no_process(
    frames: OperatorFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        operator_solver, "_command", lambda: [sys.executable, "-c", "import time; time.sleep(60)"]
    )
    solver = OperatorSolver(frames)
    while solver._process is None:
        time.sleep(0.01)
    start = time.monotonic()
    solver.cancel()
    assert time.monotonic() - start < 20
    assert solver.done
    assert solver.error is not None
    assert solver._process.poll() is not None
