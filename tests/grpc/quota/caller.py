"""A client process of test_contention: many callers at once on one account. Prints what they were told."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections import Counter

import grpc
from flowstack_protos.quota.v1 import quota_service_pb2, quota_service_pb2_grpc

from services.shared.clock import SystemClock
from tests.grpc.quota.wire import failure_of, failure_of_status, reserve_request
from tests.support.quota import CREDENTIALS, uuid7_session_id


async def main(address: str, account_id: str, callers: int) -> None:
    """Waits for a line on stdin, then sends every reserve at once: half of them unary, half in batches."""
    told: Counter[str] = Counter()
    granted: list[str] = []
    clock = SystemClock()

    async def call(stub: quota_service_pb2_grpc.QuotaServiceAsyncStub) -> None:
        request = reserve_request(uuid7_session_id(clock.now_us(), secrets.randbits(62)), account_id)
        try:
            answer = await stub.ReserveSession(request, metadata=CREDENTIALS, timeout=60)
        except grpc.aio.AioRpcError as error:
            told[failure_of(error).reason] += 1
        else:
            granted.append(answer.session.session_id)

    async def call_in_batches(stub: quota_service_pb2_grpc.QuotaServiceAsyncStub, count: int) -> None:
        stream = stub.ExecuteCommands(metadata=CREDENTIALS, timeout=60)
        for number in range(count):
            request = reserve_request(uuid7_session_id(clock.now_us(), secrets.randbits(62)), account_id)
            command = quota_service_pb2.SessionCommand(sequence=number, reserve=request)
            await stream.write(quota_service_pb2.ExecuteCommandsRequest(commands=[command]))
        await stream.done_writing()
        async for response in stream:
            for result in response.results:
                if result.WhichOneof("result") == "error":
                    told[failure_of_status(result.error).reason] += 1
                else:
                    granted.append(result.reserve.session.session_id)

    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        print("ready", flush=True)  # noqa: T201  # the test waits for it
        sys.stdin.readline()
        stub: quota_service_pb2_grpc.QuotaServiceAsyncStub = quota_service_pb2_grpc.QuotaServiceStub(channel)
        await asyncio.gather(*(call(stub) for _ in range(callers // 2)), call_in_batches(stub, callers - callers // 2))
    print(json.dumps({"granted": granted, "refused": told}))  # noqa: T201  # the test reads it


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
