"""Lists in pages, newest first. A page's token is the id of its last row: ids of ours are in the order of time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.kit.errors import InvalidArgument

T = TypeVar("T")
USUAL, MOST = 100, 1000


@dataclass(frozen=True)
class Page(Generic[T]):
    rows: Sequence[T]
    next_token: str  # empty on the last page


def checked(page_size: int, page_token: str, prefix: str) -> tuple[int, str]:
    """The size and the id to go on before. Raises InvalidArgument naming `page_size` or `page_token`."""
    if not 0 <= page_size <= MOST:
        raise InvalidArgument(f"0 to {MOST} is expected.", field="page_size")
    if page_token and not re.fullmatch(rf"{prefix}_[0-9a-f]{{32}}", page_token):
        raise InvalidArgument("This is no page token of ours.", field="page_token")
    return page_size or USUAL, page_token


def page(found: Sequence[T], size: int, id_of: Callable[[T], str]) -> Page[T]:
    """`found` holds one row more than the page when there are further ones."""
    rows = found[:size]
    return Page(rows, id_of(rows[-1]) if len(found) > size else "")
