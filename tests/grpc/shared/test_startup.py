"""What keeps a service from starting is told in one sentence, with the exit code that no supervisor answers."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from services.shared.process import EXIT_STARTUP_FAILED
from tests.grpc.shared.certificates import Authority
from tests.grpc.shared.test_drain import running
from tests.support.suite import ROOT, suite_environment

PROVIDERS = ROOT / "deploy" / "providers.toml"


async def run(folder: Path, *module: str, **overrides: str) -> str:
    """What a service says that cannot start: one line."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", *module],
        cwd=folder,
        env=suite_environment(folder / "data", {"FLOWSTACK_PROVIDERS_FILE": str(PROVIDERS), **overrides}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == EXIT_STARTUP_FAILED, done.stderr
    assert "Traceback" not in done.stderr
    assert '"restarting"' not in done.stderr
    return done.stderr


PROBLEMS = {
    "a port that is no number": ("router", {"FLOWSTACK_ROUTER_ADDRESS": "127.0.0.1:abc"}, "ROUTER_ADDRESS: has to be"),
    "a port beyond the last": ("quota", {"FLOWSTACK_QUOTA_ADDRESS": "127.0.0.1:99999"}, "QUOTA_ADDRESS: has to be"),
    "no port": ("router", {"FLOWSTACK_ROUTER_ADDRESS": "localhost"}, "ROUTER_ADDRESS: has to be"),
    "no folder for the socket": (
        "router",
        {"FLOWSTACK_ROUTER_ADDRESS": "unix:/nonexistent/x"},
        "/nonexistent is not a folder",
    ),
    "not this machine": ("vault", {"FLOWSTACK_VAULT_ADDRESS": "192.0.2.1:1", "FLOWSTACK_ALLOW_PLAINTEXT": "1",
                         "FLOWSTACK_ADMIN_TOKEN": "a"}, "not an address of this machine"),
    "no token": ("router", {"FLOWSTACK_INTERNAL_TOKEN": ","}, "FLOWSTACK_INTERNAL_TOKEN holds no token"),
    "a token beyond ASCII": ("quota", {"FLOWSTACK_INTERNAL_TOKEN": "é"}, "FLOWSTACK_INTERNAL_TOKEN holds no token"),
    "no admin token": ("vault", {"FLOWSTACK_ADMIN_TOKEN": ","}, "FLOWSTACK_ADMIN_TOKEN holds no token"),
    "a short pepper": ("billing", {"FLOWSTACK_KEY_PEPPER": "x"}, "FLOWSTACK_KEY_PEPPER has to be"),
    "a data folder that is a file": ("quota", {"FLOWSTACK_DATA_DIR": "file"}, "FLOWSTACK_DATA_DIR names file"),
    "a data folder under /proc": ("billing", {"FLOWSTACK_DATA_DIR": "/proc/x"}, "FLOWSTACK_DATA_DIR names /proc/x"),
    "no certificate": (
        "router",
        {"FLOWSTACK_TLS_CERT_FILE": "/nope", "FLOWSTACK_TLS_KEY_FILE": "key.pem"},
        "FLOWSTACK_TLS_CERT_FILE names /nope",
    ),
    "a garbage certificate": (
        "billing",
        {"FLOWSTACK_TLS_CERT_FILE": "file", "FLOWSTACK_TLS_KEY_FILE": "file"},
        "FLOWSTACK_TLS_CERT_FILE names file, which holds no certificate",
    ),
    "a garbage key": (
        "vault",
        {"FLOWSTACK_TLS_CERT_FILE": "ours.pem", "FLOWSTACK_TLS_KEY_FILE": "file"},
        "FLOWSTACK_TLS_KEY_FILE names file, which is not a private key",
    ),
    "another's key": (
        "vault",
        {"FLOWSTACK_TLS_CERT_FILE": "ours.pem", "FLOWSTACK_TLS_KEY_FILE": "theirs.key"},
        "does not belong to the certificate",
    ),
    "a garbage authority": (
        "quota",
        {
            "FLOWSTACK_TLS_CERT_FILE": "ours.pem",
            "FLOWSTACK_TLS_KEY_FILE": "ours.key",
            "FLOWSTACK_TLS_CLIENT_CA_FILE": "file",
        },
        "FLOWSTACK_TLS_CLIENT_CA_FILE names file",
    ),
    "a key without a certificate": (
        "vault",
        {"FLOWSTACK_TLS_KEY_FILE": "ours.key", "FLOWSTACK_TLS_CLIENT_CA_FILE": "ours.pem"},
        "FLOWSTACK_TLS_CERT_FILE is not set",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("authorities")
    for name in ("ours", "theirs"):
        Authority(folder, name)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("problem", PROBLEMS)
async def test_a_service_tells_what_keeps_it_from_starting(
    tmp_path: Path, files: dict[str, bytes], problem: str
) -> None:
    name, variables, says = PROBLEMS[problem]
    for file, content in {**files, "file": b"garbage"}.items():
        (tmp_path / file).write_bytes(content)
    stderr = await run(tmp_path, f"services.{name}", **variables)
    lines = [line for line in stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1
    assert says in lines[0]


@pytest.mark.parametrize(
    "problem", ["a port that is no number", "no token", "a short pepper", "a data folder that is a file",
                "a garbage certificate", "no folder for the socket"]
)  # fmt: skip
async def test_the_suite_ends_with_the_same_sentence(tmp_path: Path, files: dict[str, bytes], problem: str) -> None:
    _, variables, says = PROBLEMS[problem]
    for file, content in {**files, "file": b"garbage"}.items():
        (tmp_path / file).write_bytes(content)
    assert says in await run(tmp_path, "services", **variables)


async def test_what_services_write_is_for_their_user_alone(tmp_path: Path) -> None:
    environment = suite_environment(tmp_path / "data", {})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services", "--demo", "--once",
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, umask=0o022,
    )  # fmt: skip
    assert await process.wait() == 0
    found = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
    assert {path.name for path in found} >= {"quota.db", "billing.db", "logs", "router.log", "key-pepper"}
    assert [path.name for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


async def test_a_service_alone_writes_for_its_user_alone_too(tmp_path: Path) -> None:
    environment = suite_environment(
        tmp_path / "data", {"FLOWSTACK_QUOTA_STORE": f"sqlite:///{tmp_path}/elsewhere/q.db"}
    )
    async with running("quota", environment, umask=0o022):
        found = [tmp_path / "elsewhere", *(tmp_path / "elsewhere").iterdir(), tmp_path / "data"]
        assert {path.name for path in found} >= {"q.db", "q.db-wal"}
        assert [path.name for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
