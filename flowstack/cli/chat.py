"""`flowstack chat`: one session, streamed."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from flowstack import Agent
from flowstack._errors import ConfigurationError
from flowstack._values import AttemptFailed, ReasoningDelta, Reply, SessionFinished, TextDelta
from flowstack.cli.inputs import secret_in, standard_input, text_of
from flowstack.cli.shell import Shell, shell_of
from flowstack.cli.values import INT32_MAX

KEY_VARIABLES = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}


def chat(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What to say; - reads it from standard input.")],
    provider: Annotated[str | None, typer.Option(envvar="FLOWSTACK_PROVIDER", help="Else the operator's.")] = None,
    model: Annotated[str | None, typer.Option(envvar="FLOWSTACK_MODEL", help="Else the provider's default.")] = None,
    system: Annotated[str | None, typer.Option(help="Instructions to the model.")] = None,
    byok: Annotated[
        bool, typer.Option("--byok", help="Sends your own key: OPENAI_API_KEY, ANTHROPIC_API_KEY or AWS_….")
    ] = False,
    byok_file: Annotated[Path | None, typer.Option(help="Sends the provider key that this file holds.")] = None,
    max_output_tokens: Annotated[int | None, typer.Option(min=1, max=INT32_MAX)] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2)] = None,
    show_reasoning: Annotated[bool, typer.Option(help="Shows what the model thinks, dimmed.")] = False,
) -> None:
    """Asks once and streams the answer. It costs one session."""
    shell = shell_of(context)
    shell.check_customer("chat")
    text = standard_input() if prompt == "-" else prompt
    options: dict[str, Any] = {
        name: value
        for name, value in (("max_output_tokens", max_output_tokens), ("temperature", temperature), ("system", system))
        if value is not None
    }
    with Agent(
        "flowstack-cli",
        api_key=shell.api_key,
        endpoint=shell.endpoint,
        provider=provider and text_of(provider, "The provider"),
        model=model and text_of(model, "The model"),
        byok=_credentials(provider, byok, byok_file),
        record_providers=False,
    ) as agent:
        reply: Reply | None = None
        for event in agent.stream(text, **options):
            if isinstance(event, SessionFinished):
                reply = event.reply
            elif not shell.output.as_json:
                _show(shell, event, show_reasoning)
    assert reply is not None
    _conclude(shell, reply)


def _show(shell: Shell, event: object, show_reasoning: bool) -> None:
    if isinstance(event, TextDelta):
        # As it comes: a model's text is not markup, and is wrapped by the terminal.
        shell.output.write(event.text)
    elif isinstance(event, ReasoningDelta) and show_reasoning:
        shell.output.note(event.text, end="")
    elif isinstance(event, AttemptFailed):
        shell.output.note(f"{event.provider}/{event.model} failed ({event.reason}); trying the next.")


def _conclude(shell: Shell, reply: Reply) -> None:
    session = reply.session
    if shell.output.as_json:
        shell.output.json(
            {
                "text": str(reply),
                "finish_reason": reply.finish_reason,
                "session": dataclasses.asdict(session),
                "usage": dataclasses.asdict(reply.usage),
            }
        )
        return
    shell.output.write("\n")
    cost = "1 session" if session.counted else "no session"
    left = (
        ""
        if session.sessions_remaining is None
        else f", {session.sessions_remaining:,} left of {session.sessions_limit:,}"
    )
    shell.output.note(
        f"{cost}{left} · {session.provider}/{session.model} · {reply.finish_reason} · {session.session_id}"
    )


def _credentials(provider: str | None, byok: bool, file: Path | None) -> dict[str, str] | str | None:
    if file is not None:
        return secret_in(file, "--byok-file")
    if not byok:
        return None
    if provider == "bedrock":
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION")
        found = {name.removeprefix("AWS_").lower(): os.environ[name] for name in names if os.environ.get(name)}
        if "access_key_id" not in found or "secret_access_key" not in found:
            raise ConfigurationError("--byok with bedrock needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
        return found
    variable = KEY_VARIABLES.get(provider or "", "OPENAI_API_KEY")
    if not os.environ.get(variable):
        raise ConfigurationError(f"--byok with {provider or 'a provider'} needs {variable}, or --byok-file.")
    return os.environ[variable]
