"""COGs that a store composes of pieces: the bytes of a local assembly, whatever goes wrong on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from conftest import tree
from scenebeam.errors import CheckError, StorageError
from scenebeam.execution.driver import run
from scenebeam.imaging.assemble import _merge_pieces, _merge_sizes, _sort_by_rows, assemble
from scenebeam.imaging.encode import ImageEncoder
from scenebeam.imaging.parts import PartHeader, StoredPart
from scenebeam.imaging.pieces import write_pieces
from scenebeam.imaging.shards import Window, shard_shapes, shared_levels
from scenebeam.imaging.thumbnails import read_band
from scenebeam.planning.search import make_plan
from scenebeam.products import product_of
from scenebeam.raster.cog import CogProfile, Level
from scenebeam.raster.pyramid import BLOCK_SIZE, level_shapes
from scenebeam.request import RunRequest
from scenebeam.storage import Piece, Store, open_store
from scenebeam.storage.crc32c import file_crc32c
from scenebeam.transfer.retry import Budget
from storage_proxy import ComposingStorage, proxied

Make = Callable[..., RunRequest]
KEY, PREFIX = "red.tif", "parts/x/pieces/red/"


@pytest.fixture
def storage(emulator: str) -> Iterator[ComposingStorage]:
    now = ComposingStorage()
    with proxied(emulator, now.answer):
        yield now


@dataclass
class Image:
    """An image that is cut into shards."""

    pixels: NDArray[Any]
    nodata: float | None
    rows: tuple[int, ...]
    """First rows of shards, and the end."""
    columns: tuple[int, ...]
    cell: int
    average: bool = True

    @property
    def windows(self) -> list[Window]:
        cuts = product(pairwise(self.rows), pairwise(self.columns))
        return [(top, bottom, left, right) for (top, bottom), (left, right) in cuts]

    @property
    def part_keys(self) -> list[str]:
        return [f"parts/x/red.{number:05d}.part" for number in range(len(self.windows))]

    def store_shard(self, store: Store, number: int, *, composed: bool) -> None:
        top, bottom, left, right = window = self.windows[number]
        shapes = shard_shapes(window, shared_levels(self.pixels.shape, self.cell))
        encoder = ImageEncoder(
            shapes,
            self.pixels.dtype,
            self.nodata,
            codec="deflate",
            average=self.average,
            keep_coarse=True,
        )
        for first in range(top, bottom, BLOCK_SIZE):
            encoder.add(self.pixels[first : min(first + BLOCK_SIZE, bottom), left:right])
        pieces = None
        if composed:
            assert store.composer is not None
            stem = f"{PREFIX}{number:05d}"
            alone = len(self.columns) == 2
            pieces = write_pieces(store.composer, stem, encoder.levels(), alone=alone)
        facts = {"shard": number}
        encoder.store_part(store, self.part_keys[number], window, facts, pieces=pieces)

    def store_shards(self, store: Store, *, composed: bool) -> None:
        # The last shard first: the order in which they are stored does not matter.
        for number in reversed(range(len(self.windows))):
            self.store_shard(store, number, composed=composed)

    def assemble(self, store: Store) -> dict[str, Any]:
        height, width = self.pixels.shape
        transform = Affine(10, 0, 600_000, 0, -10, 4_500_000)
        # The dtype is that of the parts.
        profile = CogProfile(height, width, np.dtype("u1"), None, "EPSG:32634", transform)
        integrity, headers = assemble(
            store, self.part_keys, KEY, profile, average=self.average, pieces_prefix=PREFIX
        )
        assert [header.facts["shard"] for header in headers] == list(range(len(headers)))
        return integrity

    def local(self, folder: Path) -> bytes:
        """The COG that is assembled on a disk of parts that have their blocks."""
        store = open_store(str(folder))
        self.store_shards(store, composed=False)
        self.assemble(store)
        return (folder / KEY).read_bytes()


def numbers(shape: tuple[int, int], dtype: str = "u1") -> NDArray[Any]:
    return np.random.default_rng(5).integers(1, 200, shape).astype(dtype)


def masked(shape: tuple[int, int], top: int, left: int) -> NDArray[Any]:
    """An image without data from a row and a column on."""
    mask = np.zeros(shape, bool)
    mask[top:, left:] = True
    return np.ma.MaskedArray(numbers(shape), mask)


IMAGES = {
    "shards of the whole width": Image(numbers((2300, 900)), 0, (0, 1024, 2048, 2300), (0, 900), 1024),
    "narrow shards": Image(numbers((1400, 1700), "i2"), 0, (0, 1024, 1400), (0, 1024, 1700), 1024),
    "one level in shards": Image(numbers((1100, 1200)), 0, (0, 512, 1024, 1100), (0, 512, 1200), 512),
    "one row of shards": Image(numbers((300, 2600)), 0, (0, 300), (0, 1024, 2048, 2600), 1024),
    "one shard masked": Image(masked((1400, 1700), 1100, 1300), None, (0, 1024, 1400), (0, 1024, 1700), 1024),
    "all masked, whole width": Image(masked((1800, 700), 0, 0), None, (0, 1024, 1800), (0, 700), 1024),
    "no mask, no nodata": Image(numbers((600, 1100)), None, (0, 600), (0, 512, 1100), 512),
    "classes": Image(numbers((1300, 1300)), 0, (0, 512, 1024, 1300), (0, 1024, 1300), 512, average=False),
}  # fmt: skip
SMALL = Image(masked((600, 1100), 300, 300), None, (0, 512, 600), (0, 512, 1100), 512)


@pytest.mark.parametrize("is_big", [False, True], ids=["TIFF", "BigTIFF"])
@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_a_composed_cog_has_the_bytes_of_one_assembled_on_a_disk(
    storage: ComposingStorage,
    prefix: str,
    tmp_path: Path,
    image: Image,
    is_big: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if is_big:
        monkeypatch.setattr("scenebeam.raster.cog._CLASSIC_LIMIT", 2**16)
    local = image.local(tmp_path)
    assert local[2] == (43 if is_big else 42)
    store = open_store(prefix)
    image.store_shards(store, composed=True)
    storage.sent = 0
    integrity = image.assemble(store)
    assert storage.sent < len(local), "no block is downloaded"
    with store.local_copy(KEY) as path:
        assert path.read_bytes() == local
        crc32c = file_crc32c(path)
        with rasterio.open(path) as file:
            read = file.read(1, masked=True)
    assert integrity == {"file:size": len(local), "scenebeam:crc32c": f"{crc32c:08x}"}
    assert (store.size(KEY), store.crc32c(KEY)) == (len(local), crc32c)
    np.testing.assert_array_equal(np.ma.getmaskarray(read), np.ma.getmaskarray(image.pixels))
    np.testing.assert_array_equal(read.compressed(), np.ma.compressed(image.pixels))


def test_a_preview_reads_a_small_part_of_a_composed_cog(
    storage: ComposingStorage, prefix: str
) -> None:
    image = Image(numbers((4096, 4096)), 0, (0, 2048, 4096), (0, 4096), 2048)
    store = open_store(prefix)
    image.store_shards(store, composed=True)
    image.assemble(store)
    storage.sent, size = 0, store.size(KEY)
    assert size is not None
    assert np.isfinite(read_band(store, KEY, 1)).all()
    assert 0 < storage.sent < size / 8


def test_many_pieces_are_composed_in_a_tree(
    storage: ComposingStorage, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scenebeam.storage.gcs_compose._MAX_SOURCES", 2)
    image = IMAGES["narrow shards"]
    store = open_store(prefix)
    image.store_shards(store, composed=True)
    image.assemble(store)
    assert store.read(KEY) == image.local(tmp_path)
    pieces = [key for key in store.list(PREFIX) if "joined-" not in key]
    # Each call joins two.
    calls = [seen for seen in storage.seen if seen.endswith("/compose")]
    assert len(calls) == len(pieces) - 1
    # What is composed already is not composed again, but for the COG itself.
    storage.seen.clear()
    image.assemble(store)
    assert len([seen for seen in storage.seen if seen.endswith("/compose")]) == 1


def test_a_worker_that_is_killed_at_any_request_is_followed_by_another(
    storage: ComposingStorage, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scenebeam.storage.gcs_compose._MAX_SOURCES", 3)
    local = SMALL.local(tmp_path)
    store = open_store(prefix)
    SMALL.store_shards(store, composed=True)
    for requests in count():
        storage.left = requests
        try:
            SMALL.assemble(store)
        except StorageError:
            storage.left = None
            assert store.read(KEY) in (None, local)
        else:
            break
    assert requests > 10
    storage.left = None
    assert store.read(KEY) == local


def test_two_workers_that_assemble_at_once(
    storage: ComposingStorage, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scenebeam.storage.gcs_compose._MAX_SOURCES", 3)
    local = SMALL.local(tmp_path)
    SMALL.store_shards(open_store(prefix), composed=True)
    with ThreadPoolExecutor(2) as workers:
        made = list(workers.map(SMALL.assemble, [open_store(prefix), open_store(prefix)]))
    assert made[0] == made[1]
    assert open_store(prefix).read(KEY) == local


def test_the_cog_of_another_worker_that_was_faster_is_accepted(
    storage: ComposingStorage, prefix: str, tmp_path: Path
) -> None:
    local = SMALL.local(tmp_path)
    store = open_store(prefix)
    SMALL.store_shards(store, composed=True)
    faster: list[dict[str, Any]] = []

    def before(method: str, path: str) -> None:
        if path.endswith(f"/{KEY}/compose") and not faster:
            faster.append({})
            faster[0].update(SMALL.assemble(open_store(prefix)), version=_version(store))

    storage.before = before
    assert {**SMALL.assemble(store), "version": _version(store)} == faster[0]
    assert store.read(KEY) == local


def _version(store: Store) -> str:
    found = store.read_version(KEY)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("damage", ["missing", "other bytes", "longer"])
def test_a_damaged_piece_is_found_and_its_shard_is_made_again(
    storage: ComposingStorage, prefix: str, tmp_path: Path, damage: str
) -> None:
    store = open_store(prefix)
    SMALL.store_shards(store, composed=True)
    piece = min(key for key in store.list(PREFIX) if "/00002." in key)
    content = store.read(piece)
    assert content is not None
    if damage == "missing":
        store.delete([piece])
    else:
        changed = b"x" + content[1:]
        store.write(piece, changed if damage == "other bytes" else content + b"\0")
    with pytest.raises(StorageError, match=f"{piece}: missing or damaged, like 1 of"):
        SMALL.assemble(store)
    assert store.read(KEY) is None
    assert set(SMALL.part_keys) - store.list() == {SMALL.part_keys[2]}
    SMALL.store_shard(store, 2, composed=True)
    SMALL.assemble(store)
    assert store.read(KEY) == SMALL.local(tmp_path)


def test_a_piece_that_changes_while_it_is_composed_gives_no_cog(
    storage: ComposingStorage, prefix: str
) -> None:
    store = open_store(prefix)
    SMALL.store_shards(store, composed=True)
    piece = min(key for key in store.list(PREFIX))
    content = store.read(piece)
    assert content is not None

    def before(method: str, path: str) -> None:
        if path.endswith("/compose") and store.read(piece) == content:
            store.write(piece, b"x" + content[1:])

    storage.before = before
    with pytest.raises(StorageError, match="differs from its pieces"):
        SMALL.assemble(store)
    assert store.read(KEY) is None


def test_parts_that_are_stored_in_two_ways_are_refused(
    storage: ComposingStorage, prefix: str, tmp_path: Path
) -> None:
    store, folder = open_store(prefix), open_store(str(tmp_path))
    SMALL.store_shards(store, composed=True)
    for key in SMALL.part_keys:
        folder.write(key, store.read(key) or b"")
    with pytest.raises(CheckError, match="in a bucket"):
        SMALL.assemble(folder)
    SMALL.store_shard(store, 1, composed=False)
    with pytest.raises(CheckError, match="different versions"):
        SMALL.assemble(store)
    assert KEY not in store.list()


@st.composite
def cut_images(draw: st.DrawFn) -> tuple[tuple[int, int], list[Window], int]:
    """A shape, windows that cover it, and the levels that shards encode."""
    shape = draw(st.tuples(st.integers(1, 9000), st.integers(1, 9000)))
    cell = BLOCK_SIZE << draw(st.integers(0, 3))

    def cuts(length: int) -> list[int]:
        inside = range(cell, length, cell)
        chosen = draw(st.sets(st.sampled_from(inside), max_size=5)) if inside else set()
        return sorted({0, *chosen, length})

    rows, columns = cuts(shape[0]), cuts(shape[1])
    windows: list[Window] = []
    for (top, bottom), (left, right) in product(pairwise(rows), pairwise(columns)):
        windows.append((top, bottom, left, right))
    return shape, draw(st.permutations(windows)), shared_levels(shape, cell)


@given(cut_images())
def test_pieces_are_ordered_as_the_blocks_of_the_image(
    cut: tuple[tuple[int, int], list[Window], int],
) -> None:
    """The size of a block stands for the block: its number in the level, by rows and then by columns."""
    shape, windows, levels = cut
    composer = _Recorder()
    parts = [_part(shape, window, levels, composer) for window in windows]
    for level in range(levels):
        height, width = level_shapes(*shape)[level]
        blocks = -(-height // BLOCK_SIZE) * -(-width // BLOCK_SIZE)
        ordered = _sort_by_rows(parts)
        composed: list[int] = []
        for piece in _merge_pieces(ordered, level):
            composed += composer.stored[piece.key]
        assert composed == list(range(blocks))
        assert _merge_sizes(ordered, level) == composed


class _Recorder:
    """Takes pieces, and remembers the sizes in the leaders of their blocks."""

    def __init__(self) -> None:
        self.stored: dict[str, list[int]] = {}

    def write_piece(self, stem: str, chunks: Any) -> Piece:
        self.stored[stem] = [int.from_bytes(chunk[:4], "little") for chunk in chunks]
        return Piece(stem, 0, 0)


class _Numbered(bytes):
    """A block that is as long as its number says, without the bytes."""

    number = 0

    def __len__(self) -> int:
        return self.number


def _part(shape: tuple[int, int], window: Window, levels: int, composer: Any) -> StoredPart:
    top, _, left, _ = window
    encoded = []
    for level, (height, width) in enumerate(shard_shapes(window, levels)):
        side = BLOCK_SIZE << level
        across = -(-shape[1] // side)
        sizes, blocks = [], []
        for row, column in product(range(-(-height // BLOCK_SIZE)), range(-(-width // BLOCK_SIZE))):
            block = _Numbered()
            block.number = (top // side + row) * across + left // side + column
            sizes.append(block.number)
            blocks.append(block)
        encoded.append(Level(height, width, sizes, blocks))
    alone = window[3] - window[2] == shape[1]
    pieces = write_pieces(composer, f"{top}-{left}", encoded, alone=alone)
    part = object.__new__(StoredPart)
    shapes = [[level.height, level.width] for level in encoded]
    all_sizes = [list(level.sizes) for level in encoded]
    part.header = PartHeader(window, "|u1", 0, shapes, all_sizes, None, {}, pieces=pieces)
    return part


@pytest.fixture
def request_of_shards(make_request: Make, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Requests whose mosaics are cut into small shards, and composed."""
    monkeypatch.setattr("scenebeam.imaging.shards._NARROW_SHARD", 2**18)
    monkeypatch.setattr("scenebeam.imaging.pieces.COMPOSED_PIXELS", 0)
    changes = {"grid.crs": "EPSG:32634", "limits.memory": "100MB"}
    return lambda **more: make_request(**changes, **more)


def test_a_run_composes_what_a_local_run_assembles(
    request_of_shards: Make, storage: ComposingStorage, prefix: str, tmp_path: Path
) -> None:
    run(request_of_shards(output=str(tmp_path / "local")))
    request = request_of_shards(output=prefix)
    assert run(request).state == "succeeded"
    assert any(seen.endswith("/compose") for seen in storage.seen)
    store = open_store(prefix)
    local = tree(tmp_path / "local")
    assert {key for key in store.list() if key.startswith("mosaics/")} == {
        key for key in local if key.startswith("mosaics/")
    }
    for key in local:
        if key.endswith((".tif", ".png")):
            assert store.read(key) == local[key], key
    assert not store.list("parts/")
    item = json.loads(store.read("mosaics/20210610T092031Z/20210610T092031Z.json") or b"")
    expected = json.loads(local["mosaics/20210610T092031Z/20210610T092031Z.json"])
    for band in ("red", "scl"):
        key = f"mosaics/20210610T092031Z/{band}.tif"
        assert int(item["assets"][band].pop("scenebeam:crc32c"), 16) == store.crc32c(key)
        del expected["assets"][band]["file:checksum"]
    assert item == expected


def test_composed_files_are_verified_by_size_and_crc32c(
    request_of_shards: Make, storage: ComposingStorage, prefix: str
) -> None:
    request = request_of_shards(output=prefix)
    run(request)
    store = open_store(prefix)
    key = "mosaics/20210610T092031Z/red.tif"
    content = store.read(key)
    assert content is not None
    storage.seen.clear()
    assert run(request, verify=True).requests == 0
    # The report reads ranges of it, for its pictures, as it always does.
    downloads = [seen for seen in storage.seen if seen.startswith("GET /download/")]
    assert downloads
    assert not [seen for seen in downloads if seen.endswith(".tif")]
    store.write(key, content[:-1] + b"x")
    assert run(request, verify=True).state == "succeeded"
    assert store.read(key) == content


def test_a_worker_whose_parts_another_has_assembled_and_deleted_is_done(
    request_of_shards: Make, storage: ComposingStorage, prefix: str
) -> None:
    request = request_of_shards(output=prefix, **{"product.bands": ["red"]})
    plan, store = make_plan(request), open_store(prefix)
    *others, last = [task for task in plan.tasks if task.cube_id == "20210610T092031Z"]
    make = product_of("mosaic").make
    for task in others:
        assert make(task, store, Budget()).state == "done"
    slower: list[str] = []

    def before(method: str, path: str) -> None:
        if path.endswith("/compose") and not slower:
            slower.append(path)
            assert make(last, open_store(prefix), Budget()).state == "done"

    storage.before = before
    assert make(last, store, Budget()).state == "done"
    assert slower
    assert last.is_done(store.list())
    assert not store.list("parts/")
