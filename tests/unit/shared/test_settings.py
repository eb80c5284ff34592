"""Settings: where they come from, what is refused and how, and the files that are made."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from services.shared.secret import Secret
from services.shared.settings import CommonSettings, StartupError, load

PLANTED = "planted-value-that-nobody-may-see"


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment and a working folder without settings."""
    import os

    for name in list(os.environ):
        if name.startswith("FLOWSTACK_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def refusal(action: Any) -> str:
    """The sentence that is raised, which shows no secret."""
    with pytest.raises(StartupError) as caught:
        action()
    assert PLANTED not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_environment_goes_before_the_file_and_the_file_before_secret_files(monkeypatch: Any) -> None:
    Path("admin").write_text("from-a-file\n")
    monkeypatch.setenv("FLOWSTACK_ADMIN_TOKEN_FILE", "admin")
    assert load(CommonSettings).admin_token == Secret("from-a-file")
    Path(".env").write_text("FLOWSTACK_ADMIN_TOKEN=from-dotenv\nFLOWSTACK_ROUTER_ADDRESS=127.0.0.1:1\n")
    assert load(CommonSettings).admin_token == Secret("from-dotenv")
    assert load(CommonSettings).router_address == "127.0.0.1:1"
    monkeypatch.setenv("FLOWSTACK_ADMIN_TOKEN", "from-the-environment")
    monkeypatch.setenv("FLOWSTACK_ROUTER_ADDRESS", "127.0.0.1:2")
    assert load(CommonSettings).admin_token == Secret("from-the-environment")
    assert load(CommonSettings).router_address == "127.0.0.1:2"
    assert load(CommonSettings, router_address="127.0.0.1:3").router_address == "127.0.0.1:3"


def test_the_path_of_a_secret_file_can_stand_in_the_dotenv_file() -> None:
    Path("pepper").write_text(f"{PLANTED}\n")
    Path(".env").write_text("FLOWSTACK_KEY_PEPPER_FILE=pepper\n")
    assert load(CommonSettings).pepper() == Secret(PLANTED)


def test_secrets_are_made_once_with_mode_600_in_a_folder_with_mode_700() -> None:
    settings = load(CommonSettings, data_dir="data")
    made = [settings.admin_tokens(), settings.internal_tokens(), (settings.pepper(),)]
    assert stat.S_IMODE(Path("data").stat().st_mode) == 0o700
    files = sorted(Path("data").iterdir())
    assert [file.name for file in files] == ["admin-token", "internal-token", "key-pepper"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert all(len(secrets[0].reveal()) >= 32 for secrets in made)
    assert len({secrets[0].reveal() for secrets in made}) == 3
    again = load(CommonSettings, data_dir="data")
    assert [again.admin_tokens(), again.internal_tokens(), (again.pepper(),)] == made


@pytest.mark.parametrize("read", ["admin_tokens", "internal_tokens", "pepper"])
def test_no_secret_is_made_beyond_loopback(read: str) -> None:
    settings = load(CommonSettings, quota_address="10.0.0.1:1", billing_address="10.0.0.1:2")
    assert "is not a loopback address" in refusal(getattr(settings, read))
    assert not Path("var").exists()


def test_two_tokens_while_rotating() -> None:
    settings = load(CommonSettings, admin_token=" old , new ,")
    assert settings.admin_tokens() == (Secret("old"), Secret("new"))


@pytest.mark.parametrize("value", ["127.0.0.1:abc", "127.0.0.1:99999", "localhost", ":1", "unix:"])
@pytest.mark.parametrize("name", ["ROUTER", "QUOTA", "BILLING", "VAULT", "BILLING_INTERNAL"])
def test_an_address_that_is_none_is_refused_by_its_setting(monkeypatch: Any, name: str, value: str) -> None:
    monkeypatch.setenv(f"FLOWSTACK_{name}_ADDRESS", value)
    said = refusal(lambda: load(CommonSettings))
    assert f"FLOWSTACK_{name}_ADDRESS: has to be host:port" in said


@pytest.mark.parametrize("value", [",", " , ", "é", f"{PLANTED}é", f"a,{PLANTED}\x07"])
@pytest.mark.parametrize("name", ["admin", "internal"])
def test_a_token_that_cannot_be_sent_is_refused(monkeypatch: Any, name: str, value: str) -> None:
    monkeypatch.setenv(f"FLOWSTACK_{name.upper()}_TOKEN", value)
    said = refusal(getattr(load(CommonSettings), f"{name}_tokens"))
    assert said.startswith(f"FLOWSTACK_{name.upper()}_TOKEN holds no token")


@pytest.mark.parametrize("value", ["x", "fifteen-chars-x", "\udcff" * 16])
def test_a_pepper_that_protects_nothing_is_refused(monkeypatch: Any, value: str) -> None:
    monkeypatch.setenv("FLOWSTACK_KEY_PEPPER", value)
    assert "FLOWSTACK_KEY_PEPPER has to be" in refusal(load(CommonSettings).pepper)


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "empty"), (b" \n", "empty"), (b"\xff\xfe" + PLANTED.encode(), "not text")]
)
@pytest.mark.parametrize("name", ["ADMIN_TOKEN", "INTERNAL_TOKEN", "KEY_PEPPER"])
def test_a_secret_file_without_a_secret_is_refused(monkeypatch: Any, name: str, content: bytes, says: str) -> None:
    Path("secret").write_bytes(content)
    monkeypatch.setenv(f"FLOWSTACK_{name}_FILE", "secret")
    said = refusal(lambda: load(CommonSettings))
    assert f"FLOWSTACK_{name}_FILE" in said
    assert says in said


def test_a_secret_file_that_cannot_be_read_is_refused(monkeypatch: Any) -> None:
    monkeypatch.setenv("FLOWSTACK_KEY_PEPPER_FILE", "/nonexistent/pepper")
    assert "FLOWSTACK_KEY_PEPPER_FILE names /nonexistent/pepper" in refusal(lambda: load(CommonSettings))


def test_a_made_secret_that_was_emptied_is_refused() -> None:
    settings = load(CommonSettings, data_dir="data")
    settings.admin_tokens()
    Path("data/admin-token").write_text("")
    assert "data/admin-token, which is empty" in refusal(settings.admin_tokens)


def test_a_binary_dotenv_file_is_refused() -> None:
    Path(".env").write_bytes(b"\xff\xfe\x00" + PLANTED.encode())
    assert ".env is not text" in refusal(lambda: load(CommonSettings))


@pytest.mark.parametrize("folder", ["file", "file/below", "/proc/flowstack"])
def test_a_data_folder_that_cannot_be_one_is_refused(folder: str) -> None:
    Path("file").touch()
    settings = load(CommonSettings, data_dir=folder)
    assert f"FLOWSTACK_DATA_DIR names {folder}" in refusal(settings.admin_tokens)
    assert f"FLOWSTACK_DATA_DIR names {folder}" in refusal(settings.data_folder)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (("KEY_FILE", "CLIENT_CA_FILE"), "FLOWSTACK_TLS_CERT_FILE is not set"),
        (("CERT_FILE",), "FLOWSTACK_TLS_KEY_FILE is not set"),
        (("SERVER_CA_FILE",), "FLOWSTACK_TLS_CERT_FILE and FLOWSTACK_TLS_KEY_FILE are not set"),
        (("SERVICE_NAMES",), "FLOWSTACK_TLS_CERT_FILE and FLOWSTACK_TLS_KEY_FILE are not set"),
    ],
)
def test_half_a_tls_configuration_is_refused(monkeypatch: Any, given: tuple[str, ...], missing: str) -> None:
    for name in given:
        monkeypatch.setenv(f"FLOWSTACK_TLS_{name}", "x")
    said = refusal(lambda: load(CommonSettings))
    assert missing in said
    assert all(f"FLOWSTACK_TLS_{name}" in said for name in given)


def test_a_value_of_another_type_is_not_repeated(monkeypatch: Any) -> None:
    monkeypatch.setenv("FLOWSTACK_ADMIN_PORT_BASE", PLANTED)
    assert "FLOWSTACK_ADMIN_PORT_BASE: " in refusal(lambda: load(CommonSettings))
