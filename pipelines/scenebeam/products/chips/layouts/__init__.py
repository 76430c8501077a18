"""How chips are packed: one module for each layout, which writes samples and reads them back."""

from __future__ import annotations

from scenebeam.products.chips.layouts.base import FileRecord, Layout, StoredChip, StoredSample
from scenebeam.products.chips.layouts.cogs import Cogs
from scenebeam.products.chips.layouts.parquet import ParquetRows
from scenebeam.products.chips.layouts.webdataset import WebDataset
from scenebeam.products.chips.layouts.zarr import ZarrStore

LAYOUTS: dict[str, type[Layout]] = {
    "cogs": Cogs,
    "parquet": ParquetRows,
    "webdataset": WebDataset,
    "zarr": ZarrStore,
}
"""`product.layout` → its class. A new layout is one module and one line here."""

__all__ = ["LAYOUTS", "FileRecord", "Layout", "StoredChip", "StoredSample"]
