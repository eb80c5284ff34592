"""Lists the models of the catalogue, page by page."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from flowstack_protos.router.v1 import router_service_pb2 as pb
from google.type.money_pb2 import Money

from services.router.catalog import Model, ProviderEntry
from services.router.domain.quota import Quota
from services.router.lineup import Lineup
from services.shared.errors import invalid_request

PAGE_SIZE_DEFAULT: Final = 100

_MODALITIES: Final = {"text": pb.MODALITY_TEXT, "image": pb.MODALITY_IMAGE}


def list_models(request: pb.ListModelsRequest, lineup: Lineup, quota: Quota) -> pb.ListModelsResponse:
    """One page of models, by provider and name.

    Raises:
        FlowStackError: MODEL_NOT_FOUND for a provider that is not configured; INVALID_REQUEST for a page token that is
            none of ours.
    """
    catalog = lineup.catalog
    entries = [catalog.provider(request.provider)] if request.provider else list(catalog.providers.values())
    after = _after(request.page_token)
    rest = sorted(
        ((entry, model) for entry in entries for model in entry.models.values()),
        key=lambda pair: (pair[0].name, pair[1].name),
    )
    rest = [pair for pair in rest if (pair[0].name, pair[1].name) > after]
    size = request.page_size or PAGE_SIZE_DEFAULT
    page = rest[:size]
    token = _token(page[-1]) if len(rest) > size else ""
    return pb.ListModelsResponse(
        models=[_model_to_proto(entry, model, lineup, quota) for entry, model in page], next_page_token=token
    )


def _model_to_proto(entry: ProviderEntry, model: Model, lineup: Lineup, quota: Quota) -> pb.Model:
    return pb.Model(
        provider=entry.name,
        model=model.name,
        aliases=model.aliases,
        context_tokens=model.context_tokens,
        max_output_tokens=model.max_output_tokens,
        input_modalities=[_MODALITIES[word] for word in model.input_modalities],
        output_modalities=[_MODALITIES[word] for word in model.output_modalities],
        input_price_per_million_tokens=_money(model.input_price_micros),
        output_price_per_million_tokens=_money(model.output_price_micros),
        managed_available=entry.name in lineup.managed and entry.name in quota.managed_providers,
        byok_available=True,
    )


def _money(micros: int | None) -> Money | None:
    if micros is None:
        return None
    return Money(currency_code="USD", units=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def _token(last: tuple[ProviderEntry, Model]) -> str:
    return base64.urlsafe_b64encode(f"{last[0].name}\n{last[1].name}".encode()).decode()


def _after(token: str) -> tuple[str, str]:
    if not token:
        return ("", "")
    try:
        provider, model = base64.urlsafe_b64decode(token.encode()).decode().split("\n")
    except (ValueError, binascii.Error):
        raise invalid_request("page_token", "is not one that ListModels gave out") from None
    return (provider, model)
