"""Answers as the providers' published formats have them, each a file that names its source."""

from __future__ import annotations

from pathlib import Path

from tests.support.bedrock_dialect import frame
from tests.support.dialects import DIALECTS, Dialect

FILES = sorted((Path(__file__).parents[1] / "conformance" / "providers" / "transcripts").glob("*.toml"))
WITH_HANDED_BACK = [file for file in FILES if "handed_back" in file.read_text()]
"""Those whose provider wants its own words back with the results of tools."""


def dialect_of(file: Path) -> Dialect:
    """Whose format a file is in: the first word of its name."""
    return DIALECTS[file.stem.partition("_")[0]]


def raw(dialect: Dialect, upstream: str) -> bytes:
    """The bytes of an answer. One that comes in frames is written a frame a line: its type and its payload."""
    if dialect.name != "bedrock":
        return upstream.encode()
    frames = []
    for line in upstream.splitlines():
        name, _, payload = line.partition(" ")
        kind = "exception" if name.startswith("!") else "event"
        headers = {
            f":{kind}-type": name.removeprefix("!"),
            ":content-type": "application/json",
            ":message-type": kind,
        }
        frames.append(frame(headers, payload.encode()))
    return b"".join(frames)
