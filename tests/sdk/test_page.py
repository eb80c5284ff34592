"""Every block of the published page on billing and usage, as it stands there, over the running services and the fake.

Placeholder keys and bare `...` are replaced, and nothing else.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

import flowstack.billing
from flowstack import Agent, QuotaExceededError
from flowstack.billing import get_next_billing_cycle_date
from tests.sdk.conftest import Platform, Real

PAGE = Path(__file__).parents[1] / "page"
HELPERS = {name: getattr(flowstack.billing, name) for name in flowstack.billing.__all__}


def run(name: str, key: str, **names: Any) -> dict[str, Any]:
    text = (PAGE / f"{name}.py").read_text()
    text = text.replace('"fs_..."', repr(key)).replace("{...}", "{'a': 1}").replace("key='...'", "key='k'")
    scope = {"__name__": name, "Agent": Agent, "QuotaExceededError": QuotaExceededError, "datetime": datetime}
    scope |= {"timedelta": timedelta, **HELPERS, **names}
    exec(compile(text, f"{name}.py", "exec"), scope)  # the page's code is what is tested
    return scope


def point_at(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the variables that say where FlowStack is."""
    addresses = platform.endpoint if isinstance(platform.endpoint, dict) else {"": platform.endpoint}
    for service, address in addresses.items():
        monkeypatch.setenv(f"FLOWSTACK_{service.upper()}_ENDPOINT".replace("__", "_"), address)


@pytest.fixture
def at_platform(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    point_at(platform, monkeypatch)
    return platform


@pytest.mark.parametrize(
    ("block", "provider", "model"),
    [("managed_agent", "bedrock", "claude-3-sonnet"), ("byok_agent", "openai", "gpt-4o")],
)
def test_agents_are_made(at_platform: Platform, block: str, provider: str, model: str) -> None:
    agent = run(block, at_platform.key("hobbyist"))["agent"]
    aliases = {alias for one in agent.models(provider) for alias in (one["model"], *one["aliases"])}
    assert (agent.provider, agent.model) == (provider, model)
    assert model in aliases
    agent.close()


@pytest.mark.parametrize(
    ("tier", "sessions", "dollars", "managed"),
    [
        ("free", 25, 0.0, False),
        ("hobbyist", 200, 15.0, True),
        ("starter", 1_000, 50.0, True),
        ("professional", 5_000, 200.0, True),
    ],
)
def test_tiers_are_as_they_are_published(
    at_platform: Platform, tier: str, sessions: int, dollars: float, managed: bool
) -> None:
    with at_platform.agent(tier) as agent:
        info, usage = agent.get_tier_info(), agent.get_usage()
        assert (info["current_tier"], info["can_use_managed"], info["byok_required"]) == (tier, managed, not managed)
        assert (usage.tier, usage.sessions_limit, usage.current_charges) == (tier, sessions, dollars)


def test_usage_is_checked(at_platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    run("check_usage", at_platform.key("hobbyist"))["agent"].close()
    said = capsys.readouterr().out.splitlines()
    assert said[0:3] == ["Sessions used: 0", "Sessions limit: 200", "Sessions remaining: 200"]
    assert said[3:] == ["Usage percentage: 0.0%", "Current charges: $15.00"]


def test_the_limit_is_neared_and_reached(at_platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    with at_platform.agent("free") as agent:
        for _ in range(20):
            agent.chat("Hello")
        run("near_limit", "", agent=agent)
        assert capsys.readouterr().out.splitlines() == [
            "⚠️ Warning: You're using 80%+ of your monthly sessions",
            "Current tier: free",
            "Can use managed models: False",
        ]
        for _ in range(5):
            agent.chat("Hello")
        run("near_limit", "", agent=agent)
        assert "❌ Session limit reached. Please upgrade your plan." in capsys.readouterr().out
        run("quota_exceeded", "", agent=agent)
        said = capsys.readouterr().out.splitlines()
        assert said[1:] == ["Current usage: 25", "Limit: 25", "Please upgrade your plan or wait for reset."]
        with pytest.raises(QuotaExceededError) as caught:
            agent.chat("Hello")
        assert (caught.value.details["plan"], caught.value.details["upgrade_plan"]) == ("free", "hobbyist")
        assert caught.value.details["reset_time"] == agent.get_usage().period_end
        # Everything else goes on.
        agent.vault.store("data", {"still": "works"}, key="k")
        assert agent.vault.retrieve("data", key="k") == {"still": "works"}


def test_usage_patterns_are_tracked(at_platform: Platform) -> None:
    with at_platform.agent() as agent:
        track = run("usage_patterns", "", agent=agent)["track_usage_patterns"]
        agent.chat("Hello")
        assert track()["trend"] == 0
        agent.chat("Hello")
        agent.chat("Track it", labels={"echo.tool": "track_usage_patterns"})  # snapshot while its session runs
        tracked = track()
    assert tracked["current_usage"] == pytest.approx(0.3)
    assert tracked["trend"] == pytest.approx(0.1)
    assert tracked["sessions_remaining"] == 997
    assert tracked["days_left_in_period"] in range(28, 32)
    assert tracked["projected_usage"] >= 3


@pytest.mark.parametrize(
    ("task", "provider", "model"),
    [
        ("Say hello", "openai", "gpt-3.5-turbo"),
        ("Summarise this text and review its tone", "bedrock", "claude-3-sonnet"),
        ("Analyze the design and compare the strategies", "anthropic", "claude-3-opus"),
    ],
)
def test_a_provider_is_chosen_by_the_task(at_platform: Platform, task: str, provider: str, model: str) -> None:
    with at_platform.agent() as agent:
        run("choose_provider", "", agent=agent)["optimize_provider_for_cost"](task)
        assert (agent.provider, agent.model) == (provider, model)
        aliases = {alias for one in agent.models(provider) for alias in (one["model"], *one["aliases"])}
        assert model in aliases


def test_an_expensive_operation_is_cached(at_platform: Platform) -> None:
    asked: list[str] = []
    with at_platform.agent() as agent:
        scope = run("caching", "", agent=agent, expensive_operation=lambda query: asked.append(query) or query.upper())
        cached = scope["cached_expensive_operation"]
        first, second = cached("query"), cached("query")
        agent.vault.store(
            "cache",
            {"data": "old", "expires_at": (datetime.now() - timedelta(hours=1)).isoformat()},  # noqa: DTZ005
            key=f"expensive_op_{hash('other')}",
        )
        third = cached("other")
    assert (first["cached"], second["cached"], third["cached"]) == (False, True, False)
    assert second["result"] == "QUERY"
    assert asked == ["query", "other"]


def test_ten_requests_in_a_batch_are_one_session(at_platform: Platform) -> None:
    requests = [f"request {letter}" for letter in "abcdefghij"]
    with at_platform.agent() as agent:
        done = run("batching", "", agent=agent)["batch_processing"](requests)
        assert done["results"] == requests
        assert agent.get_usage().sessions_used == 1


def test_costs_are_analysed(at_platform: Platform) -> None:
    with at_platform.agent("starter") as agent:
        for _ in range(3):
            agent.chat("Hello")
        agent.flush()
        analysis = run("cost_analysis", "", agent=agent)["cost_analysis"]()
    assert (analysis["managed_sessions"], analysis["byok_sessions"]) == (0, 3)
    assert analysis["monthly_cost_estimate"] == 50.0
    kinds = {one["type"]: one["potential_savings"] for one in analysis["recommendations"]}
    assert kinds["plan_optimization"] == 50.0  # free would have done: every session was on keys of the caller's own
    assert "cost_reduction" in kinds


def test_tools_and_vault_are_part_of_one_session(at_platform: Platform) -> None:
    with at_platform.agent() as agent:
        run("one_session", "", agent=agent)
        assert agent.get_usage().sessions_used == 1

        @agent.tool
        def busy(message: str) -> int:
            for number in range(10):
                agent.vault.store("data", {"n": number}, key=str(number))
            return len(agent.vault.query("data", {"n": {"$gte": 0}}))

        assert agent.chat("Work", labels={"echo.tool": "busy"}) == "Work"
        assert agent.get_usage().sessions_used == 2


def test_four_calls_are_four_sessions(at_platform: Platform) -> None:
    with at_platform.agent() as agent:
        run("four_sessions", "", agent=agent)
        assert agent.get_usage().sessions_used == 4


def test_costs_are_watched_and_guarded(at_platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    with at_platform.agent("hobbyist") as agent:
        run("real_time", "", agent=agent)
        assert capsys.readouterr().out.splitlines() == ["Sessions used today: 0", "Estimated monthly cost: $15.0"]
        assert agent.alerts.list() == []
        guard = run("budget_guard", "", agent=agent)["budget_guard"]
        assert guard(20.0)["budget_remaining"] == 5.0
        assert guard(10)["error"] == "Budget exceeded"


def test_slack_is_told_of_much_usage(at_platform: Platform) -> None:
    with at_platform.agent("free") as agent:
        agent.alerts.set_thresholds([])
        for _ in range(21):
            agent.chat("Hello")
        run("real_time", "", agent=agent)
        (told,) = agent.alerts.list()
        assert (told.message, told.kind) == ("⚠️ Usage at 84.0%", "custom")


def test_slack_itself_receives_it(services: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(services, monkeypatch)
    with services.agent("free") as agent:
        agent.alerts.set_thresholds([])
        path = "/services/T0/B0/real-time"
        agent.alerts.create_webhook(services.receiver.url(path), name="Slack", format="slack")
        for _ in range(20):
            agent.chat("Hello")
        run("real_time", "", agent=agent)  # 80 % is not over 80 %
        agent.chat("Hello")
        run("real_time", "", agent=agent)
        (posted,) = services.run(services.receiver.until(1, path))
        assert posted.json == {"text": "*Warning*: ⚠️ Usage at 84.0%"}


def test_usage_alerts_are_sent_beyond_their_thresholds(at_platform: Platform) -> None:
    with at_platform.agent("free") as agent:
        agent.alerts.set_thresholds([])  # those of the service itself are not what is tested here
        setup = run("usage_alerts", "", agent=agent)["setup_usage_alerts"]
        assert setup()["alerts_triggered"] == []
        assert agent.alerts.list() == []
        for _ in range(23):
            agent.chat("Hello")
        done = setup()
        assert done["next_reset"] == get_next_billing_cycle_date(agent) == agent.get_usage().period_end
        assert [alert["threshold"] for alert in done["alerts_triggered"]] == [75, 90]
        told = [(alert.message, alert.kind, alert.severity) for alert in agent.alerts.list()]
        assert told == [("Usage alert: 92.0% of monthly limit reached", "custom", "warning")] * 2


def test_usage_alerts_arrive_signed_and_with_their_data(services: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(services, monkeypatch)
    with services.agent("free") as agent:
        agent.alerts.set_thresholds([])
        webhook = agent.alerts.create_webhook(services.receiver.url("/usage-alerts"))
        agent.alerts.send_to([webhook.webhook_id])
        for _ in range(19):
            agent.chat("Hello")
        run("usage_alerts", "", agent=agent)["setup_usage_alerts"]()
        (posted,) = services.run(services.receiver.until(1, "/usage-alerts"))
        body = Webhook(webhook.secret).verify(posted.body, posted.headers)
        assert body["data"]["message"] == "Usage alert: 76.0% of monthly limit reached"
        data = {"threshold": 75, "current_usage": 76.0, "sessions_remaining": 6}
        assert data.items() <= body["data"]["custom"].items()
