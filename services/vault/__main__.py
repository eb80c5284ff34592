"""Starts the vault service: `python -m services.vault`."""

from __future__ import annotations

from flowstack_protos.vault.v1 import vault_service_pb2, vault_service_pb2_grpc

from services.shared import log
from services.shared.auth import Authenticator, Caller, Policy
from services.shared.errors import FlowStackError, Reason
from services.shared.secret import Secret
from services.shared.server import DRAIN_GRACE_SECONDS, Port, Registration, ServiceHost, run, serve_until_signal
from services.shared.settings import load
from services.vault.config import VaultSettings


async def _no_keys_yet(_: Secret) -> Caller:
    # Whose key it is would change nothing: no method is served to anybody.
    raise FlowStackError(Reason.METHOD_NOT_AVAILABLE, "The vault is declared but not served by this version.")


async def main() -> None:
    """Serves health and reflection; the methods answer UNIMPLEMENTED until the vault is built."""
    settings = load(VaultSettings)
    log.configure("vault", settings.log_level)
    descriptor = vault_service_pb2.DESCRIPTOR.services_by_name["VaultService"]
    registration = Registration(
        descriptor,
        vault_service_pb2_grpc.add_VaultServiceServicer_to_server,
        vault_service_pb2_grpc.VaultServiceServicer(),  # type: ignore[abstract]  # answers UNIMPLEMENTED
        {method.name: Policy.CUSTOMER_OR_ADMIN for method in descriptor.methods},
    )
    admin_tokens = settings.admin_tokens()
    port = Port(
        settings.vault_address,
        "FLOWSTACK_VAULT_ADDRESS",
        [registration],
        lambda policies: Authenticator(policies, admin_tokens=admin_tokens, authenticate_key=_no_keys_yet),
    )
    await serve_until_signal(ServiceHost("vault", settings, [port]), settings.grace_s(DRAIN_GRACE_SECONDS))


if __name__ == "__main__":
    run("vault", main)
