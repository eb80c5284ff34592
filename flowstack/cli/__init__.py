"""The command line: `flowstack`."""

from __future__ import annotations


def main() -> None:
    """Runs the command that the arguments name."""
    from flowstack.cli.app import run

    run()
