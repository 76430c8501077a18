"""Shards of stores: each belongs to one task, whatever the cuts are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scenebeam.imaging.cube_layout import SHARD_SIDE, CubeLayout
from scenebeam.imaging.shards import cut_windows
from scenebeam.planning.cubes import common_cuts
from scenebeam.raster.pyramid import BLOCK_SIZE, level_shapes

shapes = st.tuples(st.integers(1, 40_000), st.integers(1, 40_000))


@given(shapes, st.lists(st.integers(1, 50_000), min_size=1, max_size=3))
def test_every_shard_is_written_by_one_task(shape: tuple[int, int], widths: list[int]) -> None:
    """Images of several times are cut in several ways, and have one layout."""
    cut = [cut_windows(shape, widest)[0] for widest in widths]
    layout = CubeLayout(shape, common_cuts(window for windows in cut for window in windows))
    assert 1 <= layout.shared <= len(layout.levels) == len(level_shapes(*shape))
    for level in range(len(layout.levels)):
        rows, columns = layout.shard_shape(level)
        assert rows % BLOCK_SIZE == columns % BLOCK_SIZE == 0
        assert 0 < rows <= SHARD_SIDE
        assert 0 < columns <= SHARD_SIDE
        everything = list(layout.shards(level))
        height, width = layout.levels[level]
        assert len(everything) == -(-height // rows) * -(-width // columns)
        if level < layout.shared:
            for windows in cut:
                written = [shard for window in windows for shard in layout.shards(level, window)]
                assert sorted(written) == everything
