"""Read the bands of one scene on many small grids, each compressed block once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from types import TracebackType

from scenebeam.catalog.scene import Asset
from scenebeam.imaging.bands import resolve_nodata
from scenebeam.raster.grid import Grid
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import Block, Source
from scenebeam.raster.validity import Array, Mask
from scenebeam.raster.windows import WindowMappings, Windows
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.retry import Budget


def open_sources(assets: Sequence[Asset], budget: Budget) -> list[Future[Source]]:
    """Start to read the headers of files, all at once: each takes a round trip.

    Args:
        assets: The files.
        budget: Retries and waiting time.

    Returns:
        A future for each file, which raises ReadError if it cannot be opened.
    """
    return [
        io_threads().submit(open_source, asset.href, asset.index, budget, asset.signing)
        for asset in assets
    ]


class ChipReader:
    """The bands of one scene on many grids. A context manager that closes the sources.

    Grids are best read in the order of `file_order`: then each block is fetched and decoded once,
    and forgotten after the last grid that needs it.
    """

    def __init__(
        self,
        assets: Sequence[Asset],
        opened: Sequence[Future[Source]],
        grids: Mapping[int, Grid],
        resampling: Callable[[Asset], str],
    ) -> None:
        """Wait for the headers, and map every band to every grid.

        Args:
            assets: The bands.
            opened: Their sources, as `open_sources` returns them.
            grids: Number → grid, all of one CRS.
            resampling: The method of a band that is not categorical; those use nearest.

        Raises:
            ReadError: A file cannot be opened.
            CheckError: The nodata value of a file contradicts its collection's.
        """
        self._indices = {number: index for index, number in enumerate(grids)}
        self._files = ExitStack()
        self.nodata: list[float | None] = []
        """Nodata value of each band."""
        self.sources: list[Source] = []
        self._windows: list[Windows] = []
        grid_list = list(grids.values())
        shared = WindowMappings(grid_list)
        try:
            for future in opened:
                source = future.result()
                self._files.callback(source.close)
                self.sources.append(source)
            for asset, source in zip(assets, self.sources, strict=True):
                nodata = resolve_nodata(asset.href, source.info.nodata, asset.nodata)
                method = "nearest" if asset.categorical else resampling(asset)
                self.nodata.append(nodata)
                self._windows.append(Windows(source, grid_list, method, nodata, shared))
        except BaseException:
            self._files.close()
            raise

    def __enter__(self) -> ChipReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.close()

    def first_block(self, number: int) -> Block:
        """Return the first block of the first band that a grid needs: the key of `file_order`."""
        return self._windows[0].first_block(self._indices[number])

    def file_order(self) -> list[int]:
        """Return the numbers of the grids in the order of their blocks in the first file."""
        return sorted(self._indices, key=self.first_block)

    def read(self, number: int) -> list[tuple[Array, Mask | None]]:
        """Read all bands on one grid.

        Returns:
            For each band its pixels, nodata where the file has none, and where the file reaches at
            all (None: everywhere, or the nodata value says).

        Raises:
            ReadError: A block cannot be read.
        """
        index = self._indices[number]
        return [windows.read_and_extent(index) for windows in self._windows]
