"""Plan the labels of chips: the features of each cell, and the files of raster labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from shapely.geometry import shape

from scenebeam.catalog.bands import records_for
from scenebeam.catalog.scene import Asset, Scene
from scenebeam.csvtable import File
from scenebeam.errors import ReadError, RequestError
from scenebeam.imaging.refs import SceneFiles, scene_fields
from scenebeam.imaging.spool import SpooledFile, TableSpool, parquet_bytes
from scenebeam.metadata import stac_items
from scenebeam.products.chips.places import PlaceFaults
from scenebeam.products.chips.request import ChipsRequest, LabelRequest
from scenebeam.products.chips.task import CELLS, LabelSource
from scenebeam.raster.reader import open_source
from scenebeam.raster.validity import Array
from scenebeam.request import RunRequest
from scenebeam.tasks import GridSpec
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import effective_limits
from scenebeam.vectors import check_polygons, read_features

_SCHEMA = pa.schema([("number", pa.int64()), ("class", pa.string()), ("geometry", pa.binary())])
_MAX_CLASS = 65_535


def features_key(cell: str, label: str) -> str:
    """Return the key in the store of the features of a label near a cell."""
    return f"{CELLS}{cell}/{label}.parquet"


@dataclass(frozen=True)
class _NumberedFile:
    """The features of a cell, with the numbers of their classes."""

    spooled: SpooledFile
    numbers: Mapping[str, int]

    def to_bytes(self) -> bytes:
        table = self.spooled.table()
        values = [self.numbers.get(name or "", 0) for name in table.column("class").to_pylist()]
        numbered = table.set_column(1, "class", pa.array(values, pa.int32()))
        return parquet_bytes(numbered)


@dataclass
class LabelPlan:
    """What the cells need of the labels of a request."""

    files: dict[str, File] = field(default_factory=dict)
    """Tables of features, which are written with the plan."""
    classes: dict[str, dict[int, str]] = field(default_factory=dict)
    """Label → class → its name."""
    rasters: dict[str, tuple[SceneFiles, ...]] = field(default_factory=dict)
    """Label → the one file of a label that is a raster."""

    def source(
        self,
        label: LabelRequest,
        cell: str,
        scenes: Iterable[Scene],
        request: RunRequest[ChipsRequest],
    ) -> LabelSource:
        """Return where a cell finds the pixels of a label.

        Args:
            label: The label.
            cell: The cell.
            scenes: Scenes near the cell.
            request: The request of the run.
        """
        if label.vector:
            key = features_key(cell, label.name)
            known = self.classes[label.name]
            most = max([label.background, label.boundary or 0, *known], default=0)
            dtype = "uint32" if label.instances else "uint8" if most < 256 else "uint16"
            return LabelSource(
                name=label.name,
                dtype=dtype,
                features=key if key in self.files else "",
                background=label.background,
                all_touched=label.all_touched,
                instances=label.instances,
                boundary=label.boundary,
                classes=known,
            )
        layer = self.rasters.get(label.name)
        if layer is None:
            layer = _layer_of(label, scenes, request)
        dtype = layer[0].bands[0].dtype if layer else "uint8"
        return LabelSource(
            name=label.name,
            dtype=dtype,
            layer=layer,
            background=label.background,
            classes=self.classes.get(label.name, {}),
        )


def plan_labels(
    request: RunRequest[ChipsRequest], shapes: Array, cells: Sequence[str], faults: PlaceFaults
) -> LabelPlan:
    """Read the vector labels of a request, and look up its rasters.

    Args:
        request: The validated request.
        shapes: Outlines of the chips in degrees.
        cells: Cell of each chip.
        faults: Gets a row for each feature that is left out.

    Raises:
        RequestError: A label cannot be read.
    """
    plan = LabelPlan()
    tree = shapely.STRtree(shapes)
    for label in request.product.labels:
        if label.vector:
            _read_vector(label, tree, np.asarray(cells, object), plan, faults)
        elif label.raster:
            plan.rasters[label.name] = (_raster_file(label, request),)
        elif label.collection:
            plan.classes[label.name] = _classes_of(label, request)
    return plan


def _read_vector(
    label: LabelRequest,
    tree: shapely.STRtree,
    cells: Array,
    plan: LabelPlan,
    faults: PlaceFaults,
) -> None:
    """Spool the features of a label to the cells that they are near."""
    spool, names = TableSpool(), set[str]()
    columns = [label.column] if label.column else []
    first, usable_count = 1, 0
    try:
        for features in read_features(str(label.vector), columns):
            numbers = np.arange(first, first + len(features.faults))
            first += len(numbers)
            checked = check_polygons(features)
            classes = [_class_name(value) for value in features.columns.get(label.column or "", ())]
            usable = []
            for index, fault in enumerate(checked.faults):
                lacks = bool(label.column) and classes[index] is None
                if fault or lacks:
                    reason = fault or f"has no {label.column}"
                    described = f"label {label.name}: {reason}: left out"
                    faults.add(int(numbers[index]), features.ids[index], described)
                else:
                    usable.append(index)
            usable_count += len(usable)
            names.update(name for name in classes if name is not None)
            polygons = checked.polygons[usable]
            near, chips = tree.query(polygons, predicate="intersects")
            table = pa.table(
                {
                    "number": numbers[usable],
                    "class": [classes[index] if classes else None for index in usable],
                    "geometry": shapely.to_wkb(polygons),
                },
                schema=_SCHEMA,
            )
            spool.start_batch()
            for cell in np.unique(cells[chips]):
                rows = np.unique(near[cells[chips] == cell])
                spool.add(str(cell), table.take(pa.array(rows)))
    except RequestError as error:
        raise RequestError(f"product.labels: {label.name}: {error}") from None
    if not usable_count:
        raise RequestError(
            f"product.labels: {label.name}: no feature of {label.vector} can be used"
        )
    numbered = _number(names, label)
    for cell in spool.names():
        file = _NumberedFile(spool.file(cell), numbered)
        plan.files[features_key(cell, label.name)] = file
    plan.classes[label.name] = {number: name for name, number in numbered.items()}


def _class_name(value: Any) -> str | None:
    if value is None or value != value or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _number(names: set[str], label: LabelRequest) -> dict[str, int]:
    """Number the classes: whole numbers stay, and texts are numbered from 1 in their order.

    Raises:
        RequestError: A number is too large, or there are too many texts.
    """
    if not names:
        return {"": 1}
    if all(name.isdigit() for name in names):
        numbers = {name: int(name) for name in names}
    else:
        # The classes of the boundary and of the background are not given to texts.
        taken = {label.boundary, label.background}
        free = [number for number in range(1, len(names) + 3) if number not in taken]
        numbers = dict(zip(sorted(names), free, strict=False))
    if max(numbers.values()) > _MAX_CLASS:
        raise RequestError(
            f"product.labels: {label.name}: class {max(numbers.values())} is larger than "
            f"{_MAX_CLASS:,}; use instances, or another column than {label.column}"
        )
    return numbers


def _raster_file(label: LabelRequest, request: RunRequest[ChipsRequest]) -> SceneFiles:
    """Describe the file of a raster label.

    Raises:
        RequestError: It cannot be opened.
    """
    href = str(label.raster)
    try:
        source = open_source(href, 1, Budget.of(effective_limits(request)), "none")
    except ReadError as error:
        raise RequestError(f"product.labels: {label.name}: {error}") from None
    info = source.info
    source.close()
    grid = GridSpec(
        crs=info.crs, transform=tuple(info.transform)[:6], shape=(info.height, info.width)
    ).grid
    asset = Asset(
        band=label.name,
        href=href,
        index=1,
        resolution=abs(info.transform.a),
        dtype=np.dtype(info.dtype).name,
        nodata=info.nodata,
        scale=1.0,
        offset=0.0,
        add_offset=0,
        categorical=True,
    )
    footprint = shape(stac_items.grid_footprint(grid))
    return SceneFiles(
        id=href.rpartition("/")[2],
        when=stac_items.year_start(2000),
        item_href=None,
        footprint=shapely.to_wkb(footprint, hex=True),
        bands=(asset,),
    )


def _layer_of(
    label: LabelRequest, scenes: Iterable[Scene], request: RunRequest[ChipsRequest]
) -> tuple[SceneFiles, ...]:
    """Return the scenes of the label's collection, newest first."""
    [record, *_] = [one for one in records_for(request) if one.id == label.collection]
    band = record.band_name(label.band) if label.band else record.default_bands[0]
    if band is None:
        known = ", ".join(sorted(record.bands))
        raise RequestError(
            f"product.labels: {label.name}: {record.id} has no band {label.band}; known: {known}"
        )
    found = []
    for scene in scenes:
        if scene.collection == label.collection and band in scene.assets:
            found.append(scene)
    found.sort(key=lambda scene: (-scene.datetime.timestamp(), scene.id))
    return tuple(SceneFiles(**scene_fields(one), bands=(one.assets[band],)) for one in found)


def _classes_of(label: LabelRequest, request: RunRequest[ChipsRequest]) -> dict[int, str]:
    for record in records_for(request):
        if record.id == label.collection:
            return {number: one.name for number, one in record.classes.items()}
    return {}
