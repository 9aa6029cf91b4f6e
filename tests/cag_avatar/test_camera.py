from __future__ import annotations

import json

import pytest
import torch

from cag_avatar.camera import BLUR_VARIANCE, PinholeCamera
from cag_avatar.errors import InputError

CAMERA = PinholeCamera(640, 480, 500.0, 520.0, 310.0, 250.0)


def test_projects_by_the_pinhole_equation_with_y_down() -> None:
    points = torch.tensor([[0.0, 0.0, 1.0], [0.2, 0.1, 2.0], [-0.2, -0.1, 0.5]])
    expected = torch.tensor([[310.0, 250.0], [360.0, 276.0], [110.0, 146.0]])
    torch.testing.assert_close(CAMERA.project(points), expected)
    homogeneous = points @ CAMERA.matrix().T
    torch.testing.assert_close(homogeneous[:, :2] / homogeneous[:, 2:], expected)
    assert CAMERA.matrix(torch.float64).dtype == torch.float64


def test_resizing_scales_pixels_and_keeps_the_view() -> None:
    small = CAMERA.resized(320, 120)
    point = torch.tensor([0.13, -0.07, 0.9])
    scale = torch.tensor([0.5, 0.25])
    torch.testing.assert_close(small.project(point), CAMERA.project(point) * scale)
    assert (small.width, small.height) == (320, 120)
    # Half the focal length, half the standard deviation: as large on the head.
    half = CAMERA.resized(320, 240)
    assert half.blur_variance**0.5 / half.fx == pytest.approx(BLUR_VARIANCE**0.5 / CAMERA.fx)
    assert CAMERA.blur_at(half.fy) == pytest.approx(half.blur_variance)


def test_survives_json() -> None:
    assert PinholeCamera.from_dict(json.loads(json.dumps(CAMERA.to_dict()))) == CAMERA


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"width": 0}, "size 0x480"),
        ({"fx": -1.0}, "positive"),
        ({"fy": 0.0}, "positive"),
        ({"cx": float("nan")}, "finite"),
        ({"fx": float("inf")}, "finite"),
        ({"blur_variance": 0.0}, "blur_variance"),
    ],
)
def test_rejects_impossible_values(change: dict[str, float], word: str) -> None:
    with pytest.raises(InputError, match=word):
        PinholeCamera(**(CAMERA.to_dict() | change))


@pytest.mark.parametrize("change", [{"fx": None}, {"fx": "wide"}, {"width": float("inf")}])
def test_a_bad_field_names_the_file(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"^dataset\.json: camera needs width height"):
        PinholeCamera.from_dict(CAMERA.to_dict() | change, "dataset.json")


def test_a_missing_field_names_the_file_and_the_field() -> None:
    values = CAMERA.to_dict()
    del values["cy"]
    with pytest.raises(InputError, match=r"^dataset\.json: .*'cy'"):
        PinholeCamera.from_dict(values, "dataset.json")
