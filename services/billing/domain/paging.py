"""Where pages of lists end."""

from __future__ import annotations

from services.shared import paging

Position = tuple[int, str]
"""The place of the last row of a page, in the list's own order: a number, then an id."""

PageTokens = paging.PageTokens[Position]
"""Makes and reads the tokens of such pages."""
