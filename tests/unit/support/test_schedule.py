"""What shares a start of something stays in one worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.schedule import FIRST, LAST, group_of, place_of
from tests.support.suite import ROOT


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/unit/a/test_b.py::test_c[services]", "tests/unit/a/test_b.py"),
        ("tests/contract/test_b.py::test_c[services]", "tests/contract on the services"),
        ("tests/contract/test_b.py::test_c[services-x]", "tests/contract on the services"),
        ("tests/contract/test_b.py::test_c[x-services]", "tests/contract on the services"),
        ("tests/contract/test_b.py::test_services[fake]", "tests/contract/test_b.py"),
        ("tests/sdk/test_b.py::test_c[x-services-y]", "tests/sdk on the services"),
        ("tests/sdk/test_sessions.py::test_c", "tests/sdk on the services"),
    ],
)
def test_who_belongs_together(nodeid: str, group: str) -> None:
    assert group_of(nodeid) == group


def test_the_longest_come_first_and_what_waits_last() -> None:
    nodeids = ("tests/e2e/test_grpcurl.py::a", "tests/unit/x/test_y.py::a", "tests/sdk/test_z.py::a[services]",
               "tests/crash/test_kill.py::a")  # fmt: skip
    assert sorted(nodeids, key=place_of) == list(reversed(nodeids))
    files = [group for group in (*FIRST, *LAST) if group.endswith(".py")]
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_each_group_runs_in_one_worker(tmp_path: Path) -> None:
    """Also with a pytest that reads no names of xdist's."""
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "conftest.py").write_text(
        "from tests.conftest import pytest_xdist_make_scheduler\n"
        "import pytest\n"
        "@pytest.fixture(params=['services', 'fake'])\n"
        "def target(request): return request.param\n"
    )
    folder = tmp_path / "tests" / "contract"
    folder.mkdir(parents=True)
    for name in "abc":
        (folder / f"test_{name}.py").write_text("def test_it(target): pass\ndef test_again(target): pass\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider",
         "--import-mode=importlib"],
        cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    workers: dict[str, set[str]] = {}
    for line in ran.stdout.splitlines():
        if "PASSED" in line:
            workers.setdefault(group_of(line.split()[-1]), set()).add(line.split()[0])
    assert len(workers) == 4
    assert [group for group, of_group in workers.items() if len(of_group) > 1] == []
    assert len(set.union(*workers.values())) == 2
