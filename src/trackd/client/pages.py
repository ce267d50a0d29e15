"""Lists that come in pages: one after the other, each asked for when it is wanted."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar


class Page(Protocol):
    """Any answer of the contract that is a page."""

    @property
    def next_page_token(self) -> str:
        """What the next page is asked for with; empty on the last one."""


_Page = TypeVar("_Page", bound=Page)


async def pages(ask: Callable[[str], Awaitable[_Page]]) -> AsyncIterator[_Page]:
    """Every page. ask: answers with the page of a token, "" for the first; raises as it raises."""
    token = ""
    while True:
        page = await ask(token)
        yield page
        if not (token := page.next_page_token):
            return
