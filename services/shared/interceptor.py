"""The server's interceptor: what happens around every RPC, in this order.

    access log > errors > decoding > deadline > authentication > validation > the servicer's method

It wraps the handlers where they are registered, once for each method, instead of standing in grpc.aio's own chain of
interceptors, which costs every call a coroutine and a search for each of them.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import grpc
import protovalidate
from google.protobuf.message import DecodeError, Message

from services.shared.auth import Authenticator, CallerKind, Policy, check_account, set_caller
from services.shared.errors import FieldViolation, FlowStackError, Reason, invalid_request
from services.shared.log import frames_of, get_logger
from services.shared.status import CODES, abort

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
"""The largest request message that is taken."""

TRANSPORT_BYTES_MAX: Final = 4 * MESSAGE_BYTES_MAX
"""The transport's own limit. It is higher than ours, because a message over it is refused by gRPC itself, without
a reason; one between the two gets ours."""

VIOLATIONS_MAX: Final = 32
"""How many violations of a request are answered: they travel in a trailer, and clients take 16 KiB of those."""

UNARY_SECONDS_MAX: Final = 30.0
"""How long a unary call without a deadline of its own may take."""

Context = grpc.aio.ServicerContext  # shortens the signatures below
Behavior = Callable[..., Any]

Plain = Callable[[Any], bool]
"""A quick look at a request: True only where it certainly satisfies its rules, so that the rule engine is not asked."""


def _vouch_for_none(_: Any) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _Undecodable:
    """Stands in for a message that could not be taken, until there is a call to answer."""

    description: str


_OVERSIZED: Final = _Undecodable(f"The message is larger than {MESSAGE_BYTES_MAX} bytes. Send less in one message.")
_GARBLED: Final = _Undecodable("The message cannot be decoded: it is not of this method's request type.")


def _tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """A deserializer that answers a stand-in instead of failing where no handler could see it."""

    def decode(data: bytes) -> Any:
        if len(data) > MESSAGE_BYTES_MAX:
            return _OVERSIZED
        if deserialize is None:
            return data
        try:
            return deserialize(data)
        except (DecodeError, ValueError, RecursionError):
            return _GARBLED

    return decode


def validate(message: Message) -> None:
    """Checks `message` against its buf.validate rules.

    Raises:
        FlowStackError: INVALID_REQUEST, with every field that breaks a rule, up to 32 of them.
    """
    try:
        violations = protovalidate.collect_violations(message)
    except protovalidate.EvaluationError:
        # A rule could not be worked out for these values, such as the difference of times a thousand years apart.
        raise invalid_request("", "a value is out of the range that can be checked") from None
    if not violations:
        return
    # A list of a thousand wrong items has a thousand violations; all of them would not get through to the client.
    some = violations[:VIOLATIONS_MAX]
    found = [FieldViolation(_path(v.proto), v.proto.message or v.proto.rule_id) for v in some]
    summary = "; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in found[:5])
    raise FlowStackError(Reason.INVALID_REQUEST, f"The request is invalid: {summary}.", violations=found)


def _path(violation: Any) -> str:
    if violation.field is None:
        return ""
    parts = []
    for element in violation.field.elements:
        subscript = element.subscript
        # Only a list's index is shown: a map's key is the caller's text.
        index = f"[{subscript.value}]" if subscript is not None and subscript.field == "index" else ""
        parts.append(f"{element.field_name}{index}")
    return ".".join(parts)


class RpcInterceptor:
    """Wraps every method that is registered through it; see the module's docstring for the order.

    It is given to `add_…_to_server` in the server's place and passes the wrapped handlers on. A method that nobody
    registered is answered by gRPC itself, with UNIMPLEMENTED.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        authenticator: Authenticator,
        *,
        plain: Mapping[str, Plain] = MappingProxyType({}),
        monotonic_s: Callable[[], float] = time.monotonic,
        unary_s_max: float = UNARY_SECONDS_MAX,
    ) -> None:
        self._server = server
        self._authenticator = authenticator
        self._plain = plain
        self._monotonic_s = monotonic_s
        self.unary_s_max = unary_s_max
        self._log = get_logger()

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """As grpc.aio.Server: takes services that find their handlers themselves."""
        self._server.add_generic_rpc_handlers([_WrappedService(handler, self._wrap) for handler in handlers])

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """As grpc.aio.Server: takes a service's methods by name."""
        wrapped = {name: self._wrap(f"/{service}/{name}", handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, wrapped)

    def _wrap(self, method: str, handler: Any) -> Any:
        call = _Call(self, method, self._authenticator.policies.get(method), self._plain.get(method, _vouch_for_none))
        decode = _tolerant(handler.request_deserializer)
        encode = handler.response_serializer
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                call.streaming(handler.stream_stream, request_streaming=True), decode, encode
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                call.streaming(handler.unary_stream, request_streaming=False), decode, encode
            )
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(call.unary(handler.stream_unary, True), decode, encode)
        return grpc.unary_unary_rpc_method_handler(call.unary(handler.unary_unary, False), decode, encode)

    async def admit(self, policy: Policy | None, plain: Plain, request: Any, context: Context[Any, Any]) -> None:
        """Decoding, authentication and validation of a call, or of its first part where requests stream."""
        if policy is None:
            raise FlowStackError(Reason.INTERNAL, "This method has no access policy and is therefore refused.")
        if policy is Policy.INTERNAL:
            self.admit_service(plain, request, context)
            return
        if isinstance(request, _Undecodable):
            raise undecodable(request)
        caller = await self._authenticator.authenticate(policy, context)
        set_caller(caller)
        if request is not None and policy is not Policy.OPEN:
            if not plain(request):
                validate(request)
            if caller.kind is CallerKind.CUSTOMER:
                check_account(caller, getattr(request, "account_id", ""))

    def admit_service(self, plain: Plain, request: Any, context: Context[Any, Any]) -> None:
        """As `admit`, for a call between services: nothing of it waits, and they call most often."""
        if isinstance(request, _Undecodable):
            raise undecodable(request)
        set_caller(self._authenticator.authenticate_service(context))
        if request is not None and not plain(request):
            validate(request)

    def finished(self, method: str, started_s: float, code: str, reason: str) -> None:
        """Writes the access log's line."""
        duration_ms = round((self._monotonic_s() - started_s) * 1000, 2)
        self._log.info("rpc", method=method, code=code, reason=reason, duration_ms=duration_ms)

    def failed(self, method: str, error: BaseException) -> None:
        """Logs a defect of ours: its type and place, never its text."""
        self._log.error("defect", method=method, error_type=type(error).__name__, traceback=frames_of(error))

    def started_s(self) -> float:
        """Now, for the access log."""
        return self._monotonic_s()


def undecodable(stand_in: _Undecodable) -> FlowStackError:
    """The error for a message that could not be taken."""
    return FlowStackError(
        Reason.INVALID_REQUEST, stand_in.description, violations=(FieldViolation("", stand_in.description),)
    )


class _WrappedService(grpc.GenericRpcHandler):
    """A service's handlers, each wrapped when it is called first and kept."""

    def __init__(self, inner: Any, wrap: Callable[[str, Any], Any]) -> None:
        self._inner = inner
        self._wrap = wrap
        self._wrapped: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The wrapped handler of a method; None where the service has no such method."""
        method: str = handler_call_details.method
        known = self._wrapped.get(method)
        if known is None:
            handler = self._inner.service(handler_call_details)
            if handler is None:
                return None
            known = self._wrapped[method] = self._wrap(method, handler)
        return known


class _Call:
    """Builds the wrapped behaviours of one method."""

    def __init__(self, interceptor: RpcInterceptor, method: str, policy: Policy | None, plain: Plain) -> None:
        self._interceptor = interceptor
        self._method = method
        self._policy = policy
        self._plain = plain

    def unary(self, behavior: Behavior, request_streaming: bool) -> Behavior:
        """Wraps a method with one response."""
        # The generated base class declares plain functions, which raise NotImplementedError.
        is_async = inspect.iscoroutinefunction(behavior)
        is_between_services = self._policy is Policy.INTERNAL and is_async and not request_streaming

        async def run_for_service(request: Any, context: Context[Any, Any]) -> Any:
            self._interceptor.admit_service(self._plain, request, context)
            return await behavior(request, context)

        async def run_for_anybody(request: Any, context: Context[Any, Any]) -> Any:
            await self._interceptor.admit(self._policy, self._plain, None if request_streaming else request, context)
            result = behavior(self._checked(request) if request_streaming else request, context)
            return await result if is_async else result

        run = run_for_service if is_between_services else run_for_anybody

        async def handle(request: Any, context: Context[Any, Any]) -> Any:
            outcome = _Outcome(self._interceptor, self._method, self._policy)
            try:
                if context.time_remaining() is None:
                    async with asyncio.timeout(self._interceptor.unary_s_max):
                        return await run(request, context)
                return await run(request, context)
            except BaseException as error:
                await outcome.answer(error, context)
                raise
            finally:
                outcome.log()

        return handle

    def streaming(self, behavior: Behavior, *, request_streaming: bool) -> Behavior:
        """Wraps a method that streams responses."""
        if inspect.iscoroutinefunction(behavior):
            return self._writing(behavior, request_streaming)

        async def handle(request: Any, context: Context[Any, Any]) -> AsyncIterator[Any]:
            outcome = _Outcome(self._interceptor, self._method, self._policy)
            responses = None
            try:
                first = None if request_streaming else request
                await self._interceptor.admit(self._policy, self._plain, first, context)
                responses = behavior(self._checked(request) if request_streaming else request, context)
                async for response in responses:
                    yield response
            except BaseException as error:
                await outcome.answer(error, context)
                raise
            finally:
                outcome.log()
                if responses is not None and hasattr(responses, "aclose"):
                    await responses.aclose()

        return handle

    def _writing(self, behavior: Behavior, request_streaming: bool) -> Behavior:
        """Wraps a method that writes its responses to the context, as gRPC's own Health.Watch does."""

        async def handle(request: Any, context: Context[Any, Any]) -> None:
            outcome = _Outcome(self._interceptor, self._method, self._policy)
            try:
                await self._interceptor.admit(
                    self._policy, self._plain, None if request_streaming else request, context
                )
                await behavior(self._checked(request) if request_streaming else request, context)
            except BaseException as error:
                await outcome.answer(error, context)
                raise
            finally:
                outcome.log()

        return handle

    async def _checked(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The messages of a request stream, each decoded and valid."""
        async for request in requests:
            if isinstance(request, _Undecodable):
                raise undecodable(request)
            if self._policy is not Policy.OPEN and not self._plain(request):
                validate(request)
            yield request


class _Outcome:
    """How one call ended."""

    __slots__ = ("_code", "_interceptor", "_is_quiet", "_method", "_reason", "_started_s")

    def __init__(self, interceptor: RpcInterceptor, method: str, policy: Policy | None) -> None:
        self._interceptor = interceptor
        self._method = method
        self._is_quiet = policy in (Policy.INTERNAL, Policy.OPEN)
        self._started_s = interceptor.started_s()
        self._code = "OK"
        self._reason = ""

    async def answer(self, error: BaseException, context: Context[Any, Any]) -> None:
        """Ends the call with what `error` means to a client; lets cancellation and aborts pass."""
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            self._code = "CANCELLED"
            return
        if isinstance(error, grpc.aio.AbortError):
            self._code = "ABORTED_BY_HANDLER"
            return
        failure = self._failure(error)
        self._code, self._reason = CODES[failure.reason].name, failure.reason.value
        await abort(context, failure)

    def _failure(self, error: BaseException) -> FlowStackError:
        if isinstance(error, FlowStackError):
            return error
        if isinstance(error, NotImplementedError):
            return FlowStackError(
                Reason.METHOD_NOT_AVAILABLE, "This method is declared but not served by this version."
            )
        if isinstance(error, TimeoutError):
            limit_s = self._interceptor.unary_s_max
            return FlowStackError(
                Reason.CALL_TIME_LIMIT,
                f"The call had no deadline and took over {limit_s:.0f} s. Try again, with a deadline.",
            )
        self._interceptor.failed(self._method, error)
        return FlowStackError(
            Reason.INTERNAL,
            "FlowStack failed at this call. It is logged; try again, and report it if it stays.",
        )

    def log(self) -> None:
        """Writes the access log's line; none for a call between services that went well."""
        if self._code != "OK" or not self._is_quiet:
            self._interceptor.finished(self._method, self._started_s, self._code, self._reason)


def policies_without_rpc(policies: Mapping[str, Policy], methods: set[str]) -> tuple[set[str], set[str]]:
    """Methods that lack a policy, and policies that name no method."""
    return methods - set(policies), set(policies) - methods
