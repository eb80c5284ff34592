"""The log's closed list of fields."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.suite import ROOT

PLANTED = "planted-value-that-nobody-may-see"
PROGRAM = f"""
import logging
from services.shared import log
log.configure("router")
log.get_logger().info("rpc", method="/x", api_key="{PLANTED}", authorization="{PLANTED}", text="{PLANTED}")
log.get_logger().bind(token="{PLANTED}").warning("rpc", account_id="acct_1")
logging.getLogger("openai").info("headers {PLANTED}")
logging.getLogger("httpx").warning("headers {PLANTED}")
try:
    raise ValueError("{PLANTED}")
except ValueError as error:
    log.get_logger().error("defect", error_type=type(error).__name__, traceback=log.frames_of(error), exc_info=True)
"""


def test_what_is_not_on_the_list_is_not_written() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert PLANTED not in done.stdout + done.stderr
    first, second, third = (json.loads(line) for line in done.stderr.splitlines())
    assert {name: first[name] for name in ("event", "level", "service", "method")} == {
        "event": "rpc", "level": "info", "service": "router", "method": "/x",
    }  # fmt: skip
    assert set(first) == {"event", "level", "service", "method", "timestamp"}
    assert set(second) == {"event", "level", "service", "account_id", "timestamp"}
    assert set(third) == {"event", "level", "service", "error_type", "traceback", "timestamp"}


GRPCS_ERRORS = """
import logging
from grpc._cython.cygrpc import ExecuteBatchError
from services.shared import log
log.configure("router")
for error in (ExecuteBatchError("the client has gone"), ValueError("a defect")):
    try:
        raise error
    except Exception:
        logging.getLogger("grpc._cython.cygrpc").exception("%s raised by a method", type(error).__name__)
"""


def test_a_client_that_leaves_in_the_middle_of_a_write_is_no_error() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GRPCS_ERRORS], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "ValueError raised" in done.stderr
    assert "ExecuteBatchError" not in done.stderr
