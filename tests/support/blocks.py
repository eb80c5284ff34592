"""Code in Markdown."""

from __future__ import annotations

import re


def python_blocks(markdown: str) -> list[str]:
    """The Python blocks, in order."""
    return re.findall(r"```python\n(.*?)```", markdown, re.DOTALL)
