"""`flowstack vault`: documents."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from flowstack_protos.vault.v1 import vault_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from flowstack._errors import ConfigurationError
from flowstack._methods import VaultService
from flowstack.cli.inputs import standard_input
from flowstack.cli.shell import shell_of
from flowstack.cli.values import INT32_MAX, when

app = typer.Typer(help="Documents that agents keep.", no_args_is_help=True)

TTL_SECONDS_MAX = 315_576_000  # ten years, as the contract has it

Collection = Annotated[str, typer.Argument(help="The collection.")]
Key = Annotated[str, typer.Argument(help="The document's key.")]
Filter = Annotated[str, typer.Option("--filter", help='JSON, such as \'{"age": {"$gte": 18}}\'.')]


@app.command()
def store(
    context: typer.Context,
    collection: Collection,
    document: Annotated[str, typer.Argument(help="A JSON object; - reads it from standard input.")],
    key: Annotated[str | None, typer.Option(help="Its key; one is made where left out.")] = None,
    ttl_seconds: Annotated[
        int | None, typer.Option(min=1, max=TTL_SECONDS_MAX, help="Forgets it after so long.")
    ] = None,
    if_version: Annotated[
        int | None, typer.Option(min=0, max=INT32_MAX, help="Only in place of this version; 0: only if new.")
    ] = None,
) -> None:
    """Stores a document, in place of the one with its key."""
    shell = shell_of(context)
    fields: dict[str, Any] = {} if key is None else {"key": key}
    if ttl_seconds is not None:
        fields["ttl"] = Duration(seconds=ttl_seconds)
    if if_version is not None:
        fields["if_version"] = if_version
    text = standard_input() if document == "-" else document
    answer = shell.call(VaultService.Store, collection=collection, document_json=text, **fields)
    shell.output.say(f"Stored {answer.key}, version {answer.version}.", answer)


@app.command()
def retrieve(context: typer.Context, collection: Collection, key: Key) -> None:
    """Prints a document."""
    shell = shell_of(context)
    found = shell.call(VaultService.Retrieve, collection=collection, key=key).document
    if shell.output.as_json:
        shell.output.json(found)
    else:
        # The text as it was stored: numbers of any size stay what they are.
        shell.output.write(f"{found.document_json}\n")


@app.command()
def query(
    context: typer.Context,
    collection: Collection,
    filter_: Filter = "",
    sort: Annotated[list[str] | None, typer.Option(help="A field; -field for the other way round. Repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 30,
) -> None:
    """Finds documents, one a line."""
    shell = shell_of(context)
    answer = shell.call(
        VaultService.Query,
        collection=collection,
        filter_json=filter_,
        sort=[_sort(one) for one in sort or []],
        limit=limit,
    )
    if shell.output.as_json:
        shell.output.json(answer)
        return
    shell.output.write("".join(f"{one.key}\t{one.document_json}\n" for one in answer.documents))
    if answer.next_page_token:
        shell.output.note(f"There are more than {limit}. Ask for them with --limit.")


@app.command()
def delete(
    context: typer.Context,
    collection: Collection,
    key: Annotated[str | None, typer.Option(help="The document with this key.")] = None,
    filter_: Filter = "",
    every: Annotated[bool, typer.Option("--all", help="The whole collection.")] = False,
) -> None:
    """Deletes documents: by key, by filter, or all."""
    if (key is not None) + bool(filter_) + every != 1:
        raise ConfigurationError("Say what to delete: exactly one of --key, --filter and --all.")
    shell = shell_of(context)
    target = {"key": key} if key is not None else {"filter_json": filter_} if filter_ else {"all_documents": True}
    answer = shell.call(VaultService.Delete, collection=collection, **target)
    shell.output.say(f"Deleted {answer.deleted_count:,}.", answer)


@app.command()
def collections(context: typer.Context) -> None:
    """The collections, and the room that they take."""
    shell = shell_of(context)
    found = list(shell.pages(VaultService.ListCollections, "collections", 100_000))
    rows = [(one.collection, f"{one.document_count:,}", f"{one.size_bytes:,}", when(one.update_time)) for one in found]
    columns = ("@collection", "#documents", "#bytes", "changed")
    shell.output.table(columns, rows, {"collections": found}, "The vault is empty.")


def _sort(text: str) -> pb.Sort:
    field = text.removeprefix("-")
    if not field:
        raise ConfigurationError(
            "--sort has to name a field, with - before it for descending, such as --sort=-timestamp."
        )
    return pb.Sort(
        field=field, direction=pb.SORT_DIRECTION_DESCENDING if text.startswith("-") else pb.SORT_DIRECTION_ASCENDING
    )
