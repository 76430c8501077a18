"""Cutting: every pixel in just one shard, on whole cells."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scenebeam.products.shards import cut, shared_levels
from scenebeam.raster.pyramid import TILE, level_shapes

shapes = st.tuples(st.integers(1, 200_000), st.integers(1, 200_000))


@given(shapes, st.integers(1, 60_000))
def test_windows_cover_a_grid_once(shape: tuple[int, int], widest: int) -> None:
    windows, cell = cut(shape, widest)
    assert sum((bottom - top) * (right - left) for top, bottom, left, right in windows) == shape[0] * shape[1]
    assert len({(top, left) for top, _, left, _ in windows}) == len(windows)
    for top, bottom, left, right in windows:
        assert 0 <= top < bottom <= shape[0]
        assert 0 <= left < right <= shape[1]
        assert right - left <= max(widest, TILE)
        if len(windows) > 1:
            assert top % cell == left % cell == 0
            assert bottom == shape[0] or bottom % cell == 0
            assert right == shape[1] or right % cell == 0


@given(shapes, st.integers(1, 60_000))
def test_tiles_of_the_shared_levels_do_not_reach_beyond_a_shard(shape: tuple[int, int], widest: int) -> None:
    windows, cell = cut(shape, widest)
    if len(windows) == 1:
        return
    levels = shared_levels(shape, cell)
    assert 1 <= levels <= len(level_shapes(*shape))
    assert cell % (TILE << (levels - 1)) == 0
