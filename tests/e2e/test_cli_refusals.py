"""What the command line is refused by the SDK and the services, and the sentence and exit code that come of it."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.e2e.terminal import Terminal, addresses, customer_of
from tests.support.suite import Suite, free_ports

BYTES_MAX = 1_048_576


@pytest_asyncio.fixture(loop_scope="session")
async def me(suite: Suite) -> Terminal:
    return (await customer_of(suite, "free"))[1]


async def refused(terminal: Terminal, *arguments: str, code: int, stdin: str = "") -> str:
    """What is said, the same to people and to machines."""
    ended = await terminal.run(*arguments, stdin=stdin)
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert "Traceback" not in ended.err
    again = await terminal.run("--json", *arguments, stdin=stdin)
    assert again.code == code
    assert ended.err == f"Error: {again.error['message']}\n"
    return str(again.error["message"])


@pytest.mark.parametrize("arguments", [("usage",), ("chat", "hi"), ("vault", "collections"), ("keys", "list")])
async def test_no_key(suite: Suite, arguments: tuple[str, ...]) -> None:
    said = await refused(Terminal(addresses(suite) | {"FLOWSTACK_API_KEY": ""}), *arguments, code=2)
    assert said.startswith("There is no API key. Set FLOWSTACK_API_KEY, or give --api-key. ")


async def test_a_malformed_key(suite: Suite) -> None:
    said = await refused(Terminal(addresses(suite) | {"FLOWSTACK_API_KEY": "sk-not ours"}), "usage", code=2)
    assert said.startswith("The API key is malformed: it has to be `fs_` and the letters and digits behind it")


async def test_a_key_that_nobody_has(suite: Suite) -> None:
    stranger = "fs_" + "0" * 75
    said = await refused(Terminal(addresses(suite) | {"FLOWSTACK_API_KEY": stranger}), "usage", code=3)
    assert "API key" in said
    assert stranger not in said


@pytest.mark.parametrize(
    ("service", "arguments"),
    [
        ("router", ("chat", "hi", "--provider", "echo")),
        ("billing", ("usage",)),
        ("billing", ("keys", "list")),
        ("vault", ("vault", "collections")),
    ],
)
async def test_a_service_that_is_down(me: Terminal, service: str, arguments: tuple[str, ...]) -> None:
    address, setting = f"127.0.0.1:{free_ports(1)[0]}", f"FLOWSTACK_{service.upper()}_ENDPOINT"
    said = await refused(Terminal(me.variables | {setting: address}), *arguments, code=7)
    assert said == (
        f"FlowStack's {service} service cannot be reached at {address}. Check that it runs (`flowstack doctor`, or "
        f"`make run` on your own machine) and that {setting} names it."
    )


async def test_an_address_that_cannot_be(me: Terminal) -> None:
    said = await refused(Terminal(me.variables | {"FLOWSTACK_BILLING_ENDPOINT": "ftp://x"}), "usage", code=2)
    assert said == (
        "FLOWSTACK_BILLING_ENDPOINT has to be https://host, http://host:port or host:port, without a path; it is not."
    )


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("--provider", "ecko"), "That provider is not configured here. Did you mean echo? Configured: "),
        (
            ("--provider", "echo", "--model", "echo-2"),
            "The provider echo has no such model here. Did you mean echo-1? ",
        ),
    ],
)
async def test_unknown_providers_and_models(me: Terminal, names: tuple[str, ...], says: str) -> None:
    assert (await refused(me, "chat", "hi", *names, code=4)).startswith(says)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ('{"a":', "must be JSON: it is none at line 1, column 6."),
        ("[1]", "must be a JSON object."),
        ('{"a": NaN}', "must be JSON, which has neither NaN nor Infinity."),
        ('{"a": "' + "x" * BYTES_MAX + '"}', f"must be at most {BYTES_MAX} bytes."),
    ],
    ids=["broken", "no object", "no number", "too large"],
)
async def test_documents_that_cannot_be_stored(me: Terminal, document: str, says: str) -> None:
    said = await refused(me, "vault", "store", "c", "-", stdin=document, code=2)
    assert said == f"The request is invalid: document_json: {says}"
    assert (await me.json("vault", "collections"))["collections"] == []


@pytest.mark.parametrize("sort", ["", "-"])
async def test_a_sort_without_a_field(me: Terminal, sort: str) -> None:
    assert await refused(me, "vault", "query", "c", f"--sort={sort}", code=2) == (
        "--sort has to name a field, with - before it for descending, such as --sort=-timestamp."
    )


async def test_a_sort_by_a_field_twice(me: Terminal) -> None:
    said = await refused(me, "vault", "query", "c", "--sort=a", "--sort=-a", code=2)
    assert said == "The request is invalid: sort: each field may be named once."
