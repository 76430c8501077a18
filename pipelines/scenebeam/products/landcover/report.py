"""Report a run: tables of areas and chips, and the release."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from scenebeam.csvtable import File
from scenebeam.metadata.item_tables import ITEMS_FILE, ReportFiles, read_required
from scenebeam.products.landcover.chips import assign_ids
from scenebeam.products.landcover.record import AoiRecord
from scenebeam.products.landcover.release import RELEASES_PREFIX, release
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.products.landcover.tables import AOIS_FILE, CHIPS_FILE, aoi_table, chip_table
from scenebeam.products.landcover.task import CHIPS_PREFIX, LandcoverTask
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
    """Publish the release of finished areas, and build the tables of all areas and chips.

    Args:
        request: The request of the run.
        tasks: All tasks of the plan.
        done: Ids of finished tasks.
        outcomes: Outcomes of this run, by task id.
        store: Where files are read and published.

    Raises:
        StorageError: A file cannot be read or published, or the archive does not fit on the disk.
    """
    product = request.product
    finished = [task for task in tasks if task.id in done]
    records = _read_records(finished, store)
    chips = assign_ids(finished, records, product.sampling_factor, product.split)
    classes = tasks[0].classes
    missing = sorted(classes.keys() - {chip.record.land_class for chip in chips})
    if missing:
        names = ", ".join(classes[number].name for number in missing)
        log.warning("no chip of %s in any area: the release is balanced without it", names)
    possible = [task for task in tasks if not task.fault]
    if store.superseded(CHIPS_PREFIX) and len(finished) < len(possible):
        # After --overwrite, a release of some areas would replace an earlier one of all areas.
        log.warning(
            "%s%s is kept until all areas have been made again", RELEASES_PREFIX, product.version
        )
    else:
        release(request.run, product, classes, chips, store)
    files: dict[str, File] = {
        AOIS_FILE: aoi_table(tasks, records, outcomes),
        CHIPS_FILE: chip_table(chips, product),
    }
    nothing = ""
    if finished and not chips:
        nothing = f"no chip was made in any area; {AOIS_FILE} gives the reasons"
    items = f"{RELEASES_PREFIX}{product.version}/{ITEMS_FILE}"
    return ReportFiles(files, nothing=nothing, items=items)


def _read_records(tasks: Sequence[LandcoverTask], store: Store) -> dict[str, AoiRecord]:
    """Read the records of finished tasks: task id → record."""

    def read(task: LandcoverTask) -> AoiRecord:
        return AoiRecord.model_validate_json(read_required(store, task.record_key))

    with ThreadPoolExecutor(8) as threads:
        records = list(threads.map(read, tasks))
    return {task.id: record for task, record in zip(tasks, records, strict=True)}
