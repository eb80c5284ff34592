"""The services' and the SDK's sentences in the words of the command line: commands for methods, forms for patterns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

COMMANDS: Final[Mapping[str, str]] = {
    "ListApiKeys": "`flowstack keys list`",
    "CreateApiKey": "`flowstack keys create`",
    "RotateApiKey": "`flowstack keys rotate`",
    "ListPlans": "`flowstack plans`",
    "ChangePlan": "`flowstack subscription change`",
    "ListInvoices": "`flowstack invoices list`",
    "GetInvoice": "`flowstack invoices show`",
    "ListWebhooks": "`flowstack alerts webhooks list`",
    "ListAlerts": "`flowstack alerts list`",
    "ListAccounts": "`flowstack admin accounts list`",
    "api_key=": "--api-key",
    "provider=": "--provider",
    "byok=": "--byok",
}
"""What there is on the command line for a method of the contracts or an argument of the SDK."""

FORMS: Final[Mapping[str, str]] = {
    "acct": "an account's id, acct_…",
    "key": "a key's id, key_…; `flowstack keys list` shows them",
    "inv": "an invoice's id, inv_…, or its number; `flowstack invoices list` shows them",
    "wh": "a webhook's id, wh_…; `flowstack alerts webhooks list` shows them",
    "alert": "an alert's id, alert_…; `flowstack alerts list` shows them",
    "ses": "a session's id, ses_…",
}
"""How an id looks, by its prefix."""

OTHER_FORMS: Final[Mapping[str, str]] = {
    "^https?://[^/]": "an address that begins with https://",
    "^[A-Za-z0-9_.:-]{1,128}$": "up to 128 letters, digits and _ . : -",
    "^[a-z][a-z0-9-]{0,62}$": "a name in lower-case letters, digits and -; `flowstack plans` lists them",
    "^[a-z0-9][a-z0-9_-]{0,63}$": "a name in lower-case letters, digits, - and _",
    "^([a-z0-9][a-z0-9_-]{0,63})?$": "a name in lower-case letters, digits, - and _",
    "^[^\\x00-\\x1f\\x7f]*$": "text on one line, without control characters",
    "^[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]*$": "text without control characters other than line breaks and tabs",
    "^[!-~]+$": "printable characters without spaces",
    "^[!-~]*$": "printable characters without spaces",
}
"""What a pattern of the contracts asks for."""

_COMMAND: Final = re.compile("|".join(rf"\b{re.escape(name)}(?!\w)" for name in COMMANDS))
_PATTERN: Final = re.compile(r"does not match regex pattern `(?P<pattern>.*?)`(?=[.;)]|$)")
_ID: Final = re.compile(r"\^([a-z]+)_")


def in_commands(message: str) -> str:
    """A message as somebody at a terminal can act on it."""
    told = _COMMAND.sub(lambda found: COMMANDS[found.group()], message)
    return _PATTERN.sub(lambda found: f"has to be {_form(found['pattern'])}", told)


def _form(pattern: str) -> str:
    prefix = _ID.match(pattern)
    if prefix is not None and prefix[1] in FORMS:
        return FORMS[prefix[1]]
    return OTHER_FORMS.get(pattern, "written otherwise; `flowstack COMMAND --help` says how")
