from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from cag_avatar_training.config import RefinementConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.evaluation import evaluate, measure_images
from cag_avatar_training.perceptual import load_perceptual

from cag_avatar.errors import InputError
from tests.conftest import TINY_SIZE, make_avatar


def test_a_perfect_prediction():
    torch.manual_seed(0)
    image = torch.rand(80, 80, 3)
    figures = measure_images(
        image, image, {"matte": torch.ones(80, 80, dtype=bool)}, load_perceptual("alex")
    )
    assert figures["psnr"] == figures["psnr_matte"] == 100
    assert figures["ssim"] == pytest.approx(1)
    assert figures["l1"] == figures["stlpips"] == 0


def test_matte_figures_ignore_the_background():
    target = torch.zeros(80, 80, 3)
    image = target.clone()
    image[:, 40:] = 1.0
    matte = torch.zeros(80, 80, dtype=bool)
    matte[:, :30] = True
    figures = measure_images(image, target, {"matte": matte}, load_perceptual("alex"))
    assert figures["psnr_matte"] == 100
    assert figures["psnr"] < 4
    assert figures["l1"] == pytest.approx(0.5)


def test_files_and_figures_agree(tiny_dataset, tmp_path):
    out = tmp_path / "report"
    seen = []
    result = evaluate(
        make_avatar(),
        tiny_dataset,
        out,
        refinement=RefinementConfig(steps=2, size=TINY_SIZE),
        backend="cpu",
        show=lambda *step: seen.append(step),
    )
    written = json.loads((out / "metrics.json").read_text())
    assert written == json.loads(json.dumps(result))
    assert seen[-1] == ("measuring", 3, 3)
    assert set(written["as_tracked"]) == set(written["refined"])
    assert written["refined"]["psnr"] >= written["as_tracked"]["psnr"] - 0.05
    protocol = written["protocol"]
    assert protocol["split"] == "last"
    assert "ST-LPIPS" in protocol["perceptual"]
    errors = []
    for index in (12, 13, 14):
        pair = [cv2.imread(str(out / d / f"{index:05d}.png")) for d in ("pred", "truth")]
        difference = pair[0].astype(float) - pair[1].astype(float)
        errors.append(-10 * np.log10((difference**2).mean() / 255**2))
    assert np.mean(errors) == pytest.approx(written["refined"]["psnr"], abs=1e-3)
    assert cv2.imread(str(out / "side_by_side.png")).shape == (2 * TINY_SIZE, 3 * TINY_SIZE, 3)
    video = cv2.VideoCapture(str(out / "side_by_side.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert video.get(cv2.CAP_PROP_FRAME_WIDTH) == 2 * TINY_SIZE
    truth = cv2.imread(str(out / "truth" / "00012.png"))[..., ::-1]
    target = tiny_dataset.frame(12).target(torch.ones(3)).numpy() * 255
    assert np.abs(truth - target).max() <= 0.51


def test_evaluation_does_not_change_the_avatar(tiny_dataset, tmp_path):
    avatar = make_avatar()
    before = {k: v.clone() for k, v in avatar.state_dict().items()}
    evaluate(avatar, tiny_dataset, tmp_path, refine=False, backend="cpu")
    assert all(torch.equal(v, before[k]) for k, v in avatar.state_dict().items())


def test_an_avatar_without_record_is_refused(tiny_dataset, tmp_path):
    avatar = make_avatar()
    avatar.record = None
    with pytest.raises(InputError, match="capture record"):
        evaluate(avatar, tiny_dataset, tmp_path, backend="cpu")


def test_code_errors_are_of_the_held_out_frames(tiny_dataset, tmp_path):
    scores = tiny_dataset.tracking.codes.copy()
    scores[12:] += 0.25
    scored = Dataset(
        tiny_dataset.path, tiny_dataset.info, replace(tiny_dataset.tracking, scores=scores)
    )
    result = evaluate(make_avatar(), scored, tmp_path / "r", refine=False, backend="cpu")
    assert result["code_error"] == {"raw_scores": 0.25, "regressor": None, "frames": 3}
