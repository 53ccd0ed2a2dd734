"""Words that the tenants catalogue adds to `words`: table keys, codes, numbers, tools."""

from typing import Final

from loragen.suite.words import CITIES, GREETINGS, ITEMS, MARKS, NAMES


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


DEPARTMENTS: Final[dict[str, tuple[str, ...]]] = {
    "refunds": _split("refund repayment money"),
    "invoices": _split("invoice bill receipt"),
    "delivery": _split("parcel shipping courier"),
    "returns": _split("return exchange swap"),
    "repairs": _split("repair crack fault"),
    "login": _split("password account signin"),
    "sales": _split("offer discount quote"),
    "complaints": _split("angry rude unhappy"),
    "jobs": _split("job career salary"),
    "press": _split("journalist interview newspaper"),
    "travel": _split("flight train hotel"),
    "events": _split("party concert wedding"),
    "contracts": _split("contract lawyer clause"),
    "health": _split("doctor nurse medicine"),
    "garden": _split("tree flower lawn"),
    "school": _split("teacher lesson exam"),
}
"""Departments that tables route to, each with the words of messages that mean it."""

TOPICS: Final = tuple(DEPARTMENTS)
TRIGGERS: Final = tuple(word for words in DEPARTMENTS.values() for word in words)

CODES: Final = tuple(
    f"{letter}{digit}" for letter in "ABCDEFGHJKLMNPQRSTUVWXYZ" for digit in range(10)
)
NUMBERS: Final = tuple(str(number) for number in range(100))
CURRENCIES: Final = _split("euros dollars pounds francs crowns")

NONCE: Final = _split(
    "zim bop lurk fen tash grol wib nesk pux dort kelv mirt jask vint yarp cuz flim snod trel glam "
    "pib rask veb zork nolf quib drap slum hine tove mome bryn culp stad wex yol kipp fruk blen"
)
"""Words without a meaning: a glossary may give them any."""

INTENTS: Final[dict[str, tuple[str, ...]]] = {
    "weather": CITIES,
    "hotels": CITIES,
    "taxis": CITIES,
    "maps": CITIES,
    "orders": ITEMS,
    "prices": ITEMS,
    "stock": ITEMS,
    "calls": NAMES,
    "mail": NAMES,
}
"""What tools are for, each with the values that its argument takes."""

ARGUMENTS: Final = _split("city place town item thing product name person target query value field")
DAYS: Final = _split("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
COUNTS: Final = _split("zero one two three four five six")
JOINTS: Final = _split("- + / & , ; > =")
BULLETS: Final = _split("- * + > #")

ADDED: Final = (
    *TOPICS,
    *TRIGGERS,
    *CODES,
    *NUMBERS,
    *CURRENCIES,
    *NONCE,
    *INTENTS,
    *ARGUMENTS,
    *DAYS,
    *COUNTS,
)
FREE: Final = (*MARKS, *NONCE, *GREETINGS)
"""Words that a prompt may choose for any purpose."""
