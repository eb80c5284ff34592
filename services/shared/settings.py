"""Settings of every service, from the environment and `.env`, and the secrets that go with them.

Each setting is `FLOWSTACK_<NAME>`. A secret can also be given as `FLOWSTACK_<NAME>_FILE`, the path of a file
that holds it. The operator's provider keys keep the names that their SDKs use.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from services.shared import addresses
from services.shared.addresses import is_loopback
from services.shared.secret import Secret

__all__ = ["CommonSettings", "SecretSetting", "StartupError", "is_loopback", "load", "read_secret"]

SECRET_BYTES: Final = 32

PEPPER_CHARACTERS_MIN: Final = 16
"""A pepper that can be guessed protects nothing."""


class StartupError(Exception):
    """The service cannot start. The message is a sentence for the operator: the cause and the next step."""


def _secret(value: object) -> object:
    return Secret(value) if isinstance(value, str) else value


SecretSetting = Annotated[Secret, BeforeValidator(_secret)]
"""A setting whose value cannot be printed."""


def _address(text: str) -> str:
    addresses.parse(text)
    return text


AddressSetting = Annotated[str, AfterValidator(_address)]
"""host:port, or unix: and a path."""


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads `<NAME>_FILE` for every secret setting, from the environment or `.env`."""

    def __init__(self, settings_cls: type[BaseSettings], dotenv: DotEnvSettingsSource) -> None:
        super().__init__(settings_cls)
        self._variables = {
            **{name.upper(): value for name, value in dotenv.env_vars.items() if value},
            **{name.upper(): value for name, value in os.environ.items()},
        }

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = _variable(self.settings_cls, field, field_name)
        path = self._variables.get(f"{variable}_FILE")
        if not path or not _holds_secret(field.annotation):
            return None, field_name, False
        return read_secret(Path(path), f"{variable}_FILE"), field_name, False

    def __call__(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            value, _, _ = self.get_field_value(field, name)
            if value is not None:
                values[str(field.validation_alias or name)] = value
        return values


def _holds_secret(annotation: object) -> bool:
    return annotation is Secret or any(_holds_secret(part) for part in get_args(annotation))


def _variable(settings_cls: type[BaseSettings], field: FieldInfo, name: str) -> str:
    if isinstance(field.validation_alias, str):
        return field.validation_alias.upper()
    return f"{settings_cls.model_config.get('env_prefix', '')}{name}".upper()


class CommonSettings(BaseSettings):
    """What every service reads. Each service's config.py adds its own."""

    model_config = SettingsConfigDict(
        env_prefix="FLOWSTACK_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        populate_by_name=True,
    )

    data_dir: Path = Path("var")
    router_address: AddressSetting = "127.0.0.1:50051"
    quota_address: AddressSetting = "127.0.0.1:50052"
    billing_address: AddressSetting = "127.0.0.1:50053"
    vault_address: AddressSetting = "127.0.0.1:50054"
    billing_internal_address: AddressSetting = "127.0.0.1:50063"
    admin_port_base: int = Field(9464, ge=0, le=65000)  # 0: any free port
    admin_token: SecretSetting | None = None
    internal_token: SecretSetting | None = None
    key_pepper: SecretSetting | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_client_ca_file: Path | None = None
    tls_server_ca_file: Path | None = None
    """Verifies other services; `tls_client_ca_file` where unset."""
    tls_service_names: str = ""
    """Subject alternative names, comma-separated, whose certificates prove a service without the internal token."""
    allow_plaintext: bool = False
    reflection: bool | None = None
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    drain_grace_seconds: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        fields = ("tls_cert_file", "tls_key_file", "tls_client_ca_file", "tls_server_ca_file", "tls_service_names")
        given = [f"FLOWSTACK_{name.upper()}" for name in fields if getattr(self, name)]
        missing = [f"FLOWSTACK_{name.upper()}" for name in fields[:2] if not getattr(self, name)]
        if given and missing:
            raise StartupError(
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set, but {', '.join(given)} "
                f"{'is' if len(given) == 1 else 'are'}. TLS takes a certificate and its key: set both or neither."
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, environment, `.env`, then `…_FILE`."""
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        return init_settings, env_settings, dotenv_settings, _SecretFiles(settings_cls, dotenv_settings)

    @property
    def tls(self) -> bool:
        """True when certificates are configured."""
        return self.tls_cert_file is not None

    @property
    def server_authority_file(self) -> Path | None:
        """What verifies the services' certificates."""
        return self.tls_server_ca_file or self.tls_client_ca_file

    @property
    def service_names(self) -> frozenset[str]:
        """The subject alternative names of services; empty without TLS."""
        names = (name.strip() for name in self.tls_service_names.split(","))
        return frozenset(name for name in names if name) if self.tls else frozenset()

    def grace_s(self, default_s: float) -> float:
        """How long running calls may go on after SIGTERM, in seconds."""
        return default_s if self.drain_grace_seconds is None else self.drain_grace_seconds

    def admin_tokens(self) -> tuple[Secret, ...]:
        """The operator's tokens: one, or two while rotating.

        Raises:
            StartupError: there is none, or one that cannot be sent.
        """
        return _tokens("FLOWSTACK_ADMIN_TOKEN", self.secret("admin_token", self.billing_address))

    def internal_tokens(self) -> tuple[Secret, ...]:
        """The tokens that services accept from one another; the first is the one they send.

        Raises:
            StartupError: there is none, or one that cannot be sent.
        """
        return _tokens("FLOWSTACK_INTERNAL_TOKEN", self.secret("internal_token", self.quota_address))

    def pepper(self) -> Secret:
        """The pepper of API key digests, kept outside the database.

        Raises:
            StartupError: there is none, or one that can be guessed.
        """
        pepper = self.secret("key_pepper", self.billing_address)
        if len(pepper.reveal()) < PEPPER_CHARACTERS_MIN or not _is_unicode(pepper.reveal()):
            raise StartupError(
                f"FLOWSTACK_KEY_PEPPER has to be text of at least {PEPPER_CHARACTERS_MIN} characters. "
                "Set it to random ones, once and for all: the API keys made with it need it."
            )
        return pepper

    def data_folder(self) -> Path:
        """The data folder, made where it does not exist, for this user alone.

        Raises:
            StartupError: it cannot be made, or is no folder.
        """
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(_no_data_folder(self.data_dir, error)) from error
        return self.data_dir

    def secret(self, name: str, address: str) -> Secret:
        """The secret setting `name`, made under the data folder at first use where `address` is loopback.

        Raises:
            StartupError: it is not set, and the service is not on loopback.
        """
        configured: Secret | None = getattr(self, name)
        if configured:
            return configured
        variable = f"FLOWSTACK_{name.upper()}"
        if not is_loopback(address):
            raise StartupError(
                f"{variable} is not set, and {address} is not a loopback address. "
                f"Set {variable} or {variable}_FILE; secrets are made by themselves on loopback only."
            )
        path = self.data_folder() / name.replace("_", "-")
        try:
            _make_once(path)
        except OSError as error:
            raise StartupError(_no_data_folder(self.data_dir, error)) from error
        return Secret(read_secret(path, variable))


SettingsT = TypeVar("SettingsT", bound=CommonSettings)


def load(settings_cls: type[SettingsT], **overrides: Any) -> SettingsT:
    """Reads the settings.

    Raises:
        StartupError: a value does not fit; the message names the variable, never its value.
    """
    try:
        return settings_cls(**overrides)
    except ValidationError as error:
        problems = "; ".join(
            f"FLOWSTACK_{'_'.join(str(part) for part in item['loc']).upper()}: "
            f"{item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise StartupError(f"The settings are not valid. {problems}.") from None
    except UnicodeDecodeError:
        raise StartupError("The file .env is not text in UTF-8. Correct it, or move it away.") from None
    except OSError as error:
        raise StartupError(f"The file .env cannot be read ({error.strerror}). Correct its permissions.") from None


def read_secret(path: Path, variable: str) -> str:
    """The secret in a file.

    Args:
        path: the file.
        variable: what named it, for messages.

    Raises:
        StartupError: it cannot be read, is no text, or is empty.
    """
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise StartupError(
            f"{variable} names {path}, which cannot be read ({error.strerror}). "
            "Correct the path or the file's permissions."
        ) from error
    except UnicodeDecodeError:
        raise StartupError(f"{variable} names {path}, which is not text. Name a file that holds the secret.") from None
    if not secret:
        raise StartupError(f"{variable} names {path}, which is empty. Put the secret into it.")
    return secret


def _tokens(variable: str, secret: Secret) -> tuple[Secret, ...]:
    tokens = tuple(Secret(part.strip()) for part in secret.reveal().split(",") if part.strip())
    if not tokens or not all(token.reveal().isascii() and token.reveal().isprintable() for token in tokens):
        raise StartupError(
            f"{variable} holds no token that can be sent. Set it to printable ASCII characters, "
            "or to two such tokens with a comma between them while rotating."
        )
    return tokens


def _is_unicode(text: str) -> bool:
    # Bytes of the environment that are no UTF-8 come as lone surrogates.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _no_data_folder(path: Path, error: OSError) -> str:
    return (
        f"FLOWSTACK_DATA_DIR names {path}, which cannot be used as the data folder ({error.strerror}). "
        "Name a folder that this user may write to."
    )


def _make_once(path: Path) -> None:
    """Makes a secret file with mode 600 where there is none. Safe when several processes start at once."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(SECRET_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        # Another process was faster; its secret is the one.
        pass
    finally:
        draft.unlink()
