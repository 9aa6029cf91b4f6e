"""Upright pictures of a face and the network that reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from cag_avatar.errors import InputError
from cag_avatar.tracking.face_pictures import (
    FACE_SIDE,
    MOUTH_SHAPE,
    FacePlanes,
    PictureReader,
    face_planes,
    load_picture_reader,
    network_planes,
    upright_picture,
)
from cag_avatar.tracking.landmark_correction import (
    FaceFrame,
    correction_path,
    load_landmark_correction,
)

_METRES = 0.00125  # of a pixel of the upright picture


def _frame(angle: float, scale: float, middle: tuple[float, float]) -> FaceFrame:
    """A face rolled by an angle; upright = turn @ (pixels - middle) / scale."""
    c, s = np.cos(angle), np.sin(angle)
    return FaceFrame(np.array([[[c, s], [-s, c]]]), np.array([scale]), np.array([middle], float))


def _photo(size: int, frame: FaceFrame) -> NDArray[np.uint8]:
    """A face-fixed pattern: red grows to the face's right, green downwards, blue is a wave."""
    y, x = np.mgrid[:size, :size] + 0.5
    pixels = np.stack([x, y], -1).reshape(1, -1, 2)
    across, down = frame.upright(pixels)[0].T.reshape(2, size, size)
    blue = 128 + 80 * np.sin(across / 0.02) * np.cos(down / 0.03)
    colours = np.stack([128 + 800 * across, 128 + 800 * down, blue], -1)
    return np.clip(np.rint(colours), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("angle", "scale", "middle", "size"),
    [(0.0, 800.0, (200.0, 200.0), 400), (0.6, 800.0, (210.5, 190.25), 400),
     (-0.3, 3000.0, (700.0, 650.0), 1400)],
)  # fmt: skip
def test_a_rolled_near_or_far_face_gives_the_same_picture(
    angle: float, scale: float, middle: tuple[float, float], size: int
) -> None:
    frame = _frame(angle, scale, middle)
    picture = upright_picture(_photo(size, frame), frame)
    side = len(picture)
    down, across = (np.mgrid[:side, :side] + 0.5 - side / 2) * _METRES
    blue = 128 + 80 * np.sin(across / 0.02) * np.cos(down / 0.03)
    expected = np.stack([128 + 800 * across, 128 + 800 * down, blue], -1)
    assert picture.shape == (168, 168, 3)
    error = np.abs(picture.astype(float) - expected)
    assert error[2:-2, 2:-2].max() < 2.5  # grey levels, of 100 to 250; rounded twice


def test_a_finer_picture_is_averaged_before_it_is_sampled() -> None:
    frame = _frame(0.0, 4000.0, (500.0, 500.0))  # 5 pixels a sample
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (1000, 1000, 3)).astype(np.uint8)
    picture = upright_picture(noise, frame)
    assert picture.std() < 0.3 * noise.std()  # a sixth, were all 25 pixels averaged


def test_the_planes_show_the_mouth_where_it_is() -> None:
    picture = np.full((168, 168, 3), 100, np.uint8)
    picture[98:146, 48:120] = (200, 100, 100)  # red, 2 to 8 cm below the middle
    planes = face_planes(picture)
    assert planes.face.shape == (1, 2, FACE_SIDE, FACE_SIDE)
    assert planes.mouth.shape == (1, 2, *MOUTH_SHAPE)
    np.testing.assert_allclose(planes.mouth[0, 1], np.log(208 / 108), atol=2e-3)
    np.testing.assert_allclose(planes.mouth[0, 0], np.log(0.299 * 100 + 116), atol=4e-3)
    assert abs(float(planes.face[0, 1, 10, 10])) < 1e-3


def test_the_network_sees_change_and_what_is_typical_in_units_of_contrast() -> None:
    rng = np.random.default_rng(1)
    planes = torch.from_numpy(rng.normal(4, 0.5, (3, 2, 8, 8)).astype(np.float32))
    typical = torch.from_numpy(rng.normal(4, 0.5, (1, 2, 8, 8)).astype(np.float32))
    seen = network_planes(planes, typical)
    mean, contrast = typical.mean((2, 3), keepdim=True), typical.std((2, 3), keepdim=True) + 0.05
    assert seen.shape == (3, 4, 8, 8)
    torch.testing.assert_close(seen[:, :2], (planes - typical) / contrast)
    torch.testing.assert_close(seen[1, 2:], ((typical - mean) / contrast)[0])
    # Twice the light adds the same to all logarithms, and changes nothing.
    torch.testing.assert_close(network_planes(planes + 0.7, typical + 0.7), seen)
    assert not network_planes(typical, typical)[:, :2].any()


def test_what_is_typical_is_the_median() -> None:
    face = np.zeros((3, 2, FACE_SIDE, FACE_SIDE), np.float16)
    face[:, 0, 5, 6] = (1, 9, 2)
    planes = FacePlanes(face, np.ones((3, 2, *MOUTH_SHAPE), np.float16))
    typical = planes.median()
    assert typical.face.shape == (1, 2, FACE_SIDE, FACE_SIDE)
    assert float(typical.face[0, 0, 5, 6]) == 2
    assert len(FacePlanes.stack([planes, typical, FacePlanes.none()]).mouth) == 4


def _arrays() -> dict[str, NDArray]:
    rng = np.random.default_rng(2)

    def draw(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0, 0.1, shape).astype(np.float32)

    return {
        "face0.weight": draw(3, 4, 3, 3), "face0.bias": draw(3),
        "face.weight": draw(5, 3 * 48 * 48), "face.bias": draw(5),
        "mouth0.weight": draw(2, 4, 3, 3), "mouth0.bias": draw(2),
        "mouth1.weight": draw(6, 2, 3, 3), "mouth1.bias": draw(6),
        "mouth.weight": draw(4, 6 * 12 * 18), "mouth.bias": draw(4),
    }  # fmt: skip


def _planes(count: int) -> FacePlanes:
    rng = np.random.default_rng(3)
    face = rng.normal(4, 0.5, (count, 2, FACE_SIDE, FACE_SIDE)).astype(np.float16)
    return FacePlanes(face, rng.normal(4, 0.5, (count, 2, *MOUTH_SHAPE)).astype(np.float16))


def test_the_reader_agrees_with_torch_modules() -> None:
    a = _arrays()
    reader = PictureReader(a)
    planes = _planes(3)
    typical = planes.median()
    found = reader.read(planes, typical)
    assert found.shape == (3, reader.size) == (3, 9)

    def tower(name: str, layers: int, shown: NDArray, usual: NDArray) -> torch.Tensor:
        value = network_planes(torch.from_numpy(shown), torch.from_numpy(usual))
        for k in range(layers):
            weight = torch.from_numpy(a[f"{name}{k}.weight"])
            layer = torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3, 2, 1)
            layer.weight.data, layer.bias.data = weight, torch.from_numpy(a[f"{name}{k}.bias"])  # type: ignore[union-attr]
            value = layer(value) * torch.sigmoid(layer(value))
        weight, bias = (torch.from_numpy(a[f"{name}.{k}"]) for k in ("weight", "bias"))
        return value.reshape(3, -1) @ weight.T + bias

    expected = torch.cat(
        [
            tower("face", 1, planes.face, typical.face),
            tower("mouth", 2, planes.mouth, typical.mouth),
        ],
        1,
    )
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-4)


def test_files_without_a_reader_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"face.weight": np.zeros((2, 3), np.float16)}, path)
    with pytest.raises(InputError, match=r"x\.safetensors: lacks face\.bias, mouth\.weight"):
        PictureReader.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"x\.safetensors: not a landmark correction"):
        PictureReader.load(path)


def test_the_bundled_reader_says_what_the_bundled_correction_expects() -> None:
    reader, correction = load_picture_reader("anny"), load_landmark_correction("anny", True)
    assert reader is not None
    assert correction is not None
    assert correction.reads_pictures
    plain = load_landmark_correction("anny")
    assert plain is not None
    assert not plain.reads_pictures
    held_out = correction.protocol["held_out"]
    assert isinstance(held_out, dict)
    assert held_out["landmark_rmse_pct_after"] < 0.5 * held_out["landmark_rmse_pct_before"]
    features = np.zeros((2, 1497))
    looks = reader.read(_planes(2), _planes(1))
    assert len(correction.inputs(features, features[0], looks)[0]) == len(
        correction._a["weight0"][0]
    )
    assert load_picture_reader("flame2020") is None
    assert not correction_path("flame2020", pictures=True).exists()
