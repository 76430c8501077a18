"""Beam pipeline options, as command-line arguments."""

from __future__ import annotations

from typing import Any

DATAFLOW_OPTIONS = ("project", "region", "temp_location")
"""Options that Dataflow needs."""


def as_arguments(options: dict[str, Any]) -> list[str]:
    """Write options as command-line arguments: `--name=value`, one per item of a list."""
    arguments = ["--no_save_main_session"]
    for name, value in options.items():
        for item in value if isinstance(value, list) else [value]:
            if item is True:
                arguments.append(f"--{name}")
            elif item is not False:
                arguments.append(f"--{name}={item}")
    return arguments
