"""Go the whole way on embedded digits: train, collect, fit, measure, search, export, report."""

from __future__ import annotations

from pathlib import Path

from find_networks import INTERRUPTED, FindConfig, go_the_whole_way

from ofa.launch import command


@command("quickstart", FindConfig, interrupted=INTERRUPTED)
def quickstart(config: FindConfig) -> Path:
    """Print the plan, carry it out, and return the folder of the bundles."""
    return go_the_whole_way(config)


if __name__ == "__main__":
    quickstart()
