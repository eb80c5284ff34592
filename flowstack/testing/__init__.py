"""For the tests of those who use FlowStack: an in-process fake of its services, with exact quotas and no network.

from flowstack.testing import FakeFlowStack

with FakeFlowStack(plan="free") as fake:
    agent = fake.agent("my-agent")
    fake.say("Scripted answer")
    assert agent.chat("Hello") == "Scripted answer"
"""

from __future__ import annotations

from flowstack.testing._fake import FakeFlowStack

__all__ = ["FakeFlowStack"]
