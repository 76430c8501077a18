"""Index benchmark: NDVI with clouds masked, of one full-size tile and of the area of four tiles.

    python benchmarks/index.py --rounds 1

Measures core use and peak memory of whole runs on the direct runner, including plan and report but
not imports, and compares them with the serial runner, which does without Beam. Core use is that of
the process and of the whole machine, on which the range server also runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import (
    CORE_COLUMNS,
    TILES,
    TIME_COLUMNS,
    core_cells,
    full_size_tiles,
    machine,
    measured,
    median_of,
    print_header,
    print_row,
    range_server,
    run_rounds,
    time_cells,
)

BANDS = ("red", "nir", "scl")
AREAS = {
    "one tile": (600_000, 4_390_200, 709_800, 4_500_000),
    "four tiles": (600_000, 4_290_200, 809_800, 4_500_000),
}
RUNNERS = ("direct", "serial")
LATENCY = 0.03


def one(config: dict[str, Any]) -> dict[str, Any]:
    """Run once in this process."""
    import apache_beam  # noqa: F401

    from scenebeam.execution.driver import run
    from scenebeam.requestfile import validate_request
    from scenebeam.sandbox.scenes import COLLECTION

    with tempfile.TemporaryDirectory() as folder:
        catalog = Path(folder) / "items.json"
        items = [tile.item(config["url"]) for tile in TILES]
        catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        request = validate_request(
            {
                "catalog": str(catalog),
                "collections": [COLLECTION],
                "grid": {
                    "crs": "EPSG:32634",
                    "resolution": 10,
                    "bounds": list(AREAS[config["area"]]),
                },
                "product": {"kind": "index", "index": "ndvi"},
                "output": str(Path(folder) / "out"),
                "runner": config["runner"],
            }
        )

        def work() -> None:
            status = run(request)
            assert status.state == "succeeded", status

        return measured(work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(json.loads(args.one))))
        return
    full_size_tiles(BANDS)
    print(f"{machine()}; {LATENCY * 1000:.0f} ms\n")
    print_header(
        *("area", "runner", *TIME_COLUMNS, *CORE_COLUMNS), *("peak MB", "requests", "MB read")
    )
    configs = {
        f"{area}, {runner}": {"area": area, "runner": runner}
        for area in AREAS
        for runner in RUNNERS
    }
    with range_server(LATENCY) as url:
        runs = run_rounds(__file__, url, dict.fromkeys(configs, args.rounds), configs)
    for name, found in runs.items():
        print_row(
            *(configs[name]["area"], configs[name]["runner"]),
            *time_cells(found),
            *core_cells(found),
            f"{median_of(found, 'peak_mb'):.0f}",
            f"{median_of(found, 'requests'):.0f}",
            f"{median_of(found, 'bytes') / 1e6:.0f}",
        )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
