"""Takes keys out of what a provider says before it reaches a client."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from services.shared.secret import REDACTED, Secret

MESSAGE_CHARACTERS_MAX: Final = 500

_KEY_SHAPED: Final = re.compile(
    r"""
    \b(?:sk|pk|rk|fs|gsk|xai|key|api|hf|ghp)[-_][\w\-*.]{6,}   # the prefixes that providers give their keys
    | \b(?:AKIA|ASIA)[A-Z0-9]{12,}                             # AWS access key ids
    | \bBearer\s+[^\s,;"']+                                    # a header quoted back
    | \beyJ[\w\-]+\.[\w\-]+\.[\w\-]*                           # a JWT
    | (?<![\w/+=-])[\w/+=-]{32,}(?![\w/+=-])                   # any long run that could be a key or a digest
    """,
    re.VERBOSE | re.IGNORECASE,
)
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]+")


def filtered(message: str, secrets: Iterable[Secret] = ()) -> str:
    """`message` without `secrets` and key-shaped text, on one line, of at most MESSAGE_CHARACTERS_MAX characters.

    What a provider says may quote a key back, whole or starred out in the middle; so both the known keys and
    whatever looks like one are replaced.
    """
    for secret in secrets:
        if secret:
            message = message.replace(secret.reveal(), REDACTED)
    message = _UNPRINTABLE.sub(" ", _KEY_SHAPED.sub(REDACTED, message)).strip()
    if len(message) > MESSAGE_CHARACTERS_MAX:
        return message[: MESSAGE_CHARACTERS_MAX - 1] + "…"
    return message
