"""RouterService of the fake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2 as types

from flowstack.testing._calls import Call, page_of
from flowstack.testing._endings import Cause
from flowstack.testing._errors import FakeError, Violation, invalid_request
from flowstack.testing._models import MODELS, model_of, unknown_provider
from flowstack.testing._plans import money
from flowstack.testing._replies import check_labels
from flowstack.testing._session import Conversation, Limits
from flowstack.testing._tools import Inbox
from flowstack.testing._world import World

FIRST_MESSAGE_S: Final = 30.0
MODELS_DEFAULT: Final = 100
"""On a page."""


class Router:
    """The methods of RouterService."""

    def __init__(self, world: World, limits: Limits) -> None:
        self._world = world
        self._limits = limits

    def complete(self, call: Call, request: pb.CompleteRequest) -> Iterator[pb.CompletionEvent]:
        """A session that ends with the model's first answer."""
        yield from self._run(call, request, None)

    def chat(self, call: Call, requests: Iterator[pb.ChatRequest]) -> Iterator[pb.CompletionEvent]:
        """A session that goes on for as long as the model calls tools and the client answers them."""
        inbox = Inbox(requests)
        yield from self._run(call, inbox.first(FIRST_MESSAGE_S), inbox)

    def list_models(self, call: Call, request: pb.ListModelsRequest) -> pb.ListModelsResponse:
        """The models, by provider and name."""
        if request.provider and request.provider not in MODELS:
            raise unknown_provider(request.provider)
        with self._world.lock:
            account = self._world.account(call.account_id)
            managed = account.grant(self._world.clock.now_us()).terms.managed_providers
        models = [
            self._listed(provider, name, aliases, is_managed=provider in managed)
            for provider, names in sorted(MODELS.items())
            for name, aliases in sorted(names.items())
            if request.provider in ("", provider)
        ]
        page, token = page_of(models, call, request, newest_first=False, size_default=MODELS_DEFAULT)
        return pb.ListModelsResponse(models=page, next_page_token=token)

    def _listed(self, provider: str, name: str, aliases: tuple[str, ...], *, is_managed: bool) -> pb.Model:
        rates = self._world.prices.of(provider, name) if provider != "echo" else None
        return pb.Model(
            provider=provider,
            model=name,
            aliases=aliases,
            input_modalities=[pb.MODALITY_TEXT],
            output_modalities=[pb.MODALITY_TEXT],
            input_price_per_million_tokens=None if rates is None else money(rates.input_micro),
            output_price_per_million_tokens=None if rates is None else money(rates.output_micro),
            managed_available=is_managed,
            byok_available=True,
        )

    def _run(self, call: Call, request: pb.CompleteRequest, inbox: Inbox | None) -> Iterator[pb.CompletionEvent]:
        _check(request)
        candidates = _candidates(request)
        check_labels(request)
        world = self._world
        breaks_off = self._note(request)
        account = world.account(call.account_id)
        session, quota = world.new_session(account, call.api_key_id, request, candidates)
        conversation = Conversation(world, account, session, request, limits=self._limits, inbox=inbox)
        with world.lock:
            world.conversations.add(conversation)
        try:
            call.when_over(lambda: conversation.stop(Cause.CLIENT_GONE))
            if breaks_off:
                conversation.stop(Cause.SHUTTING_DOWN)
            yield from conversation.events(quota)
        finally:
            with world.lock:
                world.conversations.discard(conversation)

    def _note(self, request: pb.CompleteRequest) -> bool:
        """Keeps the request; says whether the router is to break its session off.

        Raises:
            FakeError: QUOTA_UNAVAILABLE, where it is to fail before that.
        """
        kept = pb.CompleteRequest()
        kept.CopyFrom(request)
        del kept.byok[:]
        with self._world.lock:
            self._world.requests.append(kept)
            if not self._world.outages:
                return False
            if self._world.outages.popleft():
                return True
        raise FakeError("QUOTA_UNAVAILABLE", "Quota did not confirm a reservation, so no session started. Try again.")


def _candidates(request: pb.CompleteRequest) -> list[types.Candidate]:
    """The first choice and the fallbacks, each with the credentials that it would use.

    Raises:
        FakeError: MODEL_NOT_FOUND.
    """
    own = {credential.WhichOneof("credentials") for credential in request.byok} | {"echo"}
    choices = [(request.provider, request.model), *((one.provider, one.model) for one in request.fallbacks)]
    found = []
    for position, (provider, model) in enumerate(choices):
        try:
            name = model_of(provider, model)
        except FakeError as error:
            if len(choices) == 1:
                raise
            which = f"fallbacks[{position - 1}]" if position else "the first choice"
            raise FakeError(
                error.reason,
                f"{error.message} This is about {which}, at {provider}.",
                metadata={**error.metadata, "candidate": str(position)},
            ) from None
        mode = types.CREDENTIAL_MODE_BYOK if provider in own else types.CREDENTIAL_MODE_MANAGED
        found.append(types.Candidate(provider=provider, model=name, credential_mode=mode))
    return found


_PARTS: Final = {
    pb.MESSAGE_ROLE_SYSTEM: ("text",),
    pb.MESSAGE_ROLE_USER: ("text", "image"),
    pb.MESSAGE_ROLE_ASSISTANT: ("text", "tool_call"),
    pb.MESSAGE_ROLE_TOOL: ("tool_result",),
}


def _check(request: pb.CompleteRequest) -> None:
    """Refuses what no provider could be asked.

    Raises:
        FakeError: INVALID_REQUEST, with every field that breaks a rule.
    """
    names = [tool.name for tool in request.tools]
    violations = [*_message_violations(request), *_tool_violations(request, names)]
    if request.HasField("response_schema_json") and not _is_object(request.response_schema_json):
        violations.append(Violation("response_schema_json", "has to be a JSON object"))
    if violations:
        raise invalid_request(*violations)


def _message_violations(request: pb.CompleteRequest) -> Iterator[Violation]:
    for index, message in enumerate(request.messages):
        for position, part in enumerate(message.content):
            kind = part.WhichOneof("part") or ""
            path = f"messages[{index}].content[{position}].{kind}"
            allowed = _PARTS[message.role]
            if kind not in allowed:
                role = pb.MessageRole.Name(message.role).removeprefix("MESSAGE_ROLE_").lower()
                yield Violation(path, f"a message of role {role} takes {' and '.join(allowed)} only")
            elif kind == "tool_call" and not _is_object(part.tool_call.arguments_json):
                yield Violation(f"{path}.arguments_json", "has to be a JSON object")


def _tool_violations(request: pb.CompleteRequest, names: list[str]) -> Iterator[Violation]:
    for index, tool in enumerate(request.tools):
        if tool.input_schema_json and not _is_object(tool.input_schema_json):
            yield Violation(f"tools[{index}].input_schema_json", "has to be a JSON object")
    choice = request.tool_choice
    if choice.mode == pb.TOOL_CHOICE_MODE_REQUIRED and not names:
        yield Violation("tool_choice.mode", "cannot require a tool where the request has none")
    if choice.mode == pb.TOOL_CHOICE_MODE_TOOL and choice.tool_name not in names:
        yield Violation("tool_choice.tool_name", "has to be the name of one of the request's tools")


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
