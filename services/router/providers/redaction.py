"""Takes keys and addresses out of what a provider says before it reaches a client."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from services.shared.secret import REDACTED, Secret

MESSAGE_CHARACTERS_MAX: Final = 500
READ_CHARACTERS_MAX: Final = 8 * MESSAGE_CHARACTERS_MAX
"""How much of a message is looked at: the patterns take quadratic time over text that is made for it."""
ADDRESS: Final = "<address>"

_KEYS: Final = r"""
    (?<![a-z0-9])(?:sk|pk|rk|fs|gsk|xai|hf|ghp)[-_][\w\-*.]{6,}   # the prefixes that providers give their keys
    | \b(?:key|api)[-_][\w\-*.]{6,}
    | (?<![a-z0-9])(?:A3T|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}      # AWS access key ids
    | (?<![a-z0-9])(?:IQoJ|FwoG|FQoG)[\w/+=.-]{12,}               # AWS session tokens, which are base64
    | (?<![a-z0-9])ABSK[\w/+=-]{12,}                             # Bedrock's API keys
    | \bBearer\s+[^\s,;"']+                                     # a header quoted back
    | \beyJ[\w\-]+\.[\w\-]+\.[\w\-]*                            # a JWT
"""
_ACCOUNTS: Final = r"""
    | (?<![a-z0-9])(?:org-|proj_|wrkspc_)[\w\-*]{4,}             # whose key it is
    | (?<![a-z0-9])(?:AROA|AIDA|AIPA|ANPA|AGPA)[A-Z0-9]{12,}     # roles and users of AWS
    | \barn:aws[\w-]*:[\w-]*:[\w-]*:[0-9]{12}:[^\s"',;)]+        # what is an AWS account's own
"""
_LONG: Final = r"""
    | (?<![\w/+=-])[\w/+=-]{32,}(?![\w/+=-])                    # any long run that could be a key or a digest
"""
_KEY_SHAPED: Final = re.compile(_KEYS + _ACCOUNTS + _LONG, re.VERBOSE | re.IGNORECASE)
_IN_IDENTIFIER: Final = re.compile(_KEYS + _ACCOUNTS, re.VERBOSE | re.IGNORECASE)
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9._:-]+")
_ADDRESS: Final = re.compile(
    r"""
    \b[a-z][a-z0-9+.-]*://[^\s"'`<>,;]*[^\s"'`<>,;.:!?)]   # a URL, with the name and password that may stand in it
    | [^\s/@:"'`(]+:[^\s/@"'`]+@[\w.:\[\]-]*\w           # the same without its beginning
    """,
    re.VERBOSE | re.IGNORECASE,
)
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]+")


def filtered(message: str, secrets: Iterable[Secret] = ()) -> str:
    """`message` without `secrets`, key-shaped text and addresses, on one line, of at most MESSAGE_CHARACTERS_MAX.

    What a provider says may quote a key back, whole or starred out in the middle; so both the known keys and
    whatever looks like one are replaced. It may also name what is the operator's: accounts, and hosts behind a proxy.
    """
    for secret in secrets:
        if secret:
            message = message.replace(secret.reveal(), REDACTED)
    if len(message) > READ_CHARACTERS_MAX:
        # Up to a space: half a key has lost its shape.
        message = message[:READ_CHARACTERS_MAX].rpartition(" ")[0] + " …"
    message = _ADDRESS.sub(ADDRESS, message)
    message = _UNPRINTABLE.sub(" ", _KEY_SHAPED.sub(REDACTED, message)).strip()
    if len(message) > MESSAGE_CHARACTERS_MAX:
        return message[: MESSAGE_CHARACTERS_MAX - 1] + "…"
    return message


def identifier(text: str, characters_max: int, secrets: Iterable[Secret] = ()) -> str:
    """`text` where it is a plain word of a provider's, such as the id of a call; else nothing.

    An id is as long as a key, so length does not tell them apart here: only the characters and the shapes of known
    keys do. One that is too long is left out and not cut, because what is left could still be most of a key.
    """
    if len(text) > characters_max or not _IDENTIFIER.fullmatch(text) or _IN_IDENTIFIER.search(text):
        return ""
    return "" if any(secret and secret.reveal() in text for secret in secrets) else text
