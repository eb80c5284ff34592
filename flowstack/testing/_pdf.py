"""An invoice or credit note as a small PDF: lines of text, set in Helvetica, which every reader has. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flowstack_protos.billing.v1 import invoice_pb2 as pb
from google.type.money_pb2 import Money

from flowstack.testing._plans import micro_of
from flowstack.testing._time import datetime_of

_LINES_A_PAGE: Final = 50


def printed(invoice: pb.Invoice, note: pb.CreditNote | None) -> bytes:
    """The document; the same bytes while the invoice is the same."""
    lines = list(_invoice_lines(invoice) if note is None else _note_lines(invoice, note))
    pages = [lines[begin : begin + _LINES_A_PAGE] for begin in range(0, len(lines), _LINES_A_PAGE)]
    first = 4  # after the catalogue, the list of pages and the font
    kids = " ".join(f"{first + 2 * place} 0 R" for place in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for place, page in enumerate(pages):
        content = _content(page)
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {first + 2 * place + 1} 0 R >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    return _file(objects)


def _invoice_lines(invoice: pb.Invoice) -> Iterator[str]:
    yield f"Invoice {invoice.number}"
    yield from (text for text in (invoice.customer_name, invoice.customer_email) if text)
    yield f"Issued {_day(invoice.issue_time.ToMicroseconds())}"
    for line in invoice.lines:
        yield f"{line.line_number}. {line.description}: {line.quantity} x {_amount(line.unit_price)}"
    yield f"Total {_amount(invoice.total)}"
    for note in invoice.credit_notes:
        yield f"Credit note {note.number}: -{_amount(note.total)}"
    yield f"Amount due {_amount(invoice.amount_due)}"
    yield pb.InvoiceState.Name(invoice.state).removeprefix("INVOICE_STATE_")


def _note_lines(invoice: pb.Invoice, note: pb.CreditNote) -> Iterator[str]:
    yield f"Credit note {note.number} to invoice {invoice.number}"
    yield f"Issued {_day(note.issue_time.ToMicroseconds())}: {note.reason}"
    for line in note.lines:
        yield f"{line.line_number}. {line.description}: {_amount(line.amount)}"
    yield f"Total {_amount(note.total)}"


def _amount(amount: Money) -> str:
    units, rest = divmod(micro_of(amount), 1_000_000)
    return f"${units:,}." + f"{rest:06}".rstrip("0").ljust(2, "0")


def _day(time_us: int) -> str:
    return f"{datetime_of(time_us):%Y-%m-%d}"


def _content(lines: list[str]) -> bytes:
    texts = [line.encode("cp1252", "replace") for line in lines]
    for sign in (b"\\", b"(", b")"):
        texts = [text.replace(sign, b"\\" + sign) for text in texts]
    return b"BT /F1 11 Tf 14 TL 56 786 Td " + b" ".join(b"(%s) Tj T*" % text for text in texts) + b" ET"


def _file(objects: list[bytes]) -> bytes:
    data, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start, size = len(data), len(objects) + 1
    data += b"xref\n0 %d\n0000000000 65535 f \n" % size + b"".join(b"%010d 00000 n \n" % place for place in places)
    data += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, start)
    return bytes(data)
