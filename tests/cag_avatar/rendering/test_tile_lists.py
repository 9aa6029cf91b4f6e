from __future__ import annotations

import pytest
import torch

from cag_avatar.rendering.tile_lists import TILE, TileLists

WIDTH, HEIGHT = 70, 50
COLUMNS, ROWS = 5, 4


def projected(images=3, count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    means = torch.rand(images, count, 2, generator=generator) * 110 - 20
    radii = torch.randint(-3, 30, (images, count, 2), generator=generator).clamp_min(0).int()
    depths = torch.rand(images, count, generator=generator) + 0.5
    hidden = (radii == 0).any(-1)
    means[hidden] = torch.nan  # gsplat leaves them as it finds them
    return means, radii, depths


def lists_of(table, images):
    """Gaussians of each tile that shows, by (image, row, column)."""
    bounds = [*table.start.flatten().tolist(), len(table.gaussians)]
    found = {}
    for n in range(images * (ROWS + 1) * COLUMNS):
        image, place = divmod(n, (ROWS + 1) * COLUMNS)
        row, column = divmod(place, COLUMNS)
        chosen = table.gaussians[bounds[n] : bounds[n + 1]].tolist()
        if row < ROWS:
            found[image, row, column] = chosen
        elif n < images * (ROWS + 1) * COLUMNS - 1:
            assert chosen == []
    return found


def brute_force(means, radii, depths):
    images, count = depths.shape
    found = {}
    for image in range(images):
        for row in range(ROWS):
            for column in range(COLUMNS):
                met = []
                for g in range(count):
                    (x, y), (a, b) = means[image, g].tolist(), radii[image, g].tolist()
                    inside = x - a < (column + 1) * TILE and x + a > column * TILE
                    inside = inside and y - b < (row + 1) * TILE and y + b > row * TILE
                    if a > 0 and b > 0 and inside:
                        met.append((float(depths[image, g]), image * count + g))
                found[image, row, column] = [g for _, g in sorted(met)]
    return found


@pytest.mark.parametrize("spare", [0, 1, 5000])
def test_lists_are_those_of_a_plain_search(spare):
    means, radii, depths = projected()
    expected = brute_force(means, radii, depths)
    pairs = sum(map(len, expected.values()))
    table = TileLists(3, 40, WIDTH, HEIGHT, pairs + spare)(means, radii, depths)
    assert int(table.pairs) == pairs > 100
    assert lists_of(table, 3) == expected
    assert table.start.shape == (3, ROWS + 1, COLUMNS)
    assert table.gaussians.dtype == table.start.dtype == torch.int32


def test_equals_gsplat():
    oracle = pytest.importorskip("gsplat.cuda._torch_impl")
    means, radii, depths = projected(2, 25, seed=1)
    means = means.nan_to_num(0.0)
    counts, keys, ids = oracle._isect_tiles(means, radii, depths, TILE, COLUMNS, ROWS)
    start = oracle._isect_offset_encode(keys, 2, COLUMNS, ROWS)
    table = TileLists(2, 25, WIDTH, HEIGHT, len(ids) + 100)(means, radii, depths)
    assert int(table.pairs) == len(ids) == int(counts.sum())
    assert torch.equal(table.gaussians[: len(ids)], ids)
    assert torch.equal(table.start[:, :ROWS], start.reshape(2, ROWS, COLUMNS))


def test_too_little_room_is_told():
    means, radii, depths = projected()
    full = TileLists(3, 40, WIDTH, HEIGHT, 5000)(means, radii, depths)
    table = TileLists(3, 40, WIDTH, HEIGHT, 50)(means, radii, depths)
    assert int(table.pairs) == int(full.pairs) > 50
    assert table.gaussians.shape == (50,)
    assert 0 <= int(table.gaussians.min()) <= int(table.gaussians.max()) < 120
    assert int(table.start.max()) <= 50


def test_nothing_to_see():
    means, radii, depths = projected(1, 10)
    table = TileLists(1, 10, WIDTH, HEIGHT, 64)(means, radii * 0, depths)
    assert int(table.pairs) == 0
    assert not any(lists_of(table, 1).values())


def test_equal_depths_keep_the_order_of_the_gaussians():
    means = torch.full((1, 6, 2), 8.0)
    radii = torch.full((1, 6, 2), 3, dtype=torch.int32)
    table = TileLists(1, 6, WIDTH, HEIGHT, 100)(means, radii, torch.ones(1, 6))
    assert lists_of(table, 1)[0, 0, 0] == list(range(6))
