from __future__ import annotations

from pathlib import Path

import pytest

from services.router.config import RouterSettings, operator_secret
from services.shared.settings import StartupError, load


@pytest.mark.parametrize(("limit", "lease", "ok"), [(300, 330, True), (300, 329, False), (5, 35, True), (5, 34, False)])
def test_the_lease_outlasts_the_session_by_a_margin(limit: int, lease: int, ok: bool) -> None:
    settings = load(RouterSettings, session_time_limit_seconds=limit, lease_seconds=lease)
    if ok:
        assert settings.limits().lease_s == lease
    else:
        with pytest.raises(StartupError, match="FLOWSTACK_LEASE_SECONDS"):
            settings.limits()


@pytest.mark.parametrize("workers", ["0", "65", "-1", "many", "1.5"])
def test_a_number_of_workers_that_does_not_fit(monkeypatch: pytest.MonkeyPatch, workers: str) -> None:
    monkeypatch.setenv("FLOWSTACK_ROUTER_WORKERS", workers)
    with pytest.raises(StartupError, match="FLOWSTACK_ROUTER_WORKERS"):
        load(RouterSettings)


def test_one_worker_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWSTACK_ROUTER_WORKERS", raising=False)
    assert load(RouterSettings).router_workers == 1


@pytest.mark.parametrize(
    ("address", "echo", "enabled"),
    [
        ("127.0.0.1:1", None, True),
        ("0.0.0.0:1", None, False),
        ("0.0.0.0:1", True, True),
        ("127.0.0.1:1", False, False),
    ],
)
def test_echo_is_offered_on_loopback(address: str, echo: bool | None, enabled: bool) -> None:
    assert load(RouterSettings, router_address=address, echo=echo).echo_enabled is enabled


def test_the_operators_key_comes_from_variable_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert operator_secret("SOME_KEY") is None

    (tmp_path / ".env").write_text("SOME_KEY=from-dotenv\n")
    found = operator_secret("SOME_KEY")
    assert found is not None
    assert found.reveal() == "from-dotenv"

    (tmp_path / "key").write_text("from-file\n")
    monkeypatch.setenv("OTHER_KEY_FILE", str(tmp_path / "key"))
    found = operator_secret("OTHER_KEY")
    assert found is not None
    assert found.reveal() == "from-file"

    monkeypatch.setenv("OTHER_KEY", "from-environment")
    found = operator_secret("OTHER_KEY")
    assert found is not None
    assert found.reveal() == "from-environment"

    monkeypatch.setenv("LOST_KEY_FILE", str(tmp_path / "absent"))
    with pytest.raises(StartupError, match="LOST_KEY_FILE"):
        operator_secret("LOST_KEY")


@pytest.mark.parametrize(
    "value", ["two\nlines", "ends-with-a-line\n", "tab\there", "a space", "not-ascii-\u00e9", "nul-\x01"]
)
def test_a_key_that_no_header_can_hold_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", value)
    with pytest.raises(StartupError, match="SOME_KEY") as caught:
        operator_secret("SOME_KEY")

    assert value.strip() not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00binary", b"two\nlines\n", b"", b"\n"])
def test_a_key_file_that_holds_no_key_is_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_bytes(content)
    monkeypatch.setenv("SOME_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(StartupError, match="SOME_KEY_FILE"):
        operator_secret("SOME_KEY")


def test_a_key_file_may_be_a_folder_by_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY_FILE", str(tmp_path))
    with pytest.raises(StartupError, match="SOME_KEY_FILE"):
        operator_secret("SOME_KEY")


URLS = [
    "notaurl",
    "httpfoo",
    "http:/one-slash/v1",
    "ftp://x/v1",
    "http://",
    "http://:8000/v1",
    "http://host:port/v1",
    "http://host:99999/v1",
    "http://ho st/v1",
    "http://host/v1\nHost: other",
    "http://user:hunter2@host/v1",
    "http://host/v1?key=hunter2",
    "http://host/v1#part",
    "http://[::1/v1",
]


@pytest.mark.parametrize("setting", ["openai_base_url", "anthropic_base_url", "bedrock_endpoint_url"])
@pytest.mark.parametrize("url", URLS)
def test_a_base_url_that_is_none_is_refused(setting: str, url: str) -> None:
    with pytest.raises(StartupError, match=f"FLOWSTACK_{setting.upper()}") as caught:
        load(RouterSettings, **{setting: url})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "https://host", "http://[::1]:8000/v1/", "HTTP://host/v1"])
def test_a_base_url_is_taken(url: str) -> None:
    assert load(RouterSettings, openai_base_url=url).openai_base_url == url
