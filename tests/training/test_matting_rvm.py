"""Robust Video Matting's contract, on small networks written here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from cag_avatar_training.matting import MatteConfig, check_networks, matte_clip
from cag_avatar_training.matting.robust_video_matting import RobustVideoMatting
from cag_avatar_training.preprocess import PreprocessConfig, preprocess
from onnx import TensorProto, helper

from cag_avatar.errors import InputError
from cag_avatar.head_models.base import REGIONS

SIZE = 48
STATES = ("r1", "r2", "r3", "r4")


def write_rvm(path: Path, half: bool = False, leave_out: str = "", rank: int = 4, **shapes) -> Path:
    """Alpha is the red of this frame and of the last, halved: r1 remembers; r2 counts frames."""
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    any_shape = [1, "c", "h", "w"][:rank]

    def port(name: str, shape: list) -> onnx.ValueInfoProto:
        number = TensorProto.FLOAT if name == "downsample_ratio" else kind
        return helper.make_tensor_value_info(name, number, shapes.get(name, shape))

    scalar = onnx.numpy_helper.from_array
    dtype = np.float16 if half else np.float32
    nodes = [
        helper.make_node("Split", ["src", "parts"], ["red", "green", "blue"], axis=1),
        helper.make_node("Add", ["red", "r1i"], ["sum"]),
        helper.make_node("Mul", ["sum", "half"], ["pha"]),
        helper.make_node("Identity", ["red"], ["r1o"]),
        helper.make_node("Add", ["r2i", "one"], ["r2o"]),
        helper.make_node("Identity", ["r3i"], ["r3o"]),
        helper.make_node("Identity", ["r4i"], ["r4o"]),
        helper.make_node("Identity", ["src"], ["fgr"]),
    ]
    names = ["src", *(f"{n}i" for n in STATES), "downsample_ratio"]
    inputs = [
        port(name, [1, 3, "H", "W"] if name == "src" else any_shape)
        if name != "downsample_ratio"
        else port(name, [1])
        for name in names
    ]
    outputs = [port("fgr", [1, 3, "H", "W"]), port("pha", [1, 1, "H", "W"])]
    outputs += [port(f"{n}o", any_shape) for n in STATES]
    graph = helper.make_graph(
        nodes,
        "rvm",
        inputs,
        [value for value in outputs if value.name != leave_out],
        [
            scalar(np.array([1, 1, 1], np.int64), "parts"),
            scalar(np.array(0.5, dtype), "half"),
            scalar(np.array(1, dtype), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("half", [False, True])
def test_frames_are_matted_with_memory_of_the_last(tmp_path, half):
    network = RobustVideoMatting(write_rvm(tmp_path / "rvm.onnx", half=half))
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (3, 20, 30, 3), dtype=np.uint8)
    for _ in range(2):
        last = np.zeros((20, 30))
        for frame in frames:
            alpha = network.matte(frame)
            assert alpha.shape == (20, 30)
            assert alpha.dtype == np.float32
            np.testing.assert_allclose(alpha, (frame[..., 0] / 255 + last) / 2, atol=2e-3)
            last = frame[..., 0] / 255
        network.forget()


def test_a_clip_is_matted_in_order(tmp_path):
    config = MatteConfig(rvm=write_rvm(tmp_path / "rvm.onnx"), border=0)
    labels = np.full((SIZE, SIZE), -1)
    labels[10:30, 15:35] = REGIONS.index("face_skin")
    labels[30:38, 20:30] = REGIONS.index("neck")
    labels[38:, 5:45] = REGIONS.index("shoulders")
    frames = np.zeros((4, SIZE, SIZE, 3), np.uint8)
    for t in range(4):
        frames[t, 5 + t :, 10:40, 0] = 255
    steps = []
    alpha = np.stack(
        list(
            matte_clip(
                frames.__getitem__, lambda i: labels, 4, config, workers=1,
                progress=lambda done, total: steps.append((done, total)),
            )
        )
    )  # fmt: skip
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (alpha[0, 5:, 10:40] == 128).all()
    assert (alpha[2, 8:, 10:40] == 255).all()
    assert (alpha[2, 6, 10:40] == 128).all()  # the last frame's row, remembered
    assert alpha[:, :, :9].sum() == 0
    neck = MatteConfig(rvm=config.rvm, border=0, shoulders="cut")
    cut = list(matte_clip(frames.__getitem__, lambda i: labels, 4, neck, workers=1))
    assert cut[2][38:].sum() == 0
    assert (cut[2][9:25, 10:40] == 255).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"leave_out": "r3o"}, r"output 'r3o' \(float or float16 \[1, C, h, w\]\) is missing"),
        ({"src": [1, 3, 64]}, r"input 'src' is tensor\(float\) \[1, 3, 64\], expected float"),
        ({"downsample_ratio": [2]}, r"'downsample_ratio' is tensor\(float\) \[2\], expected"),
        ({"rank": 3}, r"input 'r1i' is tensor\(float\) \[1, c, h\], expected"),
    ],
)
def test_a_network_of_another_kind_is_refused(tmp_path, change, message):
    file = write_rvm(tmp_path / "other.onnx", **change)
    with pytest.raises(InputError, match=message) as caught:
        RobustVideoMatting(file)
    assert str(caught.value).startswith(f"matte.rvm: {file}: ")
    assert "\n" not in str(caught.value)


def test_a_network_of_one_size_only_is_named_when_it_runs(tmp_path):
    network = RobustVideoMatting(write_rvm(tmp_path / "rvm.onnx", src=[1, 3, 64, 64]))
    with pytest.raises(InputError, match=r"the network failed on src \[1, 3, 48, 48\]"):
        network.matte(np.zeros((SIZE, SIZE, 3), np.uint8))


def test_a_wrong_file_is_told_before_the_video_is_read(tmp_path):
    config = PreprocessConfig(matte=MatteConfig(rvm=tmp_path / "none.onnx"))
    with pytest.raises(InputError, match="matte.rvm: .*none.onnx: no such file"):
        preprocess(tmp_path / "no.mp4", tmp_path / "out", config)
    check_networks(MatteConfig(rvm=write_rvm(tmp_path / "rvm.onnx")))
    with pytest.raises(InputError, match="matte.bisenet"):
        check_networks(MatteConfig(bisenet=tmp_path / "rvm.onnx"))


def test_what_is_no_network_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        RobustVideoMatting(tmp_path / "none.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("not a network")
    with pytest.raises(InputError, match="not an ONNX file"):
        RobustVideoMatting(text)
