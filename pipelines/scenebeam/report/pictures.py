"""Pictures: draw the products of a run so that they compare, and choose those of the page.

Every band has one stretch for the whole run, measured over all products without their clouds. The
pictures are drawn again when the run ends, because no task knows the others' pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from scenebeam.collections import CollectionRecord
from scenebeam.errors import SceneBeamError
from scenebeam.imaging.thumbnails import fit_preview, read_band
from scenebeam.raster.preview import resize_nearest, style_bands
from scenebeam.raster.render import (
    Limits,
    Style,
    balanced_limits,
    choose_style,
    common_limits,
    draw,
    encode_webp,
    index_limits,
    measure_limits,
)
from scenebeam.raster.validity import Array
from scenebeam.report.products import BandFile, ProductFact
from scenebeam.storage import Store

log = logging.getLogger(__name__)

PICTURES_PREFIX = "report/pictures/"
EMBEDDED = 12
"""Pictures that are part of the page itself, so that it can be mailed."""
_MAX_SIDE, _MAP_SIDE = 1024, 256
"""Pixels of the longer side of a picture, and of its copy on the map."""
_MAX_PUBLISHED = 2400
"""Most thumbnails of a page."""
_MEASURED = 24
"""Products whose pixels decide the stretch, evenly spaced."""
_THREADS = 4


@dataclass(frozen=True)
class Legend:
    """What the colors of pictures mean."""

    style: Style
    limits: Sequence[Limits] = ()
    """Of each band of the style, in physical units; none for classes."""
    classes: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """Class → name and color."""


@dataclass(frozen=True)
class Picture:
    """A picture of the page."""

    key: str
    """Key in the output."""
    caption: str
    description: str
    """What it shows, for people who cannot see it."""
    size: tuple[int, int] = (0, 0)
    """Width and height in pixels; zeros if they are not known."""
    embedded: bytes = b""
    """Its content, if it is part of the page."""
    on_map: bytes = b""
    """Small WebP to be draped over the footprint."""
    corners: Sequence[tuple[float, float]] = ()
    """See `ProductFact.corners`."""


@dataclass(frozen=True)
class Gallery:
    """The pictures of a page."""

    pictures: Sequence[Picture] = ()
    """The first one is the best, the others follow in the order of the products."""
    legends: Sequence[Legend] = ()
    """What the colors mean, if scenebeam has drawn the pictures for the page."""
    total: int = 0
    """How many pictures there are in the output."""


def draw_gallery(
    products: Sequence[ProductFact],
    records: Sequence[CollectionRecord],
    *,
    are_indices: bool,
    store: Store,
) -> Gallery:
    """Draw the products that have rasters, and write the pictures into the output.

    A product that cannot be read is left out, and logged.

    Args:
        products: The products, newest first.
        records: Records of the collections, for classes and cloud masks.
        are_indices: Whether the products are spectral indices.
        store: Output of the run.

    Raises:
        StorageError: A picture cannot be written.
    """
    drawable = [product for product in products if product.bands]
    if not drawable:
        return Gallery()
    painter = _Painter(records, are_indices, store)
    chosen, legends = [], []
    for style, group in _by_style(painter, drawable):
        legend = painter.legend(style, painter.measure(style, group), group)
        legends.append(legend)
        chosen += [(product, legend) for product in group]
    best = best_product([product for product, legend in chosen if legend is legends[0]])
    hero = chosen.pop(best)
    if len(legends) > 1:
        # Pictures of a chip and of its masks are neighbors.
        chosen.sort(key=lambda pair: pair[0].id)
    chosen.insert(0, hero)
    pictures: list[Picture] = []
    with ThreadPoolExecutor(_THREADS) as threads:
        drawn = threads.map(lambda pair: painter.draw(*pair), chosen)
        for (product, legend), image in zip(chosen, drawn, strict=True):
            if image is not None:
                content = encode_webp(image)
                picture = _describe(product, legend.style, image)
                store.write(picture.key, content)
                is_embedded = len(pictures) < EMBEDDED
                pictures.append(replace(picture, embedded=content if is_embedded else b""))
    keys = {picture.key for picture in pictures}
    store.delete(sorted(store.list(PICTURES_PREFIX) - keys))
    return Gallery(pictures, legends, len(pictures))


def _by_style(
    painter: _Painter, products: Sequence[ProductFact]
) -> Iterator[tuple[Style, list[ProductFact]]]:
    """Yield the most common style of measured pixels, then that of classes, with its products.

    Products that lack a band of the others' style are rare; they are left out of the gallery.
    """
    groups: dict[Style, list[ProductFact]] = {}
    for product in products:
        groups.setdefault(painter.style(product), []).append(product)
    for is_classes in (False, True):
        styles = [style for style in groups if (style.kind == "classes") == is_classes]
        if styles:
            style = max(styles, key=lambda style: len(groups[style]))
            yield style, groups[style]


def _describe(product: ProductFact, style: Style, image: Array) -> Picture:
    """Describe a picture of a product in words."""
    parts = [product.id]
    # Ids of mosaics are their times already.
    is_labels = style.kind == "classes" and product.bands[style.bands[0]].classes
    if is_labels:
        parts.append("labels")
    elif product.when is not None and f"{product.when:%Y%m%d}" not in product.id.replace("-", ""):
        parts.append(f"{product.when:%Y-%m-%d}")
    if product.cloud is not None:
        parts.append(f"{product.cloud:.3g} % cloud")
    if product.valid is not None:
        parts.append(f"{product.valid:.3g} % valid")
    kind = {"color": "Color picture", "gray": "Gray picture", "ramp": "Map", "classes": "Classes"}
    return Picture(
        key=f"{PICTURES_PREFIX}{product.id}.webp",
        caption=", ".join(parts),
        description=f"{kind[style.kind]} of {', '.join(style.bands)}: {', '.join(parts)}",
        size=(image.shape[1], image.shape[0]),
        on_map=encode_webp(fit_preview(image, _MAP_SIDE)) if product.corners else b"",
        corners=product.corners,
    )


def published_gallery(keys: Sequence[str], store: Store) -> Gallery:
    """Take the thumbnails that products have published themselves.

    Args:
        keys: Keys of all PNG files in the output.
        store: Output of the run.

    Returns:
        At most `_MAX_PUBLISHED` of them, at regular intervals.
    """
    pictures = []
    step = -(-len(keys) // _MAX_PUBLISHED) or 1
    # The modality comes first in the names of chips. Ordered without it, pictures of a chip are
    # neighbors.
    ordered = sorted(keys, key=lambda key: (key.rpartition("/")[2].partition("_")[2], key))
    for number, key in enumerate(ordered[::step]):
        content = store.read(key) if number < EMBEDDED else None
        name = key.rpartition("/")[2].removesuffix(".png")
        pictures.append(Picture(key, name, f"Thumbnail {name}", embedded=content or b""))
    return Gallery(pictures, total=len(keys))


def best_product(products: Sequence[ProductFact]) -> int:
    """Return the index of the best product: most complete, then least cloudy, then newest."""

    def rank(number: int) -> tuple[int, int, int]:
        product = products[number]
        valid = 0.0 if product.valid is None else product.valid
        cloud = 0.0 if product.cloud is None else product.cloud
        return -round(valid / 10), round(cloud / 5), number

    return min(range(len(products)), key=rank)


class _Painter:
    """Reads and draws the products of a run."""

    def __init__(
        self, records: Sequence[CollectionRecord], are_indices: bool, store: Store
    ) -> None:
        self._are_indices, self._store = are_indices, store
        self._categorical: set[str] = set()
        self._cloud_classes: dict[str, list[int]] = {}
        self._classes: dict[int, tuple[str, str]] = {}
        for record in records:
            for name, band in record.bands.items():
                if band.categorical:
                    self._categorical.add(name)
            self._cloud_classes |= record.mask_classes
            for number, described in record.classes.items():
                self._classes[number] = (described.name, described.color)

    def style(self, product: ProductFact) -> Style:
        """Choose how to draw a product."""
        # Of several bands of classes, the one with the most classes says the most.
        names = sorted(product.bands, key=lambda name: -len(product.bands[name].classes))
        labels = {name for name in names if product.bands[name].classes}
        indices = names if self._are_indices else ()
        return choose_style(names, categorical=self._categorical | labels, indices=indices)

    def measure(self, style: Style, products: Sequence[ProductFact]) -> list[Limits]:
        """Measure the limits of each band of a style over some of the products."""
        if style.kind == "classes":
            return []
        step = -(-len(products) // _MEASURED)
        by_band: list[list[Limits]] = [[] for _ in style.bands]
        with ThreadPoolExecutor(_THREADS) as threads:
            sampled = threads.map(lambda product: self._limits(style, product), products[::step])
            for limits in sampled:
                for band, measured in zip(by_band, limits, strict=True):
                    if measured is not None:
                        band.append(measured)
        common = [common_limits(measured) for measured in by_band]
        if style.kind == "ramp":
            return [index_limits(limits) for limits in common]
        return balanced_limits(style, common)

    def _limits(self, style: Style, product: ProductFact) -> list[Limits | None]:
        bands = self._read(style, product)
        if bands is None:
            return [None] * len(style.bands)
        clear = self._clear(product, bands[0].shape)
        if clear is None:
            return [measure_limits(band) for band in bands]
        return [measure_limits(band[clear], has_outliers=False) for band in bands]

    def _clear(self, product: ProductFact, shape: tuple[int, ...]) -> Array | None:
        """Return where a product is not cloudy, by its own classification; None without one."""
        for name, classes in self._cloud_classes.items():
            if name in product.bands:
                found = self._read_band(product.bands[name])
                return np.asarray(~np.isin(resize_nearest(found, shape[0], shape[1]), classes))
        return None

    def draw(self, product: ProductFact, legend: Legend) -> Array | None:
        """Draw a product; None if it cannot be read."""
        bands = self._read(legend.style, product)
        if bands is None:
            return None
        colors = {number: color for number, (_, color) in legend.classes.items()}
        return fit_preview(draw(legend.style, bands, legend.limits, colors), _MAX_SIDE)

    def legend(
        self, style: Style, limits: Sequence[Limits], products: Sequence[ProductFact]
    ) -> Legend:
        """Describe the colors of the pictures of some products."""
        if style.kind != "classes":
            return Legend(style, limits)
        classes: dict[int, tuple[str, str]] = {}
        for product in products:
            classes |= product.bands[style.bands[0]].classes
        return Legend(style, classes=dict(sorted((classes or self._classes).items())))

    def _read(self, style: Style, product: ProductFact) -> list[Array] | None:
        try:
            read = {name: self._read_band(product.bands[name]) for name in style.bands}
        except SceneBeamError as error:
            log.warning("no picture of %s: %s", product.id, error)
            return None
        return style_bands(style, read)

    def _read_band(self, band: BandFile) -> Array:
        """Read a small version of a band in physical units, NaN where there is no data."""
        preview = read_band(self._store, band.key, band.index)
        return np.asarray(preview * np.float32(band.scale) + np.float32(band.offset))


def picture_keys(gallery: Gallery, most: int) -> Iterator[str]:
    """Yield the keys of at most `most` pictures, at regular intervals."""
    count = min(len(gallery.pictures), most)
    for number in range(count):
        yield gallery.pictures[number * len(gallery.pictures) // count].key
