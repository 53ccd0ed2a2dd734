"""Words of the task suite.

Each is common, short and written by us, so that the tokenizer gives it one token and the trained
files may be republished. `MARKS` are the words that prompts choose freely (labels, keys, suffixes):
nothing but the prompt says which one an answer holds.
"""

from typing import Final


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES: Final = _split(
    "Ada Bob Cleo Dan Eva Finn Gus Hana Ivo Jane Kai Lena Max Nia Otto Pia Quin Rosa Sam Tess Uma "
    "Vic Wim Zoe"
)
COMPANIES: Final = _split(
    "Acme Borealis Cobalt Ember Fjord Globex Helix Initech Juno Kite Lumen Mango Nimbus Orbit Pico "
    "Vertex"
)
CITIES: Final = _split(
    "Paris Rome Oslo Lima Cairo Delhi Tokyo Berlin Madrid Dublin Vienna Prague Athens Quito Hanoi "
    "Accra"
)
GREETINGS: Final = _split("Ahoy Hello Welcome Greetings Howdy Bonjour Salut Hi")

MARKS: Final = _split(
    "amber coral ivory olive ruby topaz jade onyx pearl silver golden crimson violet indigo maple "
    "cedar birch willow aspen hazel clover fern lotus tulip alpha beta gamma omega sigma kappa "
    "theta zeta comet lunar solar nova meteor zenith tango bravo echo kilo sierra victor zulu "
    "pixel vector cipher happy sad sunny stormy winner loser gold iron copper bronze hot cold "
    "north south east west"
)

CATEGORIES: Final[dict[str, tuple[str, ...]]] = {
    "animals": _split("horse sheep goat duck rabbit fox dog cat"),
    "food": _split("bread cheese apple grape melon onion carrot cake"),
    "furniture": _split("chair desk table shelf sofa bench stool lamp"),
    "clothes": _split("shirt jacket boots scarf hat gloves coat socks"),
    "instruments": _split("guitar drum violin flute piano harp cello horn"),
    "tools": _split("hammer saw drill rope ladder shovel pliers wrench"),
}

ITEMS: Final = tuple(word for members in CATEGORIES.values() for word in members)
COLOURS: Final = _split("red blue green yellow black white")
POSITIVE: Final = _split("great lovely superb excellent perfect brilliant wonderful nice")
NEGATIVE: Final = _split("awful terrible poor horrible useless dreadful ugly broken")
WRAPS: Final = (
    ("[", "]"),
    ("(", ")"),
    ("{", "}"),
    ("*", "*"),
    ("|", "|"),
    ("#", "#"),
    ("/", "/"),
    ("~", "~"),
)
ORDINALS: Final = ("first", "second", "third", "last")
