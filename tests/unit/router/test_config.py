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
