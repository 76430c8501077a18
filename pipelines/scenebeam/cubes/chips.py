"""Open the chips of an output as one Dataset: dimensions chip, date, band, y and x.

To open them, every chip is read once, one at a time, as only its file knows when its images were
taken. For training, `scenebeam.chips` reads the same chips in order, without an index.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from scenebeam import chips
from scenebeam.chips import ChipDataset
from scenebeam.cubes.dataset import utc_time
from scenebeam.products.chips.layouts import LAYOUTS
from scenebeam.products.chips.report import manifest_keys
from scenebeam.products.chips.request import IMAGE
from scenebeam.raster.validity import Array

_Part = Literal["images", "masks"]


def open_chips(output: str) -> xarray.Dataset:
    """Open the chips of an output.

    Args:
        output: A folder or `gs://` prefix of a run of `kind: chips`.

    Returns:
        A lazy Dataset: `image` and the images of other collections of dimensions (chip, date, band,
        y, x), and a variable of dimensions (chip, y, x) for each label. `id`, `split`, and `lon`
        and `lat` of the center in degrees are along `chip`; `time` is along chip and date.

    Raises:
        RequestError: The output has no chips.
    """
    dataset = chips.open(output)
    count = len(dataset)
    arrays: dict[tuple[_Part, str], tuple[tuple[int, ...], np.dtype[Any]]] = {}
    ids, splits, times, centers = [], [], [], []
    for sample in dataset:
        metadata = sample["metadata"]
        ids.append(sample["id"])
        splits.append(metadata.get("split", ""))
        times.append(sample["time"])
        west, south, east, north = sample["bbox"]
        centers.append(((west + east) / 2, (south + north) / 2))
        for name in metadata["images"]:
            _widen(arrays, ("images", name), sample[name])
        for name, mask in sample["mask"].items():
            _widen(arrays, ("masks", name), mask)
    variables = {}
    for (part, name), (shape, dtype) in arrays.items():
        own = "" if name == IMAGE else f"{name}_"
        inner = ("y", "x") if part == "masks" else (f"{own}date", f"{own}band", "y", "x")
        lazy = indexing.LazilyIndexedArray(_LazyChips(dataset, part, name, (count, *shape), dtype))
        variables[name] = xarray.Variable(("chip", *inner), lazy)
    dates = max((len(one) for one in times), default=0)
    when = np.full((count, dates), np.datetime64("NaT"), "datetime64[ns]")
    for row, one in zip(when, times, strict=True):
        row[: len(one)] = [utc_time(moment) for moment in one]
    lon, lat = np.array(centers, np.float64).reshape(-1, 2).T
    coordinates = {
        "id": ("chip", np.array(ids, dtype=str)),
        "split": ("chip", np.array(splits, dtype=str)),
        "lon": ("chip", lon, {"units": "degrees_east"}),
        "lat": ("chip", lat, {"units": "degrees_north"}),
        "time": (("chip", "date"), when),
    }
    return xarray.Dataset(variables, coordinates)


def _widen(
    arrays: dict[tuple[_Part, str], tuple[tuple[int, ...], np.dtype[Any]]],
    key: tuple[_Part, str],
    array: Array,
) -> None:
    """Let the shape of an array hold one more chip: some chips have more dates than others."""
    shape, _ = arrays.get(key, (array.shape, array.dtype))
    widest = tuple(max(sizes) for sizes in zip(shape, array.shape, strict=True))
    arrays[key] = widest, array.dtype


class _LazyChips(BackendArray):
    """One array of all chips, of which the selected ones are read; 0 where a chip has none."""

    def __init__(
        self,
        dataset: ChipDataset,
        part: _Part,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        self._dataset, self._part, self._name = dataset, part, name
        self.shape, self.dtype = shape, dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[int | slice, ...]) -> Array:
        first, *inner = key
        numbers = (
            range(self.shape[0])[first] if isinstance(first, slice) else range(first, first + 1)
        )
        read = {}
        store, layout = self._dataset.store, LAYOUTS[self._dataset.layout]
        files = sorted(manifest_keys(store))
        found = layout.read(store, self._dataset.splits, files)
        # A chip is found without reading those before it.
        for number, sample in enumerate(itertools.islice(found, max(numbers, default=-1) + 1)):
            if number in numbers:
                pixels = getattr(sample(), self._part).get(self._name)
                whole: Array = np.zeros(self.shape[1:], self.dtype)
                if pixels is not None:
                    whole[tuple(map(slice, pixels.shape))] = pixels
                read[number] = whole[tuple(inner)]
        if not isinstance(first, slice):
            return read[first]
        if not len(numbers):
            return np.zeros((0, *np.empty(self.shape[1:])[tuple(inner)].shape), self.dtype)
        return np.stack([read[number] for number in numbers])
