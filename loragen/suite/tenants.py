"""The tenants catalogue: what tenants ask of an assistant, in prompts of real length.

It holds the small catalogue's families with more wordings, edits of the message, choices between
two free phrases, desks with facts, tables of up to six rows, and rules with a form for answers.
"""

from dataclasses import replace
from typing import Final

from loragen.suite import boilerplate
from loragen.suite.choices import AREAS, KIND, PRIORITY, SCOPE, TRIGGER, VERDICT
from loragen.suite.directory import DIRECTORY
from loragen.suite.edits import COUNT, JOIN, LIST, REVERSE, TAG, TWICE
from loragen.suite.frames import ENDING, FIELD, OPENING, WRAP
from loragen.suite.labels import DETECT, SENTIMENT, TOPIC, URGENCY
from loragen.suite.more_wordings import HELD_OUT, TRAINING
from loragen.suite.order_edits import EXTRACT, REDACT, RENAME
from loragen.suite.rewrites import PICK
from loragen.suite.services import CLOSING, FACTS, HANDOFF, WELCOME
from loragen.suite.small import SMALL
from loragen.suite.splits import Catalogue
from loragen.suite.tables import CALENDAR, GLOSSARY, PRICES, ROUTES
from loragen.suite.tenant_words import ADDED
from loragen.suite.tool_tables import TOOLS
from loragen.suite.unseen_tables import ROSTER, SHELVES

LOOKUPS: Final = (ROUTES, GLOSSARY, PRICES, CALENDAR, TOOLS, DIRECTORY)
"""Seen families whose prompts hold a table."""

FRAMED: Final = (
    WRAP.around("wrapped", (DETECT, URGENCY, KIND, COUNT, EXTRACT, GLOSSARY, CALENDAR)),
    FIELD.around("keyed", (TOPIC, DETECT, KIND, PRIORITY, REVERSE, GLOSSARY, PRICES)),
    OPENING.around("opened", (VERDICT, TRIGGER, PICK, ROUTES, CALENDAR, EXTRACT)),
    ENDING.around("ended", (VERDICT, SCOPE, TOPIC, REVERSE, ROUTES, PRICES)),
)
"""Seen families of a rule in a frame; the unseen ones are other pairs."""

TENANTS: Final = Catalogue(
    name="tenants",
    seen=(
        *(
            replace(
                family,
                wordings=family.wordings + TRAINING.get(family.name, ()),
                held_out_wordings=family.held_out_wordings + HELD_OUT.get(family.name, ()),
            )
            for family in SMALL.seen
        ),
        *(REVERSE, TWICE, JOIN, LIST, COUNT, TAG, REDACT, EXTRACT, RENAME),
        *(VERDICT, KIND, PRIORITY, TRIGGER, AREAS, SCOPE),
        *(FACTS, WELCOME, HANDOFF, CLOSING),
        *LOOKUPS,
        *FRAMED,
    ),
    unseen=(
        WRAP.around("wrapped_pick", (PICK,)),
        WRAP.around("wrapped_verdict", (VERDICT,)),
        WRAP.around("wrapped_label", (SENTIMENT,)),
        FIELD.around("keyed_pick", (PICK,)),
        FIELD.around("keyed_routes", (ROUTES,)),
        OPENING.around("opened_glossary", (GLOSSARY,)),
        *(ROSTER, SHELVES),
    ),
    surround=boilerplate.surround,
    words=SMALL.words + ADDED,
    sentences=(
        *boilerplate.OPENINGS,
        *boilerplate.TONE,
        *boilerplate.DISTRACTORS,
        *boilerplate.CLOSINGS,
    ),
    binding=(*LOOKUPS, *FRAMED, VERDICT, KIND, PRIORITY, TRIGGER, AREAS, SCOPE, HANDOFF),
    # What edge models were worst at after as many steps on all; frames hold many pairs each.
    weights={
        **{family.name: 5 for family in (TOOLS, SCOPE)},
        **{family.name: 3 for family in (*FRAMED, REDACT, HANDOFF, PRIORITY)},
        **{family.name: 2 for family in (REVERSE, JOIN, LIST, RENAME, ROUTES, GLOSSARY)},
    },
)
