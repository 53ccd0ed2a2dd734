"""The tenants catalogue: what tenants ask of an assistant, in prompts of real length.

It holds the demo catalogue's families with more wordings, edits of the message, choices between
two free phrases, desks with facts, and tables of up to six rows.
"""

from dataclasses import replace
from typing import Final

from loragen.suite import boilerplate
from loragen.suite.choices import KIND, PRIORITY, SCOPE, TRIGGER, VERDICT
from loragen.suite.combinations import (
    JSON_PICK,
    JSON_ROUTES,
    WRAPPED_LABEL,
    WRAPPED_PICK,
    WRAPPED_VERDICT,
)
from loragen.suite.demo import DEMO
from loragen.suite.edits import COUNT, JOIN, LIST, REVERSE, TAG, TWICE
from loragen.suite.more_wordings import HELD_OUT, TRAINING
from loragen.suite.order_edits import EXTRACT, REDACT, RENAME
from loragen.suite.services import CLOSING, FACTS, HANDOFF, WELCOME
from loragen.suite.splits import Catalogue
from loragen.suite.tables import CALENDAR, GLOSSARY, PRICES, ROUTES
from loragen.suite.tenant_words import ADDED
from loragen.suite.tool_tables import TOOLS
from loragen.suite.unseen_tables import ROSTER, SHELVES

LOOKUPS: Final = (ROUTES, GLOSSARY, PRICES, CALENDAR, TOOLS)
"""Seen families whose prompts hold a table."""

TENANTS: Final = Catalogue(
    name="tenants",
    seen=(
        *(
            replace(
                family,
                wordings=family.wordings + TRAINING.get(family.name, ()),
                held_out_wordings=family.held_out_wordings + HELD_OUT.get(family.name, ()),
            )
            for family in DEMO.seen
        ),
        *(REVERSE, TWICE, JOIN, LIST, COUNT, TAG, REDACT, EXTRACT, RENAME),
        *(VERDICT, KIND, PRIORITY, TRIGGER, SCOPE),
        *(FACTS, WELCOME, HANDOFF, CLOSING),
        *LOOKUPS,
    ),
    unseen=(
        *(WRAPPED_PICK, JSON_PICK, WRAPPED_LABEL, WRAPPED_VERDICT),
        *(ROSTER, SHELVES, JSON_ROUTES),
    ),
    surround=boilerplate.surround,
    words=DEMO.words + ADDED,
    sentences=(
        *boilerplate.OPENINGS,
        *boilerplate.TONE,
        *boilerplate.DISTRACTORS,
        *boilerplate.CLOSINGS,
    ),
    binding=(*LOOKUPS, VERDICT, KIND, PRIORITY, TRIGGER, SCOPE, HANDOFF),
)
