"""Validate: is this file fit for use?

Its bands are identified, sampled from an overview or some blocks, and checked. VRTs refer to other
files, so they are looked into before GDAL opens them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from scenebeam.collections import CollectionRecord, known_records
from scenebeam.errors import CheckError, ReadError
from scenebeam.raster.checks import Finding, Statistics, check_band, statistics
from scenebeam.raster.damage import damage_of
from scenebeam.raster.identify import (
    Identified,
    band_by_file_name,
    band_by_name,
    contradiction,
    identify,
)
from scenebeam.raster.preview import read_preview, to_picture
from scenebeam.raster.reader import open_source
from scenebeam.raster.sample import sample_pieces
from scenebeam.raster.source import Source
from scenebeam.raster.spectra import find_swapped_bands
from scenebeam.raster.tiff import missing_bytes
from scenebeam.raster.validity import Array
from scenebeam.raster.vrt import parse_vrt, vrt_sources
from scenebeam.request import Checks, is_url
from scenebeam.transfer.retry import Budget

_MAX_VRTS = 1000
"""VRTs that are looked into, including those among the sources of a VRT."""
_MAX_BANDS = 1000
"""Bands of one file that are checked: imaging spectrometers have some hundreds."""
_OUTSIDE = (
    "if the VRT is yours, as a stack over files elsewhere on this machine is, allow it with "
    "--set outside_sources=true (checks.outside_sources in a request)"
)


@dataclass
class ImageReport:
    """What was found out about one file."""

    file: str
    bands: dict[str, int] = field(default_factory=dict)
    """Name → index in the file, from 1."""
    statistics: dict[str, Statistics] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    """Source files of a VRT."""
    pictures: dict[str, Array] = field(default_factory=dict, repr=False)
    """Small 2-D pictures by band; NaN where there is no data."""
    undrawn: dict[str, str] = field(default_factory=dict, repr=False)
    """Band → why there is no picture of it, if one was asked for."""

    @property
    def valid(self) -> bool:
        """Whether there are no errors; warnings are allowed."""
        return all(finding.level != "error" for finding in self.findings)

    def explain(self) -> str:
        """Describe the report in words, with a line for each finding."""
        bands = ", ".join(self.bands) or "nothing that could be read"
        lines = [f"{'valid' if self.valid else 'INVALID'}  {self.file}: {bands}"]
        for finding in self.findings:
            band = f"{finding.band}: " if finding.band else ""
            lines.append(f"  {finding.level}: {band}{finding.message}")
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        """Return the report as a dictionary that can be written as JSON."""
        document = asdict(replace(self, pictures={}, undrawn={}))
        del document["pictures"], document["undrawn"]
        return {"valid": self.valid, **document}

    def add(
        self, level: Literal["error", "warning"], check: str, message: str, band: str = ""
    ) -> None:
        """Add a finding."""
        self.findings.append(Finding(level, check, band, message))


def validate(
    href: str,
    checks: Checks,
    record: CollectionRecord | None = None,
    expected: Sequence[str] = (),
    *,
    signing: str = "none",
    deep: bool = False,
    pictures: bool = False,
) -> ImageReport:
    """Check one image file. Whatever is wrong with it is a finding, never an exception.

    Args:
        href: The file.
        checks: Thresholds.
        record: Collection of the file. Without one, only what names and numbers reveal is checked.
        expected: Names of the bands that the file should have.
        signing: How requests are signed: see `transfer.signing`.
        deep: Whether to decode every block of every band, and to list the damaged ones.
        pictures: Whether to read a small picture of every band, even if that means reading the
            whole image.
    """
    report = ImageReport(href)
    try:
        if href.lower().endswith(".vrt"):
            records = known_records() if record is None else (record,)
            _check_vrt(report, Path(href), checks, records)
            if not report.valid:
                return report
        _check_image(report, href, checks, record, expected, signing, deep=deep, pictures=pictures)
    except (ReadError, CheckError) as error:
        report.add("error", "file", str(error))
    return report


def _check_vrt(
    report: ImageReport, vrt: Path, checks: Checks, records: Sequence[CollectionRecord]
) -> None:
    """Check a VRT before GDAL opens it: its XML, and whether its sources may be opened.

    VRTs among its sources are checked too. Their sources must be in the folder of the first one as
    well, or a VRT could get around that rule by way of another one.
    """
    waiting, seen = [vrt], {vrt.resolve()}
    while waiting:
        path = waiting.pop()
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CheckError(f"{path} cannot be read: {error.strerror or error}") from None
        for band, source in vrt_sources(parse_vrt(content, str(path)), path):
            report.sources.append(source)
            by_description = band_by_name(band, records)
            conflict = contradiction(*by_description, band_by_file_name(source, records))
            if conflict:
                report.add("error", "order", conflict, band)
            fault = _source_fault(source, vrt.parent, checks)
            if fault:
                report.add("error", "source", fault, band)
                continue
            nested = Path(source)
            is_new_vrt = source.lower().endswith(".vrt") and nested.resolve() not in seen
            if is_new_vrt and len(seen) < _MAX_VRTS:
                seen.add(nested.resolve())
                waiting.append(nested)


def _source_fault(source: str, folder: Path, checks: Checks) -> str:
    """Return why a source of a VRT must not be opened; empty if it may."""
    if is_url(source) or source.startswith("/vsi"):
        return "" if checks.outside_sources else f"{source} is on the network: {_OUTSIDE}"
    if not checks.outside_sources and not Path(source).resolve().is_relative_to(folder.resolve()):
        return f"{source} is outside the VRT's folder: {_OUTSIDE}"
    if not Path(source).is_file():
        return f"source file {source} not found: fetch it again, or write the VRT again"
    if source.lower().endswith(".vrt"):
        return ""  # checked in turn, before GDAL opens it
    missing = missing_bytes(source)
    if missing:
        return f"{source} is truncated: {missing:,} bytes are missing"
    try:
        open_source(source, 1, Budget(private=True)).close()
    except ReadError as error:
        return str(error)
    return ""


def _check_image(
    report: ImageReport,
    href: str,
    checks: Checks,
    record: CollectionRecord | None,
    expected: Sequence[str],
    signing: str,
    *,
    deep: bool,
    pictures: bool,
) -> None:
    """Open an image, and check all of its bands."""
    sources = _open_bands(href, signing)
    try:
        info = sources[0].info
        bands = identify(href, info.descriptions or [""] * info.count, record, expected)
        report.bands = {band.name: band.index for band in bands}
        _compare_bands(report, bands, record, expected, checks)
        for band, source in zip(bands, sources, strict=True):
            _check_band(report, band, source, checks, deep=deep)
        if report.valid:  # spectra of broken bands mean nothing
            reflectances = {band.name: band.reflectance for band in bands}
            swapped = find_swapped_bands(report.pictures, reflectances)
            if swapped is not None:
                names, message = swapped
                report.add("warning", "order", message, names)
        if pictures:  # last, because no check needs them
            for band, source in zip(bands, sources, strict=True):
                _add_picture(report, band, source)
    finally:
        for source in sources:
            source.close()


def _open_bands(href: str, signing: str) -> list[Source]:
    """Open all bands of a file."""
    budget = Budget(private=True)
    first = open_source(href, 1, budget, signing)
    count = first.info.count
    if count > _MAX_BANDS:
        first.close()
        raise CheckError(
            f"it has {count:,} bands, more than the {_MAX_BANDS:,} that are checked; "
            "split it into files of fewer bands"
        )
    others = [open_source(href, number, budget, signing) for number in range(2, count + 1)]
    return [first, *others]


def _check_band(
    report: ImageReport, band: Identified, source: Source, checks: Checks, *, deep: bool
) -> None:
    """Check a sample of one band, and with `deep` all of its blocks."""
    name, spec = band.name, band.spec(source.info.dtype)
    if deep:
        damage = damage_of(source)
        if damage:
            report.add("error", "block", damage, name)
    try:
        pieces = source.sample_overview(at_full_size=spec.sensor == "sar")
    except ReadError as error:
        report.add("error", "file", str(error), name)
        return
    nodata = _nodata_of(band, source)
    sample = sample_pieces(pieces, nodata)
    report.statistics[name] = statistics(sample, spec)
    report.findings += check_band(name, sample, spec, checks)
    if len(pieces) == 1:
        report.pictures[name] = to_picture(pieces[0], nodata)


def _nodata_of(band: Identified, source: Source) -> float | None:
    return source.info.nodata if source.info.nodata is not None else band.nodata


def _add_picture(report: ImageReport, band: Identified, source: Source) -> None:
    """Read a picture of one band, unless its checks have: those of radar do not read overviews."""
    if band.name in report.pictures:
        return
    try:
        report.pictures[band.name] = read_preview(source, _nodata_of(band, source))
    except ReadError as error:
        report.undrawn[band.name] = str(error)


def _compare_bands(
    report: ImageReport,
    bands: Sequence[Identified],
    record: CollectionRecord | None,
    expected: Sequence[str],
    checks: Checks,
) -> None:
    """Compare the bands of a file with those that it should have."""
    names = [band.name for band in bands]
    wanted = []
    for name in expected:
        known = record.band_name(name) if record is not None else None
        wanted.append(known or name.lower())
    if not wanted and record is not None and len(bands) > 1:
        is_radar = record.sensor == "sar"
        wanted = list(checks.sar.required_polarizations if is_radar else record.required)
    for name in wanted:
        if name not in names:
            report.add("error", "band", f"{name} is missing; it holds {', '.join(names)}", name)
    if expected and len(bands) != len(wanted):
        report.add("warning", "band", f"it has {len(bands)} bands instead of {len(wanted)}")
    in_file_order = [name for name in names if name in wanted]
    if expected and in_file_order != [name for name in wanted if name in names]:
        report.add("warning", "order", f"its bands are in the order {', '.join(names)}")
    for name in sorted(set(names)):
        count = names.count(name)
        if count > 1:
            report.add("error", "order", f"{name} occurs {count} times", name)
    for band in bands:
        if band.conflict:
            report.add("error", "order", band.conflict, band.name)
