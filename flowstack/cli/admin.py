"""`flowstack admin`: the operator's accounts and contracts, by the admin token."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import typer
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscriptions

from flowstack._errors import ConfigurationError
from flowstack._methods import AccountService, SubscriptionService, Unary
from flowstack.cli.shell import Shell, shell_of
from flowstack.cli.values import date_of, dollars, limit_of, money_from, time_from, time_of, when, word

app = typer.Typer(help="The operator's: FLOWSTACK_ADMIN_TOKEN is sent.", no_args_is_help=True)
accounts = typer.Typer(help="Accounts.", no_args_is_help=True)
contracts = typer.Typer(help="Contracts: an account's own price, sessions and features.", no_args_is_help=True)
app.add_typer(accounts, name="accounts")
app.add_typer(contracts, name="contracts")

SESSIONS_MAX = 1_000_000_000
CONCURRENT_MAX = 1_000_000

AccountId = Annotated[str, typer.Argument(help="The account's id, acct_….")]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]


def _call(shell: Shell, method: Unary[Any, Any], **fields: Any) -> Any:
    return shell.admin.call(method, method.request(**fields))


@accounts.command("list")
def list_(
    context: typer.Context,
    plan: Annotated[str, typer.Option(help="Only those on this plan.")] = "",
    email: Annotated[str, typer.Option(help="Only those with this address.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 100,
) -> None:
    """Accounts, page by page."""
    shell = shell_of(context)
    found: list[Any] = []
    token = ""
    while len(found) < limit:
        page = _call(
            shell,
            AccountService.ListAccounts,
            plan_id=plan,
            email=email,
            page_size=min(1000, limit - len(found)),
            page_token=token,
        )
        found += page.accounts
        token = page.next_page_token
        if not token:
            break
    rows = [
        (one.account_id, one.display_name, one.email, one.plan_id, word(one, "state"), date_of(one.create_time))
        for one in found
    ]
    columns = ("@account", "name", "email", "@plan", "state", "made")
    shell.output.table(columns, rows, {"accounts": found}, "There are no accounts.")


@accounts.command()
def show(context: typer.Context, account: AccountId) -> None:
    """One account."""
    shell = shell_of(context)
    _show(shell, _call(shell, AccountService.GetAccount, account_id=account).account)


@accounts.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The customer's name, as on invoices.")],
    email: Annotated[str, typer.Argument(help="Where to reach the customer.")],
    plan: Annotated[str, typer.Option(help="The plan to begin with.")] = "free",
    key: Annotated[bool, typer.Option("--key", help="Makes an API key as well.")] = False,
) -> None:
    """Opens an account."""
    shell = shell_of(context)
    answer = _call(
        shell,
        AccountService.CreateAccount,
        display_name=name,
        email=email,
        plan_id=plan,
        request_id=f"cli-{secrets.token_hex(12)}",
    )
    account_id = answer.account.account_id
    made = _call(shell, AccountService.CreateApiKey, account_id=account_id, display_name="first") if key else None
    if shell.output.as_json:
        shell.output.json({"account": answer.account} | ({"secret": made.secret} if made else {}))
        return
    _show(shell, answer.account)
    if made is not None:
        shell.output.say("Its API key is shown this once; keep it safe:")
        shell.output.write(f"{made.secret}\n")


@accounts.command()
def suspend(
    context: typer.Context,
    account: AccountId,
    reason: Reason = "",
    until: Annotated[str | None, typer.Option(help="When it ends by itself, such as 2027-01-01.")] = None,
) -> None:
    """Refuses the account's new sessions; running ones finish."""
    shell = shell_of(context)
    fields = {} if until is None else {"until_time": time_from(until)}
    _show(shell, _call(shell, AccountService.SuspendAccount, account_id=account, reason=reason, **fields).account)


@accounts.command()
def lift(context: typer.Context, account: AccountId, reason: Reason = "") -> None:
    """Ends a suspension."""
    shell = shell_of(context)
    _show(shell, _call(shell, AccountService.SuspendAccount, account_id=account, reason=reason, lift=True).account)


@accounts.command()
def delete(
    context: typer.Context,
    account: AccountId,
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", help="Does not ask.")] = False,
) -> None:
    """Deletes an account for good: keys are revoked, the vault is purged after 30 days."""
    if not yes:
        typer.confirm(f"Delete {account} for good?", abort=True, err=True)
    shell = shell_of(context)
    _show(shell, _call(shell, AccountService.DeleteAccount, account_id=account, reason=reason).account)


@contracts.command()
def put(
    context: typer.Context,
    account: AccountId,
    plan: Annotated[str, typer.Option(help="The plan that it builds on.")] = "",
    offer: Annotated[str, typer.Option(help="Or a public offer, such as volume-10k.")] = "",
    price: Annotated[str | None, typer.Option(help="Dollars a month.")] = None,
    sessions: Annotated[int | None, typer.Option(min=0, max=SESSIONS_MAX, help="Sessions a month.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, max=CONCURRENT_MAX, help="Sessions at once.")] = None,
    starts: Annotated[str | None, typer.Option(help="When; at once where left out.")] = None,
    ends: Annotated[str | None, typer.Option(help="When it ends; never where left out.")] = None,
    reference: Annotated[str, typer.Option(help="The contract's name in your files.")] = "",
    preview: Annotated[bool, typer.Option("--preview", help="Says what would happen, and changes nothing.")] = False,
) -> None:
    """Gives an account terms of its own."""
    if bool(plan) == bool(offer):
        raise ConfigurationError("Say what the contract builds on: exactly one of --plan and --offer.")
    contract = subscriptions.Contract(plan_id=plan, offer_id=offer, reference=reference)
    if price is not None:
        contract.price.CopyFrom(money_from(price))
    if sessions is not None:
        contract.session_limit = sessions
    if concurrent is not None:
        contract.max_concurrent_sessions = concurrent
    if starts is not None:
        contract.effective_time.CopyFrom(time_from(starts))
    if ends is not None:
        contract.end_time.CopyFrom(time_from(ends))
    shell = shell_of(context)
    answer = _call(
        shell,
        SubscriptionService.PutContract,
        account_id=account,
        contract=contract,
        request_id=f"cli-{secrets.token_hex(12)}",
        validate_only=preview,
    )
    terms = answer.change.to_terms
    shell.output.fields(
        [
            ("Change", word(answer.change, "kind") + (", a preview: nothing was changed" if preview else "")),
            ("Plan", terms.plan_id),
            ("Price", f"{dollars(terms.price)} a month"),
            ("Sessions", f"{limit_of(terms.session_limit)} a month, {terms.max_concurrent_sessions} at once"),
            ("Takes effect", time_of(answer.change, "effective_time")),
            ("Charged", dollars(answer.change.amount)),
        ],
        answer,
    )


@contracts.command("show")
def show_contract(context: typer.Context, account: AccountId) -> None:
    """The contract that an account has."""
    shell = shell_of(context)
    now = _call(shell, SubscriptionService.GetSubscription, account_id=account).subscription
    if not now.HasField("contract"):
        shell.output.say(f"{account} has no contract; it is on {now.plan_id}.", {"contract": None})
        return
    found = now.contract
    shell.output.fields(
        [
            ("Contract", found.contract_id),
            ("Reference", found.reference),
            ("Builds on", found.plan_id or found.offer_id),
            ("Price", f"{dollars(now.terms.price)} a month"),
            ("Sessions", f"{limit_of(now.terms.session_limit)} a month"),
            ("From", time_of(found, "effective_time")),
            ("To", time_of(found, "end_time")),
        ],
        found,
    )


def _show(shell: Shell, account: Any) -> None:
    shell.output.fields(
        [
            ("Account", account.account_id),
            ("Name", account.display_name),
            ("Email", account.email),
            ("Plan", account.plan_id),
            ("State", word(account, "state")),
            ("Suspended", account.suspend_reason),
            ("Until", time_of(account, "suspend_until_time")),
            ("Made", when(account.create_time)),
            ("Vault purged", time_of(account, "purge_time")),
        ],
        account,
    )
