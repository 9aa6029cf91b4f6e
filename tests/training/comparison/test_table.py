"""Averages, spreads and changes against numbers worked out by hand."""

from __future__ import annotations

import csv
import io
import json

import pytest
from cag_avatar_training.comparison.table import ALL, Cell, make_table, table_csv

METRICS = {
    Cell("a", "last", 0, "new"): {"refined": {"l1_mouth": 0.9, "psnr": 30.0, "l1_eyes": None}},
    Cell("a", "last", 0, "concat"): {"refined": {"l1_mouth": 1.0, "psnr": 29.0, "l1_eyes": 0.5}},
    Cell("a", "last", 1, "new"): {"refined": {"l1_mouth": 1.4, "psnr": 31.0, "l1_eyes": None}},
    Cell("a", "last", 1, "concat"): {"refined": {"l1_mouth": 2.0, "psnr": 31.5, "l1_eyes": 0.5}},
    Cell("b", "last", 0, "new"): {"refined": {"l1_mouth": 1.1, "psnr": 20.0}},
    Cell("b", "last", 0, "concat"): {"refined": {"l1_mouth": 1.0, "psnr": 20.0}},
}


def test_means_and_spreads() -> None:
    table = make_table(METRICS, "concat")
    figure = table.figures["a", "last", "new", "refined"]["l1_mouth"]
    assert figure.mean == pytest.approx(1.15)
    assert figure.spread == pytest.approx(0.5 / 2**0.5)
    assert figure.values == (0.9, 1.4)
    assert table.figures["b", "last", "new", "refined"]["psnr"].spread is None
    assert "l1_eyes" not in table.figures["a", "last", "new", "refined"]
    assert table.modes() == ["refined"]
    assert table.variants() == ["new", "concat"]


def test_changes_are_paired_by_seed() -> None:
    table = make_table(METRICS, "concat")
    change = table.changes["a", "last", "new", "refined"]
    assert change["l1_mouth"].mean == pytest.approx((-10 - 30) / 2)
    assert change["l1_mouth"].unit == "%"
    assert change["psnr"].mean == pytest.approx((1 - 0.5) / 2)
    assert change["psnr"].unit == "dB"
    everything = table.changes[ALL, ALL, "new", "refined"]
    assert everything["l1_mouth"].mean == pytest.approx((-20 + 10) / 2)
    assert everything["psnr"].mean == pytest.approx((0.25 + 0) / 2)


def test_without_the_baseline_there_are_no_changes() -> None:
    assert not make_table(METRICS, "one-token").changes


def test_csv_and_json_hold_the_same() -> None:
    table = make_table(METRICS, "concat")
    rows = list(csv.DictReader(io.StringIO(table_csv(table))))
    row = next(r for r in rows if (r["dataset"], r["fusion"], r["region"]) == ("a", "new", "mouth"))
    assert (row["metric"], row["mean"], row["seeds"], row["unit"]) == ("l1", "1.15", "2", "%")
    assert float(row["change"]) == pytest.approx(-20)
    assert any(r["dataset"] == ALL and r["mean"] == "" and r["change"] for r in rows)
    assert next(r for r in rows if r["metric"] == "psnr")["region"] == "whole"
    content = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    found = next(r for r in content["figures"] if (r["dataset"], r["fusion"]) == ("a", "new"))
    assert found["figures"]["l1_mouth"]["values"] == [0.9, 1.4]
