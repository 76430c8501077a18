"""Write the same features in every format of vector files."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pyogrio import raw
from pyproj import CRS

FORMATS = (
    "parquet",
    "geojson",
    "geojsonl",
    "gpkg",
    "shp",
    "zip",
    "fgb",
)
_DRIVERS = {".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".fgb": "FlatGeobuf"}


def write_vectors(
    path: Path,
    geometries: Sequence[Any],
    ids: Sequence[Any] | None = None,
    crs: str | None = "EPSG:4326",
) -> str:
    """Write features in the format that the name says; ids are text."""
    ids = [str(number) for number in range(len(geometries))] if ids is None else ids
    if path.suffix == ".parquet":
        _write_parquet(path, geometries, ids, crs)
    elif path.suffix in (".geojson", ".geojsonl"):
        _write_geojson(path, geometries, ids, crs)
    elif path.suffix == ".zip":
        write_ogr(path.with_suffix(".shp"), geometries, ids, crs)
        with zipfile.ZipFile(path, "w") as archive:
            for suffix in (".shp", ".shx", ".dbf", ".prj", ".cpg"):
                if (one := path.with_suffix(suffix)).exists():
                    archive.write(one, f"inside/{one.name}")
                    one.unlink()
    else:
        write_ogr(path, geometries, ids, crs)
    return str(path)


def write_ogr(
    path: Path,
    geometries: Sequence[Any],
    ids: Sequence[Any],
    crs: str | None,
    **options: Any,
) -> None:
    """Write GeoPackage, Shapefile or FlatGeobuf by GDAL; FlatGeobuf in the order given."""
    if path.suffix == ".fgb":
        options.setdefault("SPATIAL_INDEX", "NO")
    options.setdefault("geometry_type", "Unknown" if path.suffix == ".gpkg" else "Polygon")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of files without a CRS
        raw.write(
            str(path),
            shapely.to_wkb(np.array(geometries, object)),
            [np.array(ids, object)],
            ["id"],
            driver=_DRIVERS[path.suffix],
            crs=crs,
            **options,
        )


def _write_parquet(
    path: Path,
    geometries: Sequence[Any],
    ids: Sequence[Any],
    crs: str | None,
) -> None:
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": []}
    column["crs"] = None if crs is None else CRS(crs).to_json_dict()
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    contents = [None if one is None else shapely.to_wkb(one) for one in geometries]
    table = pa.table({"id": pa.array(ids), "geometry": pa.array(contents, pa.binary())})
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)


def _write_geojson(
    path: Path,
    geometries: Sequence[Any],
    ids: Sequence[Any],
    crs: str | None,
) -> None:
    named = {"crs": {"type": "name", "properties": {"name": crs}}}
    member = {} if crs in (None, "EPSG:4326") else named
    features = [feature(one, name) for one, name in zip(geometries, ids, strict=True)]
    if path.suffix == ".geojsonl":
        path.write_text("".join(json.dumps({**one, **member}) + "\n" for one in features))
    else:
        path.write_text(json.dumps({"type": "FeatureCollection", **member, "features": features}))


def feature(geometry: Any, name: Any = None, **properties: Any) -> dict[str, Any]:
    """A GeoJSON feature."""
    drawn = shapely.geometry.mapping(geometry) if hasattr(geometry, "geom_type") else geometry
    named = {} if name is None else {"id": name}
    return {"type": "Feature", **named, "properties": properties, "geometry": drawn}


def collection(*features: Any, **members: Any) -> dict[str, Any]:
    """A GeoJSON feature collection."""
    return {"type": "FeatureCollection", **members, "features": list(features)}
