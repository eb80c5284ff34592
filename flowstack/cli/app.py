"""The command `flowstack`: its options, its commands, and how it ends."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from flowstack._errors import FlowStackError
from flowstack.cli import admin, alerts, budget, chat, doctor, invoices, keys, plans, subscription, usage, vault
from flowstack.cli.estimate import estimate
from flowstack.cli.output import Output, exit_code_of
from flowstack.cli.shell import Shell

EXITS = """Exit codes: 0 done, 1 a defect, 2 a wrong command, setting or request, 3 not allowed, 4 not found,
5 a limit was reached, 6 the state does not allow it, 7 not reachable, 8 out of time, 130 interrupted."""

app = typer.Typer(
    name="flowstack",
    help="LLM agent calls sold by the session.",
    epilog=EXITS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("chat")(chat.chat)
app.command("usage")(usage.usage)
app.command("plans")(plans.plans)
app.command("estimate")(estimate)
app.command("doctor")(doctor.doctor)
for name, group in (
    ("subscription", subscription.app),
    ("invoices", invoices.app),
    ("keys", keys.app),
    ("alerts", alerts.app),
    ("budget", budget.app),
    ("vault", vault.app),
    ("admin", admin.app),
):
    app.add_typer(group, name=name)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"flowstack {version('flowstack')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Answers and errors as JSON.")] = False,
    api_key: Annotated[
        str | None, typer.Option(help="The API key. Better: set FLOWSTACK_API_KEY.", show_default=False)
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="One address for all services. Or: FLOWSTACK_ENDPOINT.", show_default=False)
    ] = None,
    account: Annotated[
        str, typer.Option(help="Acts on this account, as the operator with FLOWSTACK_ADMIN_TOKEN.", show_default=False)
    ] = "",
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")] = False,  # noqa: ARG001  # _version acts on it
) -> None:
    """LLM agent calls sold by the session."""
    context.obj = Shell(Output(as_json), api_key=api_key, endpoint=endpoint, account_id=account)
    context.call_on_close(context.obj.close)


def run(arguments: list[str] | None = None) -> None:
    """Runs a command and ends the process; a user's mistake gets a sentence, never a stack trace."""
    given = sys.argv[1:] if arguments is None else arguments
    # Known before the arguments are parsed, because what is wrong with them is told the same way.
    output = Output("--json" in given)
    sys.exit(_ended(given, output))


def _ended(arguments: list[str], output: Output) -> int:
    try:
        answer: Any = app(arguments, prog_name="flowstack", standalone_mode=False)
    except FlowStackError as error:
        output.error(str(error), error)
        return exit_code_of(error)
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except typer.TyperException as error:
        return _mistaken(error, output)
    except BrokenPipeError:
        # Whoever read has read enough.
        sys.stderr.close()
        return 0
    return answer if isinstance(answer, int) else 0


def _mistaken(error: Any, output: Output) -> int:
    """Says what is wrong with the arguments."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        output.error(error.format_message())
    return int(error.exit_code)
