"""Word lists that decoding keeps English captions sound with; checkpoints carry them."""

_ARTICLES = "a an the"
_CONJUNCTIONS = "and or but while as that which who"
_PREPOSITIONS = (
    "of in on at to with by for from into onto over under through near behind above across along against "
    "around between beside toward towards off up down out next during inside outside among past"
)
_OTHERS = "is are was were be being has have his her its their he she it they there him them one two three"

FUNCTION_WORDS = tuple(f"{_ARTICLES} {_CONJUNCTIONS} {_PREPOSITIONS} {_OTHERS} 's".split())
"""Pairs of these may repeat in one caption ("in a … in a")."""

UNFINISHED_ENDS = tuple(
    f"{_ARTICLES} {_CONJUNCTIONS} of in on at to with by for from into onto over through near behind above "
    "across along against between beside toward towards next during among is are was were has have "
    "his its their 's".split()
)
"""No caption ends with these."""
