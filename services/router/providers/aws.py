"""Amazon's side of a call to Bedrock: where a region is, whose credentials are used, and how a request is signed."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import quote

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.loaders import create_loader
from botocore.regions import EndpointResolver

from services.router.domain.outcome import AttemptFailure
from services.router.domain.request import BedrockCredentials
from services.router.providers.port import ProviderError
from services.shared.log import get_logger
from services.shared.secret import Secret

SERVICE: Final = "bedrock-runtime"
SIGNING_NAME: Final = "bedrock"

REFRESH_AHEAD_SECONDS: Final = 16 * 60
"""Before their end: a minute earlier than boto3 would renew them within a call, and so hold the loop up."""
CREDENTIALS_WAIT_SECONDS: Final = 10.0

# Its debug log shows what is signed, session tokens included. Nothing may switch that on here.
for _name in ("boto3", "botocore"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def endpoint_of(region: str) -> str:
    """The public address of Bedrock's runtime in `region`, by botocore's own data.

    Raises:
        ValueError: botocore knows no such region.
    """
    found = _resolver().construct_endpoint(SERVICE, region)
    if found is None:
        raise ValueError(f"{region} is not an AWS region that boto3 knows")
    return f"https://{found['hostname']}"


@functools.cache
def _resolver() -> Any:
    return EndpointResolver(create_loader().load_data("endpoints"))


def converse_url(endpoint: str, model: str) -> str:
    """Where `model` is asked. A model's name holds `:` and may hold `/`; both are escaped."""
    return f"{endpoint.rstrip('/')}/model/{quote(model, safe='')}/converse-stream"


def signed_headers(
    credentials: BedrockCredentials, region: str, url: str, body: bytes, headers: Mapping[str, str]
) -> dict[str, str]:
    """`headers` with those that sign the request (AWS Signature Version 4).

    A signer is made for each call and dropped with it. It holds nothing but references, so there would be nothing to
    gain by keeping one, and a caller's keys are kept nowhere.
    """
    request = AWSRequest("POST", url, headers=dict(headers), data=body)
    signer = SigV4Auth(_as_botocore(credentials), SIGNING_NAME, region)
    signer.add_auth(request)
    return dict(request.headers.items())


def _as_botocore(credentials: BedrockCredentials) -> Credentials:
    token = credentials.session_token.reveal() or None
    return Credentials(credentials.access_key_id.reveal(), credentials.secret_access_key.reveal(), token)


class ManagedCredentials(Protocol):
    """The operator's own credentials."""

    async def get(self) -> BedrockCredentials:
        """Credentials that are valid now.

        Raises:
            ProviderError: CREDENTIALS_REFUSED, there are none.
        """
        ...


class FixedCredentials:
    """Credentials that the operator's settings hold."""

    def __init__(self, credentials: BedrockCredentials) -> None:
        self._credentials = credentials

    async def get(self) -> BedrockCredentials:
        """The credentials."""
        return self._credentials


def _new_session() -> Any:
    # Here, because few routers need it, and not a tenth of a second at each start.
    import boto3

    return boto3.session.Session()


class BotoCredentials:
    """Credentials as boto3 finds them: a profile, a web identity, the container's or the machine's role.

    Finding and renewing them reads files and calls other services. It happens in a thread, once for all who wait, and
    while the old ones are still valid nobody waits for it.

    Args:
        session: Makes the session that is asked; in the thread, because that reads files as well.
    """

    def __init__(self, session: Callable[[], Any] = _new_session) -> None:
        self._session = session
        self._found: Any = None
        self._frozen: BedrockCredentials | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._log = get_logger()

    async def get(self) -> BedrockCredentials:
        """Credentials that are valid now; see ManagedCredentials."""
        if self._must_renew():
            renewal = self._renew()
            if self._frozen is None or self._expired():
                # Shielded: one caller that goes away must not take the renewal from the others.
                await asyncio.wait((renewal,), timeout=CREDENTIALS_WAIT_SECONDS)
        if self._frozen is None or self._expired():
            raise ProviderError(AttemptFailure.CREDENTIALS_REFUSED)
        return self._frozen

    def _must_renew(self) -> bool:
        if self._frozen is None:
            return True
        found = self._found
        return isinstance(found, RefreshableCredentials) and bool(found.refresh_needed(REFRESH_AHEAD_SECONDS))

    def _expired(self) -> bool:
        found = self._found
        return isinstance(found, RefreshableCredentials) and bool(found.refresh_needed(0))

    def _renew(self) -> asyncio.Task[None]:
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._ask())
        return self._renewal

    async def _ask(self) -> None:
        try:
            self._frozen = await asyncio.to_thread(self._blocking)
        except Exception as error:
            # Whatever it is: boto3's ways of finding credentials fail with errors of many kinds. It is told without
            # its text, which may name files, accounts and addresses.
            self._log.error("aws_credentials", error_type=type(error).__name__)
        finally:
            self._renewal = None

    def _blocking(self) -> BedrockCredentials | None:
        if self._found is None:
            self._found = self._session().get_credentials()
        if self._found is None:
            raise ValueError("boto3 finds no credentials")
        frozen = self._found.get_frozen_credentials()
        return BedrockCredentials(Secret(frozen.access_key), Secret(frozen.secret_key), Secret(frozen.token or ""))
