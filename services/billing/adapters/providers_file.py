"""The operator's providers file, of which estimates need the models' names, aliases and prices.

The file is the router's, see `deploy/providers.toml`; what else stands in it is the router's to check.
"""

from __future__ import annotations

import os
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final

import msgspec

from services.billing.domain.prices import Rates
from services.billing.prices import ListedModel
from services.shared.log import get_logger

_Usd = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6})?$")]


class _Model(msgspec.Struct, frozen=True):
    aliases: tuple[str, ...] = ()
    input_price_usd_per_million_tokens: _Usd | None = None
    output_price_usd_per_million_tokens: _Usd | None = None

    def rates(self) -> Rates | None:
        prices = (self.input_price_usd_per_million_tokens, self.output_price_usd_per_million_tokens)
        if prices == (None, None):
            return None
        return Rates(*(None if usd is None else int(Decimal(usd) * 1_000_000) for usd in prices))


class _Provider(msgspec.Struct, frozen=True):
    models: dict[str, _Model] = {}


class _File(msgspec.Struct, frozen=True):
    providers: dict[str, _Provider] = {}


_ABSENT: Final = (0, 0, 0)


class ProvidersFile:
    """The models of the file, read again whenever it has changed; one that is bad changes nothing.

    Without the file every name stands for itself: the router may run elsewhere, and estimates are no reason not to
    serve. Either is said in the log.

    Args:
        path: the file, which need not be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, int, int] | None = None
        self._models: dict[tuple[str, str], ListedModel] = {}
        self._refresh()

    def find(self, provider: str, model: str) -> ListedModel:
        """The model that the router would run; the name as it is where the file does not have it."""
        self._refresh()
        return self._models.get((provider, model)) or ListedModel(model, None)

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
            now = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            now = _ABSENT
        if now == self._read:
            return
        self._read = now
        if now == _ABSENT:
            get_logger().warning(
                "no providers file: estimates take models by the names that they are asked for",
                path=str(self._path),
                detail="FLOWSTACK_PROVIDERS_FILE names the router's",
            )
            return
        try:
            self._models = _models_of(msgspec.convert(tomllib.loads(self._path.read_text("utf-8")), type=_File))
        except (OSError, ValueError) as error:
            get_logger().error("providers file refused, the old one holds", path=str(self._path), detail=str(error))


def _models_of(file: _File) -> dict[tuple[str, str], ListedModel]:
    found: dict[tuple[str, str], ListedModel] = {}
    for provider, entry in file.providers.items():
        named = {(provider, name): ListedModel(name, model.rates()) for name, model in entry.models.items()}
        for name, model in entry.models.items():
            found |= dict.fromkeys(((provider, alias) for alias in model.aliases), named[provider, name])
        found |= named
    return found
