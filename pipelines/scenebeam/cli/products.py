"""Commands of the products: the common case of each, without a request file."""

from __future__ import annotations

from typing import Any

import click

from scenebeam.cli.common import main, options, overrides_of, run_and_show, run_options

_area_and_dates = options(
    click.option("--bbox", help="west,south,east,north in degrees."),
    click.option("--mgrs", help="Sentinel-2 tiles: 34TFK,34TGK."),
    click.option("--geojson", help="A vector file with the area, or its address."),
    click.option("--dates", help="2023-06, 2023-06-01/2023-06-30, or several with commas."),
    click.option(
        "--catalog",
        default="earth-search",
        show_default=True,
        help="A known name, a URL or a file.",
    ),
    click.option("--collection", default="sentinel-2-l2a", show_default=True),
    click.option("--max-cloud-cover", type=float, help="Percent."),
    click.option("--run", "run_name", help="Name of the run."),
    run_options,
)
"""The options of every product's own command."""


@main.command()
@click.option("--bands", required=True, help="red,nir,scl")
@click.option("--crs", help="CRS of the mosaics; default: the UTM zone of the area.")
@click.option("--resolution", type=float, help="Pixel size; default: the finest band's.")
@click.option("--group-by", type=click.Choice(["acquisition", "day"]))
@click.option("--method", type=click.Choice(["first", "last", "min", "max", "mean", "median"]))
@click.option("--resampling", help="nearest, bilinear, cubic, ...")
@click.option("--on-missing", type=click.Choice(["best-available", "fail", "skip"]))
@_area_and_dates
def mosaic(**given: Any) -> None:
    """One mosaic per acquisition and band, without a request file."""
    grid = {"grid.crs": given["crs"], "grid.resolution": given["resolution"]}
    _run_product(
        "mosaic", ("bands", "group_by", "method", "resampling", "on_missing"), grid, **given
    )


@main.command()
@click.option("--bands", help="Default: those of the collection.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["vrt", "geotiff"]),
    help="Default: vrt for files on this machine.",
)
@click.option("--resolution-mode", type=click.Choice(["resample", "preserve", "intersect"]))
@click.option("--resolution", type=float, help="Pixel size; default: the finest band's.")
@click.option("--resampling", help="bilinear, nearest, cubic, ...")
@click.option(
    "--visualization-only",
    is_flag=True,
    default=None,
    help="Just the true-colour image: not for analysis.",
)
@click.option("--screenshot", is_flag=True, default=None, help="A small PNG with each stack.")
@_area_and_dates
def stack(form: str | None, screenshot: bool | None, **given: Any) -> None:
    """One analysis-ready stack of bands per scene, without a request file."""
    names = ("bands", "resolution_mode", "resampling", "visualization_only")
    others = {
        "grid.resolution": given["resolution"],
        "product.format": form,
        "checks.screenshot": screenshot,
    }
    _run_product("stack", names, others, **given)


@main.command()
@click.option("--index", help="ndvi, ndwi, mndwi, nbr, dnbr or evi.")
@click.option("--expression", help="Of band names: '(nir - red) / (nir + red)'.")
@click.option("--per", type=click.Choice(["scene", "acquisition", "day", "month", "quarter"]))
@click.option("--composite", type=click.Choice(["median", "max", "mean"]))
@click.option(
    "--min-scenes-per-period", type=int, help="A month with fewer gives way to its quarter."
)
@click.option(
    "--mask/--no-mask",
    default=None,
    help="Leave out clouds by the scene classification; default: do.",
)
@click.option("--crs", help="CRS of the images; default: the UTM zone of the area.")
@click.option("--resolution", type=float, help="Pixel size; default: the finest band's.")
@_area_and_dates
def index(**given: Any) -> None:
    """Band maths over an area, read block by block, without a request file."""
    grid = {"grid.crs": given["crs"], "grid.resolution": given["resolution"]}
    names = ("index", "expression", "per", "composite", "min_scenes_per_period", "mask")
    _run_product("index", names, grid, **given)


@main.command()
@click.option("--bands", help="Default: B04,B08,SCL.")
@click.option(
    "--scenes",
    type=click.Path(exists=True, dir_okay=False),
    help="A scenes_selected.csv: just its scenes.",
)
@click.option("--max-scenes", type=int, help="Most rows of the manifest.")
@click.option("--date-start", help="Scenes of this day and later.")
@click.option("--sort-mode", type=click.Choice(["cloud_then_time", "time"]))
@click.option("--download-n", type=int, help="Scenes to download, from the top of the manifest.")
@click.option(
    "--band-resolution",
    type=click.Choice(["10", "20", "60"]),
    help="Of a band that is kept at several.",
)
@click.option(
    "--raw-storage-mode",
    type=click.Choice(
        ["url_to_local", "url_to_gcs_keep_local", "url_to_gcs_drop_local", "gcs_to_local"]
    ),
)
@click.option("--gcs", help="gs://bucket/prefix of the modes with gcs in their name.")
@click.option("--max-download-workers", type=int, help="Files fetched at once; default: 8.")
@_area_and_dates
def assets(scenes: str | None, max_download_workers: int | None, **given: Any) -> None:
    """The scenes' own files, and a manifest of them, without a request file."""
    names = (
        "bands",
        "max_scenes",
        "date_start",
        "sort_mode",
        "download_n",
        "band_resolution",
        "raw_storage_mode",
    )
    others = {"select.table": scenes, "limits.max_download_workers": max_download_workers}
    _run_product("assets", (*names, "gcs"), others, **given)


def _run_product(kind: str, fields: tuple[str, ...], others: dict[str, Any], **given: Any) -> None:
    """Run the request that a product's own command spells."""
    from scenebeam.requestfile import load_request, parse_value

    typed = {name: given[name] for name in fields if given[name] is not None}
    bbox, mgrs = given["bbox"], given["mgrs"]
    overrides = {
        "run": given["run_name"] or kind,
        "catalog": given["catalog"],
        "collections": [given["collection"]],
        "area.bbox": [parse_value(part, "bbox") for part in bbox.split(",")] if bbox else None,
        "area.mgrs": mgrs.split(",") if mgrs else None,
        "area.geojson": given["geojson"],
        "dates": given["dates"].split(",") if given["dates"] else None,
        "select.max_cloud_cover": given["max_cloud_cover"],
        "product.kind": kind,
        **{
            f"product.{name}": parse_value(str(value), f"product.{name}")
            for name, value in typed.items()
        },
        **others,
        **overrides_of(given["output"], given["runner"], given["settings"]),
    }
    request, _ = load_request(overrides=overrides)
    run_and_show(
        request, refresh=given["refresh"], overwrite=given["overwrite"], as_json=given["as_json"]
    )
