"""Runs a PostgreSQL server for as long as somebody holds this program's standard input open, and no longer.

A test process that is killed closes it as well, and so leaves no server behind, on every system and whichever of its
threads started this. The first argument is the user and group to run the server as, `65534:65534`, or empty for one's
own; the others are its command.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

STOP_S_MAX = 30


def main() -> None:
    """Ends with the server, or ends it when standard input does."""
    ids, *command = sys.argv[1:]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, **_as_user(ids))
    threading.Thread(target=_end_with, args=(server,), daemon=True).start()
    while os.read(0, 1024):
        pass
    # What it holds is a test's: it need not be written in order.
    server.send_signal(signal.SIGQUIT)
    try:
        server.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        server.kill()


def _as_user(ids: str) -> dict[str, Any]:
    if not ids:
        return {}
    user, group = map(int, ids.split(":"))
    return {"user": user, "group": group, "extra_groups": []}


def _end_with(server: subprocess.Popen[bytes]) -> None:
    os._exit(server.wait() != 0)


if __name__ == "__main__":
    main()
