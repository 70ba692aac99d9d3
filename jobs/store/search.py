"""Finding items by their captions, and the order of scores."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, collate, func, or_

from jobs.store.database import FOLD, Database
from jobs.tables import ItemRow

SEARCHED_ROWS = 50_000
"""Positions that one page of a search looks at; so its cost does not grow with the job."""


class Rank(NamedTuple):
    """Where a page in order of scores ended; without a score, among the items that have none."""

    score: float | None
    position: int


def caption_holds(database: Database, text: str) -> ColumnElement[bool]:
    """Return what selects items whose shown caption, edited or the model's own, holds ``text`` in any case.

    Nothing in ``text`` is a wildcard.
    """
    shown = func.coalesce(ItemRow.edited_caption, ItemRow.caption)
    wanted = text.lower()
    if database.is_sqlite:
        # Its own lower() knows ASCII alone.
        return func.instr(getattr(func, FOLD)(shown), wanted) > 0
    # What lower() does beyond ASCII depends on the database's locale, so the letters asked for are said here.
    folded = func.lower(collate(shown, "C"))
    if letters := _capitals(wanted):
        folded = func.translate(folded, "".join(letters), "".join(letters.values()))
    return func.strpos(folded, wanted) > 0


def _capitals(text: str) -> dict[str, str]:
    """Return the small letter of each capital letter that stands for one of ``text`` and is not ASCII."""
    letters = {letter.upper(): letter for letter in text if not letter.isascii()}
    return {capital: letter for capital, letter in letters.items() if len(capital) == 1 and capital != letter}


def ranks_below(rank: Rank) -> ColumnElement[bool]:
    """Return what selects the items after ``rank``: best scores first, items without one last."""
    further = ItemRow.position > rank.position
    if rank.score is None:
        return and_(ItemRow.score.is_(None), further)
    equal = and_(ItemRow.score == rank.score, further)
    return or_(ItemRow.score < rank.score, equal, ItemRow.score.is_(None))
