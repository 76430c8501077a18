"""Plan the labels of chips: the features of each cell, and the files of raster labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.bands import records_for
from scenebeam.catalog.scene import Asset, Scene
from scenebeam.collections import CollectionRecord
from scenebeam.csvtable import File
from scenebeam.errors import ReadError, RequestError
from scenebeam.imaging.chip_places import bounds_by_hemisphere
from scenebeam.imaging.refs import SceneFiles, scene_fields
from scenebeam.imaging.spool import SpooledFile, TableSpool, parquet_bytes
from scenebeam.metadata import stac_items
from scenebeam.products.chips.places import PlaceFaults
from scenebeam.products.chips.request import ChipsRequest, LabelRequest
from scenebeam.products.chips.task import CELLS, LabelSource
from scenebeam.raster.reader import open_source
from scenebeam.raster.validity import Array, fits
from scenebeam.request import RunRequest
from scenebeam.tasks import GridSpec
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import effective_limits
from scenebeam.vectors import check_polygons, read_features

_SCHEMA = pa.schema([("number", pa.int64()), ("class", pa.string()), ("geometry", pa.binary())])
_MAX_CLASS = 65_535
_MARGIN, _LONGEST_EDGE = 0.02, 0.01
"""Degrees."""


def features_key(cell: str, label: str) -> str:
    """Return the key in the store of the features of a label near a cell."""
    return f"{CELLS}{cell}/{label}.parquet"


@dataclass(frozen=True)
class _NumberedFile(File):
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
    rasters: dict[str, SceneFiles] = field(default_factory=dict)
    """Label → the file of a label that is a raster."""

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
                is_vector=True,
                features=key if key in self.files else "",
                background=label.background,
                all_touched=label.all_touched,
                instances=label.instances,
                boundary=label.boundary,
                classes=known,
            )
        if label.raster:
            layer: tuple[SceneFiles, ...] = (self.rasters[label.name],)
            dtype, nodata = layer[0].bands[0].dtype, layer[0].bands[0].nodata
        else:
            record, band = _band_of_collection(label, request)
            layer = _layer_of(label, band, scenes)
            dtype, nodata = record.band_dtype(band), record.band_nodata(band)
        return LabelSource(
            name=label.name,
            dtype=dtype,
            nodata=nodata,
            is_vector=False,
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
            plan.rasters[label.name] = _raster_file(label, request)
        elif label.collection:
            record, _ = _band_of_collection(label, request)
            plan.classes[label.name] = {key: one.name for key, one in record.classes.items()}
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
    extents: dict[str, BaseGeometry] = {}
    for cell in np.unique(cells):
        boxes = bounds_by_hemisphere(tree.geometries[cells == cell])
        extents[str(cell)] = shapely.union_all([shapely.box(*box) for box in boxes])
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
            spool.start_batch()
            for cell in np.unique(cells[chips]):
                rows = np.unique(near[cells[chips] == cell])
                names_of = [classes[usable[row]] if classes else None for row in rows.tolist()]
                table = {
                    "number": numbers[usable][rows],
                    "class": names_of,
                    "geometry": shapely.to_wkb(_clip(polygons[rows], extents[str(cell)])),
                }
                spool.add(str(cell), pa.table(table, schema=_SCHEMA))
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


def _clip(polygons: Array, extent: BaseGeometry) -> Array:
    """Clip polygons to a cell, and give their long edges more points.

    An edge that is straight in degrees bends when it is projected, and what is far away may have no
    place in the CRS of the cell.
    """
    around = shapely.buffer(extent, _MARGIN)
    shapely.prepare(around)
    clipped = polygons.copy()
    for index in np.flatnonzero(~shapely.covers(around, polygons)).tolist():
        clipped[index] = shapely.intersection(polygons[index], around)
    return np.asarray(shapely.segmentize(clipped, _LONGEST_EDGE))


def _class_name(value: Any) -> str | None:
    """Return a class as a text; None if it is missing."""
    if value is None or value != value or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _number(names: set[str], label: LabelRequest) -> dict[str, int]:
    """Number the classes: whole numbers stay, and texts are numbered from 1 in their order.

    Raises:
        RequestError: They are both, or negative, fractions or too large; or one is the class of the
            background or of the boundary.
    """
    if not names:
        return {"": 1}
    where = f"product.labels: {label.name}: {label.column}"
    taken = {label.background: "background", label.boundary: "boundary"}
    numeric = {name for name in names if _is_number(name)}
    if not numeric:
        free = [number for number in range(1, len(names) + 3) if number not in taken]
        return dict(zip(sorted(names), free, strict=False))
    if numeric != names:
        text = min(names - numeric)
        raise RequestError(f"{where} has numbers and texts such as {text[:40]!r}; use one of them")
    numbers = {}
    for name in sorted(names):
        if not name.isdigit() or int(name) > _MAX_CLASS:
            raise RequestError(
                f"{where} has the class {name}; classes are whole numbers from 0 to {_MAX_CLASS:,}"
            )
        if int(name) in taken:
            role = taken[int(name)]
            raise RequestError(
                f"{where} has the class {name}, which is also the {role}; set {role}"
            )
        numbers[name] = int(name)
    return numbers


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


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
    if info.nodata is None and not fits(label.background, np.dtype(info.dtype)):
        raise RequestError(
            f"product.labels: {label.name}: background {label.background} is no {info.dtype}"
        )
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


def _band_of_collection(
    label: LabelRequest, request: RunRequest[ChipsRequest]
) -> tuple[CollectionRecord, str]:
    """Return the record of the label's collection, and its band.

    Raises:
        RequestError: There is no such band.
    """
    [record, *_] = [one for one in records_for(request) if one.id == label.collection]
    band = record.band_name(label.band) if label.band else record.default_bands[0]
    if band is None:
        known = ", ".join(sorted(record.bands))
        raise RequestError(
            f"product.labels: {label.name}: {record.id} has no band {label.band}; known: {known}"
        )
    return record, band


def _layer_of(label: LabelRequest, band: str, scenes: Iterable[Scene]) -> tuple[SceneFiles, ...]:
    """Return the scenes of the label's collection, newest first."""
    found = []
    for scene in scenes:
        if scene.collection == label.collection and band in scene.assets:
            found.append(scene)
    found.sort(key=lambda scene: (-scene.datetime.timestamp(), scene.id))
    return tuple(SceneFiles(**scene_fields(one), bands=(one.assets[band],)) for one in found)
