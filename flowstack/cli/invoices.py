"""`flowstack invoices`: what was charged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowstack._errors import ConfigurationError, NotFoundError
from flowstack._methods import InvoiceService
from flowstack.cli.shell import Shell, shell_of
from flowstack.cli.values import date_of, dollars, optional_dollars, time_of, word

app = typer.Typer(help="Invoices, their lines and their PDFs.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(help="The invoice's id, or its number.")]


@app.command("list")
def list_(context: typer.Context, limit: Annotated[int, typer.Option(min=1, max=1000)] = 50) -> None:
    """The newest invoices first."""
    shell = shell_of(context)
    found = list(shell.pages(InvoiceService.ListInvoices, "invoices", limit))
    rows = [
        (
            one.number,
            date_of(one.issue_time),
            word(one, "kind"),
            word(one, "state"),
            dollars(one.total),
            dollars(one.amount_due),
            time_of(one, "due_time")[:10],
        )
        for one in found
    ]
    columns = ("@number", "issued", "for", "state", "#total", "#to pay", "due")
    shell.output.table(columns, rows, {"invoices": found}, "There are no invoices yet.")


@app.command()
def show(context: typer.Context, invoice: Which) -> None:
    """One invoice, line by line."""
    shell = shell_of(context)
    found = shell.call(InvoiceService.GetInvoice, invoice_id=_id_of(shell, invoice)).invoice
    pairs = [
        ("Invoice", f"{found.number} ({found.invoice_id})"),
        ("State", word(found, "state")),
        ("For", f"{date_of(found.period_start_time)} to {date_of(found.period_end_time)}"),
        ("Customer", f"{found.customer_name} <{found.customer_email}>"),
        ("Total", dollars(found.total)),
        ("To pay", dollars(found.amount_due)),
        ("Due", time_of(found, "due_time")),
        ("Paid", time_of(found, "pay_time")),
        ("Pay at", found.payment_url),
    ]
    shell.output.fields(pairs, found)
    if not shell.output.as_json:
        shell.output.print()
        rows = [
            (
                str(line.line_number),
                line.description,
                str(line.quantity),
                optional_dollars(line, "unit_price", ""),
                dollars(line.amount),
            )
            for line in found.lines
        ]
        shell.output.table(("#", "what", "#quantity", "#each", "#amount"), rows, None, "It has no lines.")


@app.command()
def pdf(
    context: typer.Context,
    invoice: Which,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; else the invoice's own name.")
    ] = None,
) -> None:
    """Saves an invoice as PDF."""
    shell = shell_of(context)
    request = InvoiceService.DownloadInvoice.request(account_id=shell.account_id, invoice_id=_id_of(shell, invoice))
    document, parts = None, []
    for answer in shell.client.stream(InvoiceService.DownloadInvoice, request, timeout_s=60):
        if answer.HasField("document"):
            document = answer.document
        parts.append(answer.chunk)
    assert document is not None
    # Only its last part: a name from elsewhere never says where to write.
    path = output or Path(Path(document.file_name).name)
    try:
        path.write_bytes(b"".join(parts))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}. Name another with --output.") from None
    shell.output.say(f"Saved {path} ({document.size_bytes:,} bytes).", {"file": str(path), "sha256": document.sha256})


def _id_of(shell: Shell, named: str) -> str:
    """An invoice's id, also by its number."""
    if not named.upper().startswith("INV-"):
        return named
    for one in shell.pages(InvoiceService.ListInvoices, "invoices", 10_000):
        if one.number == named.upper():
            return str(one.invoice_id)
    raise NotFoundError(f"There is no invoice {named}. `flowstack invoices list` shows those that there are.")
