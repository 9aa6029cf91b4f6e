"""The whole comparison on the tiny dataset: kept cells, resumption, files, command line."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cag_avatar_training.comparison import (
    ComparisonConfig,
    cells,
    compare,
    parse_splits,
    parse_variant,
)
from cag_avatar_training.comparison.cost import inference_costs
from cag_avatar_training.comparison.protocol import protocol_line
from cag_avatar_training.config import LossConfig, RefinementConfig, TrainConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.trainer import Trainer

from cag_avatar.errors import InputError
from tests.conftest import TINY_SIZE, make_avatar, tiny_config

TRAIN = TrainConfig(
    avatar=tiny_config(),
    iterations=6,
    sizes=((0.0, TINY_SIZE),),
    loss=LossConfig(perceptual_weight=0),
    refinement=RefinementConfig(at=()),
    backend="cpu",
)
CONFIG = ComparisonConfig(
    train=TRAIN,
    variants=(parse_variant("cross-attention"), parse_variant("concat")),
    refinement=RefinementConfig(steps=1, size=TINY_SIZE // 2),
    pictures=2,
)


@pytest.fixture(scope="module")
def finished(
    tiny_dataset_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A dataset and the folder of its comparison; not to be changed."""
    folder = tmp_path_factory.mktemp("compare")
    dataset = folder / "person.dataset"
    shutil.copytree(tiny_dataset_path, dataset)
    compare([dataset], folder / "out", CONFIG, show_progress=False)
    return dataset, folder / "out"


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("trained or measured again")


def test_finished_cells_are_not_made_again(
    finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, out = finished
    before = json.loads((out / "table.json").read_text())
    monkeypatch.setattr(cells, "train", refuse)
    monkeypatch.setattr(cells, "evaluate", refuse)
    said: list[str] = []
    compare([dataset], out, CONFIG, announce=said.append, show_progress=False)
    after = json.loads((out / "table.json").read_text())
    for key in ("figures", "changes", "cells", "protocol"):
        assert after[key] == before[key]
    assert said[0] == "2 cells, 0 of them to be trained"


@pytest.mark.parametrize(
    "other",
    [
        replace(CONFIG, train=replace(TRAIN, iterations=7)),
        replace(CONFIG, splits=parse_splits(["last"], [1])),
        replace(CONFIG, variants=(parse_variant("concat:width=16"),)),
    ],
)
def test_other_settings_are_another_cell(
    other: ComparisonConfig, finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "train", refuse)
    with pytest.raises(AssertionError, match="again"):
        compare([finished[0]], finished[1], other, show_progress=False)


def test_other_pictures_are_another_cell(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = tmp_path / "person.dataset"
    shutil.copytree(finished[0], dataset)
    picture = cv2.imread(str(dataset / "images" / "00003.png"))
    picture[0, 0] ^= 1
    cv2.imwrite(str(dataset / "images" / "00003.png"), picture)
    monkeypatch.setattr(cells, "train", refuse)
    with pytest.raises(AssertionError, match="again"):
        compare([dataset], finished[1], CONFIG, show_progress=False)


def test_measuring_otherwise_does_not_train(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[1], out)
    monkeypatch.setattr(cells, "train", refuse)
    found = compare([finished[0]], out, replace(CONFIG, refine=False, every=2), show_progress=False)
    assert found.table.modes() == ["as_tracked"]
    assert found.protocol["datasets"]["person"]["measured_frames"] == {"last": 2}


def test_figures_are_those_of_the_pictures(finished: tuple[Path, Path]) -> None:
    dataset, out = Dataset.open(finished[0]), finished[1]
    content = json.loads((out / "table.json").read_text())
    cell = next(c for c in content["cells"] if c["variant"] == "cross-attention")
    pictures = next((out / cell["folder"]).glob("evaluation_*"))
    errors = []
    for index in (12, 13, 14):
        picture = cv2.imread(str(pictures / "pred" / f"{index:05d}.png"))[..., ::-1]
        truth = (dataset.frame(index).target(torch.ones(3)) * 255 + 0.5).byte().numpy()
        parsing = cv2.imread(str(dataset.path / "parsing" / f"{index:05d}.png"), 0)
        errors.append(
            np.abs(picture.astype(float) - truth)[np.isin(parsing, (4, 5, 6))].mean() / 255
        )
    row = next(
        r for r in content["figures"] if (r["fusion"], r["mode"]) == ("cross-attention", "refined")
    )
    assert row["figures"]["l1_mouth"]["mean"] == pytest.approx(np.mean(errors), abs=1e-5)
    written = list(csv.DictReader((out / "table.csv").open()))
    line = next(
        r
        for r in written
        if (r["fusion"], r["mode"], r["metric"], r["region"])
        == ("cross-attention", "refined", "l1", "mouth")
    )
    assert float(line["mean"]) == pytest.approx(np.mean(errors), abs=1e-5)
    assert float(line["change"]) != 0
    assert content["protocol"]["datasets"]["person"]["regions"]["last"]["mouth"]["frames"] == 3


def test_protocol_line_tells_what_the_figures_depend_on(finished: tuple[Path, Path]) -> None:
    protocol = json.loads((finished[1] / "table.json").read_text())["protocol"]
    rates = {**protocol["training"]["rates"], "network": 3e-3, "local": 7e-4}
    line = protocol_line({**protocol, "every": 2, "training": {"rates": rates}})
    for part in (
        "person (15 frames, ",
        "last (seeds 0), 1 in 2 held-out frames",
        "6 iterations, learning rates of network 0.003 and own matrices 0.0007",
    ):
        assert part in line


def test_page_is_self_contained(finished: tuple[Path, Path]) -> None:
    page = (finished[1] / "report.html").read_text()
    assert "http" not in page
    sources = re.findall(r"src='data:image/(png|jpeg);base64,", page)
    assert sources.count("jpeg") == sources.count("png") == 2 * 3  # frames x (truth, two fusions)
    assert "L1, mouth" in page
    assert "6 iterations" in page


def test_an_interrupted_cell_goes_on(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    plain, steps = Trainer.step, []

    def step(trainer: Trainer) -> float:
        if len(steps) == 4:
            raise KeyboardInterrupt
        steps.append(trainer.iteration)
        return plain(trainer)

    monkeypatch.setattr(Trainer, "step", step)
    one = replace(CONFIG, variants=CONFIG.variants[:1], refine=False)
    with pytest.raises(KeyboardInterrupt):
        compare([finished[0]], out, one, show_progress=False)
    assert not (out / "table.json").exists()
    monkeypatch.setattr(Trainer, "step", lambda t: (steps.append(t.iteration), plain(t))[1])
    found = compare([finished[0]], out, one, show_progress=False)
    assert steps == list(range(6))
    assert not list(out.glob("cells/*/training"))
    whole = json.loads((finished[1] / "table.json").read_text())
    row = next(
        r for r in whole["figures"] if (r["fusion"], r["mode"]) == ("cross-attention", "as_tracked")
    )
    here = found.table.figures["person", "last", "cross-attention", "as_tracked"]
    assert here["l1"].mean == row["figures"]["l1"]["mean"]


def test_cost_counts_what_depends_on_the_frame() -> None:
    avatars = {"concat": make_avatar(fusion="concat"), "one-token": make_avatar(fusion="one-token")}
    costs = inference_costs(avatars)
    count = avatars["concat"].num_gaussians
    inputs, width = 55, 32  # 52 coefficients and the neck's rotation; tiny_config's width
    products = width * width + width * 12 + inputs * width / count
    assert costs["concat"].multiply_adds == pytest.approx(products, abs=0.06)
    own = avatars["concat"]
    learned = sum(p.numel() for p in own.network.parameters())
    assert costs["concat"].parameters == learned
    assert costs["concat"].network_ms > 0
    assert costs["one-token"].multiply_adds > costs["concat"].multiply_adds


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("gate", "unknown 'gate'"),
        ("concat:width", "form concat:name=value"),
        ("concat:witdh=3", "no setting 'witdh'"),
        ("concat:width=wide", "width cannot be 'wide'"),
        ("concat:width=0", "width: 0 must lie"),
        ("concat:rates.nothing=1", "no setting 'nothing'"),
        ("concat:sizes=1", "sizes cannot be 1"),
    ],
)
def test_wrong_variants(word: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ComparisonConfig(train=TRAIN, variants=(parse_variant(word),))


def test_a_variant_changes_what_it_says() -> None:
    changed = parse_variant("concat:width=48,rates.network=1,max_color=0").apply(TRAIN)
    assert (changed.avatar.fusion, changed.avatar.width) == ("concat", 48)
    assert (changed.rates.network, changed.avatar.max_color) == (1.0, 0.0)
    assert changed.avatar.depth == TRAIN.avatar.depth


def test_splits_with_seeds_of_their_own() -> None:
    found = parse_splits(["blocks", "last:3,4"], [0, 1])
    assert [(entry.split, entry.seeds) for entry in found] == [("blocks", (0, 1)), ("last", (3, 4))]
    with pytest.raises(InputError, match="unknown 'first'"):
        parse_splits(["first"], [0])
    with pytest.raises(InputError, match="form last:0,1"):
        parse_splits(["last:a"], [0])
    with pytest.raises(InputError, match="named twice"):
        ComparisonConfig(train=TRAIN, splits=parse_splits(["last", "last"], [0]))


def test_names_and_truths_are_checked_first(finished: tuple[Path, Path], tmp_path: Path) -> None:
    dataset = finished[0]
    with pytest.raises(InputError, match="second dataset called 'person'"):
        compare([dataset, dataset], tmp_path, CONFIG)
    with pytest.raises(InputError, match="other.truth is missing, or of no video"):
        compare([dataset], tmp_path, CONFIG, [tmp_path / "other.truth"])
    with pytest.raises(InputError, match="too few"):
        compare([dataset], tmp_path, replace(CONFIG, splits=parse_splits(["blocks"], [0])))
    assert not list(tmp_path.iterdir())


def test_avatars_of_other_code_are_used_with_a_warning(
    finished: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[1], out)
    monkeypatch.setattr(cells, "train", refuse)
    compare([finished[0]], out, CONFIG, show_progress=False)
    assert "another state" not in caplog.text
    about = next(out.glob("cells/*/cell.json"))
    about.write_text(json.dumps(json.loads(about.read_text()) | {"source": "older"}))
    compare([finished[0]], out, CONFIG, show_progress=False)
    assert caplog.text.count("another state of the program's code") == 1
    about.write_text("{")
    compare([finished[0]], out, CONFIG, show_progress=False)
    assert caplog.text.count("another state of the program's code") == 2


def test_damaged_figures_are_named(finished: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[1], out)
    next(out.glob("cells/*/evaluation_*/metrics.json")).write_text("{")
    with pytest.raises(InputError, match=r"metrics\.json: missing or damaged"):
        compare([finished[0]], out, CONFIG, show_progress=False)
