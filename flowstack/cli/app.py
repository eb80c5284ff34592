"""The command `flowstack`: its options, its commands, and how it ends."""

from __future__ import annotations

import copy
import itertools
import sys
from importlib import metadata
from typing import Annotated, Any

import typer

from flowstack._errors import ConfigurationError, FlowStackError
from flowstack.cli import admin, alerts, budget, chat, doctor, invoices, keys, plans, subscription, usage, vault
from flowstack.cli.estimate import estimate
from flowstack.cli.inputs import arguments_from
from flowstack.cli.output import Output, exit_code_of
from flowstack.cli.shell import Shell
from flowstack.cli.streams import OutputClosedError, let_go, use_any_encoding, watched_output

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


def _version(context: typer.Context, wanted: bool) -> None:
    if wanted:
        output = context.find_object(Output)
        assert output is not None
        found = metadata.version("flowstack")
        output.say(f"flowstack {found}", {"version": found})
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Answers and errors as JSON.")] = False,  # noqa: ARG001  # run knows it before
    api_key: Annotated[
        str | None, typer.Option(help="The API key. Better: set FLOWSTACK_API_KEY.", show_default=False)
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="One address for all services. Or: FLOWSTACK_ENDPOINT.", show_default=False)
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(help="Acts on this account, as the operator with FLOWSTACK_ADMIN_TOKEN.", show_default=False),
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")] = False,  # noqa: ARG001  # _version acts on it
) -> None:
    """LLM agent calls sold by the session."""
    for name, given in (("--api-key", api_key), ("--endpoint", endpoint), ("--account", account)):
        if given is not None and not given.strip():
            # An unset variable of a script would otherwise act on whatever the environment names.
            raise ConfigurationError(f"{name} is empty. Give it a value, or leave it out.")
    output = context.find_object(Output)
    assert output is not None
    context.obj = Shell(output, api_key=api_key, endpoint=endpoint, account_id=account or "")
    context.call_on_close(context.obj.close)


def run(arguments: list[str] | None = None) -> None:
    """Runs a command and ends the process; a user's mistake gets a sentence, never a stack trace."""
    given = sys.argv[1:] if arguments is None else arguments
    use_any_encoding()
    # Known before the arguments are parsed, because what is wrong with them is told the same way.
    output = Output("--json" in itertools.takewhile(lambda one: one != "--", given))
    with watched_output():
        code = _ended(given, output)
    let_go()
    sys.exit(code)


def _command() -> Any:
    """The commands, each of which takes --json as the program itself does."""
    program: Any = typer.main.get_command(app)
    own = next(option for option in program.params if option.name == "as_json")
    option = copy.copy(own)
    option.expose_value = False
    waiting = list(program.commands.values())
    while waiting:
        command = waiting.pop()
        command.params.append(option)
        waiting += getattr(command, "commands", {}).values()
    return program


def _ended(arguments: list[str], output: Output) -> int:
    try:
        given = arguments_from(arguments)
        answer: Any = _command()(args=given, prog_name="flowstack", standalone_mode=False, obj=output)
    except FlowStackError as error:
        output.error(str(error), error)
        return exit_code_of(error)
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except typer.TyperException as error:
        return _mistaken(error, output)
    except OutputClosedError:
        return 0
    return answer if isinstance(answer, int) else 0


def _mistaken(error: Any, output: Output) -> int:
    """Says what is wrong with the arguments."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        output.error(error.format_message())
    return int(error.exit_code)
