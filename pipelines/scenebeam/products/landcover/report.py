"""Report: what became of the areas and the chips, and the release of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from scenebeam.csvtable import File
from scenebeam.metadata.item_tables import ITEMS_FILE, ReportFiles, read_back
from scenebeam.products.landcover.chips import assign_ids
from scenebeam.products.landcover.record import AoiRecord
from scenebeam.products.landcover.release import RELEASES, release
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.products.landcover.tables import AOIS_FILE, CHIPS_FILE, aoi_metadata, chip_table
from scenebeam.products.landcover.task import CHIPS, LandcoverTask
from scenebeam.request import RunRequest
from scenebeam.storage import Store
from scenebeam.tasks import Outcome

log = logging.getLogger(__name__)


def report_chips(
    request: RunRequest[LandcoverRequest],
    tasks: Sequence[LandcoverTask],
    done: set[str],
    outcomes: Mapping[str, Outcome],
    store: Store,
) -> ReportFiles:
    """Release the chips of the areas that are done; tables of all areas and all chips."""
    product = request.product
    with ThreadPoolExecutor(8) as threads:
        finished = [task for task in tasks if task.id in done]
        records = {
            task.id: record
            for task, record in zip(
                finished, threads.map(lambda task: _read(task, store), finished), strict=True
            )
        }
    chips = assign_ids(finished, records, product.sampling_factor, product.split)
    classes = tasks[0].classes
    missing = sorted(classes.keys() - {chip.made.land_class for chip in chips})
    if missing:
        names = ", ".join(classes[number].name for number in missing)
        log.warning("no chip of %s in any area: the release is balanced without", names)
    if store.superseded(CHIPS) and len(finished) < sum(not task.fault for task in tasks):
        log.warning("%s%s stays as it is until all areas are made anew", RELEASES, product.version)
    else:
        release(request.run, product, classes, chips, store)
    files: dict[str, File] = {
        AOIS_FILE: aoi_metadata(tasks, records, outcomes),
        CHIPS_FILE: chip_table(chips, product),
    }
    nothing = (
        ""
        if chips or not finished
        else f"no chip was made in any area: the reasons are in {AOIS_FILE}"
    )
    return ReportFiles(files, nothing=nothing, items=f"{RELEASES}{product.version}/{ITEMS_FILE}")


def _read(task: LandcoverTask, store: Store) -> AoiRecord:
    return AoiRecord.model_validate_json(read_back(store, task.record))
