"""Validate: is this file fit to use? Its bands are named, looked at through overviews or some blocks, and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from scenebeam.collections import CollectionRecord, known_records
from scenebeam.errors import CheckError, ReadError
from scenebeam.raster.checks import Finding, Statistics, check_band, statistics
from scenebeam.raster.damage import damage_of
from scenebeam.raster.identify import Identified, by_file_name, by_name, contradiction, identify
from scenebeam.raster.preview import picture, small_picture
from scenebeam.raster.reader import open_source
from scenebeam.raster.sample import sample_pieces
from scenebeam.raster.source import Source
from scenebeam.raster.spectra import swapped
from scenebeam.raster.tiff import missing_bytes
from scenebeam.raster.validity import Array
from scenebeam.raster.vrt import parse_vrt, vrt_sources
from scenebeam.request import Checks, is_url
from scenebeam.transfer.retry import Budget

_MOST_VRTS = 1000
_MOST_BANDS = 1000
"""Bands of one file that are checked: imaging spectrometers have some hundreds."""
_OUTSIDE = (
    "if the VRT is yours, as a stack over files elsewhere on this machine is, allow it with "
    "--set outside_sources=true (checks.outside_sources in a request)"
)


@dataclass
class ImageReport:
    """What a look at one file came to."""

    file: str
    bands: dict[str, int] = field(default_factory=dict)
    """Name → index in the file, from 1."""
    statistics: dict[str, Statistics] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    """Files that a VRT is made of."""
    pictures: dict[str, Array] = field(default_factory=dict, repr=False)
    """Small 2-D images of the bands, by name; nodata is NaN."""
    undrawn: dict[str, str] = field(default_factory=dict, repr=False)
    """Band → why there is no picture of it, where one was asked for."""

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong with it; a warning is not."""
        return all(finding.level != "error" for finding in self.findings)

    def explain(self) -> str:
        """In words, a line for each finding."""
        held = ", ".join(self.bands) or "nothing that could be read"
        lines = [f"{'valid' if self.valid else 'INVALID'}  {self.file}: {held}"]
        lines += [
            f"  {one.level}: {f'{one.band}: ' if one.band else ''}{one.message}"
            for one in self.findings
        ]
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        whole = asdict(replace(self, pictures={}, undrawn={}))
        del whole["pictures"], whole["undrawn"]
        return {"valid": self.valid, **whole}

    def add(
        self, level: Literal["error", "warning"], check: str, message: str, band: str = ""
    ) -> None:
        """Note a finding."""
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
    """Check one image file. Nothing that is wrong with it is an exception.

    Args:
        href: The file.
        checks: Thresholds.
        record: The record of its collection. Without one, only what names and numbers say of
            themselves is held against them.
        expected: Names of the bands that it should hold.
        signing: How it is opened: see `scenebeam.transfer.signing`.
        deep: Decode every block of every band, and name the damaged ones.
        pictures: Read a small picture of every band, also where that takes the whole image.
    """
    report = ImageReport(href)
    try:
        if href.lower().endswith(".vrt") and not _vrt_is_sound(
            report, Path(href), checks, known_records() if record is None else (record,)
        ):
            return report
        _look(report, href, checks, record, expected, signing, deep=deep, pictures=pictures)
    except (ReadError, CheckError) as error:
        report.add("error", "file", str(error))
    return report


def _vrt_is_sound(
    report: ImageReport, vrt: Path, checks: Checks, records: Sequence[CollectionRecord]
) -> bool:
    """Whether a VRT's XML is sound and its sources are there and what they are called, before GDAL opens it.

    The same of VRTs among its sources: their own must lie in the first one's folder too.
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
            conflict = contradiction(*by_name(band, records), by_file_name(source, records))
            if conflict:
                report.add("error", "order", conflict, band)
            fault = _source_fault(source, vrt.parent, checks)
            if fault:
                report.add("error", "source", fault, band)
            elif (
                source.lower().endswith(".vrt")
                and Path(source).resolve() not in seen
                and len(seen) < _MOST_VRTS
            ):
                seen.add(Path(source).resolve())
                waiting.append(Path(source))
    return report.valid


def _source_fault(source: str, folder: Path, checks: Checks) -> str:
    """What is wrong with a source of a VRT; empty where it may be opened."""
    if is_url(source) or source.startswith("/vsi"):
        return "" if checks.outside_sources else f"{source} is on the network: {_OUTSIDE}"
    if not checks.outside_sources and not Path(source).resolve().is_relative_to(folder.resolve()):
        return f"{source} lies outside the VRT's folder: {_OUTSIDE}"
    if not Path(source).is_file():
        return f"source file {source} not found: fetch it again, or write the VRT anew"
    if source.lower().endswith(".vrt"):
        return ""  # looked into before GDAL opens it
    missing = missing_bytes(source)
    if missing:
        return f"{source} is truncated: {missing:,} bytes of it are not there"
    try:
        open_source(source, 1, Budget(private=True)).close()
    except ReadError as error:
        return str(error)
    return ""


def _look(
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
    budget = Budget(private=True)
    first = open_source(href, 1, budget, signing)
    if first.info.count > _MOST_BANDS:
        first.close()
        raise CheckError(
            f"it has {first.info.count:,} bands, more than the {_MOST_BANDS:,} that are checked; "
            "split it into files of fewer bands"
        )
    sources = [
        first,
        *(open_source(href, number, budget, signing) for number in range(2, first.info.count + 1)),
    ]
    try:
        named = identify(href, first.info.descriptions or [""] * first.info.count, record, expected)
        report.bands = {one.name: one.index for one in named}
        _compare(report, named, record, expected, checks)
        for one, source in zip(named, sources, strict=True):
            _check_band(report, one, source, checks, deep=deep)
        if report.valid:  # of a broken band there is no spectrum
            for names, message in swapped(
                report.pictures, {one.name: one.reflectance for one in named}
            ):
                report.add("warning", "order", message, names)
        if pictures:  # last, as they decide nothing
            for one, source in zip(named, sources, strict=True):
                _add_picture(report, one, source)
    finally:
        for source in sources:
            source.close()


def _check_band(
    report: ImageReport,
    named: Identified,
    source: Source,
    checks: Checks,
    *,
    deep: bool,
) -> None:
    """Judge a sample of one band; `deep` decodes all of its blocks besides."""
    name, spec = named.name, named.spec(source.info.dtype)
    if deep:
        damage = damage_of(source)
        if damage:
            report.add("error", "block", damage, name)
    try:
        pieces = source.sample_overview(at_full_size=spec.sensor == "sar")
    except ReadError as error:
        report.add("error", "file", str(error), name)
        return
    nodata = _nodata_of(named, source)
    sample = sample_pieces(pieces, nodata)
    report.statistics[name] = statistics(sample, spec)
    report.findings += check_band(name, sample, spec, checks)
    if len(pieces) == 1:
        report.pictures[name] = picture(pieces[0], nodata)


def _nodata_of(named: Identified, source: Source) -> float | None:
    return source.info.nodata if source.info.nodata is not None else named.nodata


def _add_picture(report: ImageReport, named: Identified, source: Source) -> None:
    """Read a picture of one band, unless its checks have brought one, as those of radar do not."""
    if named.name in report.pictures:
        return
    try:
        report.pictures[named.name] = small_picture(source, _nodata_of(named, source))
    except ReadError as error:
        report.undrawn[named.name] = str(error)


def _compare(
    report: ImageReport,
    named: Sequence[Identified],
    record: CollectionRecord | None,
    expected: Sequence[str],
    checks: Checks,
) -> None:
    """Hold the bands that were found against those that should be there."""
    found = [one.name for one in named]
    wanted = [
        record.band_name(name) or name.lower() if record else name.lower() for name in expected
    ]
    if not wanted and record is not None and len(named) > 1:
        wanted = list(
            checks.sar.required_polarizations if record.sensor == "sar" else record.required
        )
    for name in wanted:
        if name not in found:
            report.add("error", "band", f"{name} is not there; it holds {', '.join(found)}", name)
    if expected and len(named) != len(wanted):
        report.add("warning", "band", f"it has {len(named)} bands, and {len(wanted)} were expected")
    both = [name for name in found if name in wanted]
    if expected and both != [name for name in wanted if name in found]:
        report.add("warning", "order", f"its bands stand in the order {', '.join(found)}")
    for twice in sorted({name for name in found if found.count(name) > 1}):
        report.add("error", "order", f"{twice} is there {found.count(twice)} times", twice)
    for one in named:
        if one.conflict:
            report.add("error", "order", one.conflict, one.name)
