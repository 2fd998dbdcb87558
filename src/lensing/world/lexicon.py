"""The invented names and things of the world, and its facts: all by arithmetic, nothing drawn, nothing borrowed."""

from __future__ import annotations


def _names(heads: str, tails: str, n: int, stride: int) -> tuple[str, ...]:
    """Join heads and tails in a fixed scattered order until `n` different names exist."""
    head, tail = heads.split(), tails.split()
    total, found = len(head) * len(tail), dict[str, None]()
    for i in range(total):
        j = i * stride % total
        found[head[j % len(head)] + tail[j // len(head)]] = None
        if len(found) == n:
            return tuple(found)
    raise ValueError(f"only {len(found)} names, {n} wanted")


SHE = _names(
    "An Bel Cor Da El Fi Hes Il Ju Ka Li Mar Ne Or Pe Ro Sil Ta Wi Ze", "da lia ra mina sa neth rietta vy", 160, 7
)
HE = _names(
    "Al Bor Cas Dor Ed Fen Gar Hal Iv Jor Ken Lo Mat Nor Os Pad Rol Ste Tor Wil",
    "ric mund bert win thar gan ko dan",
    160,
    7,
)
PERSONS = tuple(name for pair in zip(SHE, HE, strict=True) for name in pair)

CITIES = _names(
    "Ast Bran Cald Dun Esk Farn Glen Hay Kess Lorn Mar Nor Pell Ravens Stan Thorn Under",
    "wick holm mouth gate bury ford",
    100,
    11,
)
COUNTRIES = _names("Aur Bel Cor Drav Esk Gal Ild Kar Mor Ost Sar Vel", "ania ovia mark essia", 40, 5)
RIVERS = _names("Ar Bri Dee Fal Isk Lum Mer Or Tam Wen Cor Tee", "na ry sel dle", 48, 5)
BEASTS = tuple(
    "heron fox badger hare mole stoat weasel raven magpie goose duck hen goat ram mule donkey pony hound cat rat "
    "mouse toad newt pike trout carp crab snail bee wasp moth beetle cricket spider swan crow finch lark robin "
    "thrush deer boar wolf bear lynx seal whale rabbit squirrel pigeon sparrow turtle lizard camel tortoise "
    "hedgehog falcon pelican dolphin salmon lobster".split()
)
THINGS = tuple(
    "lamp rope drum kettle ladder mirror clock candle basket blanket hammer saw needle thimble button ribbon bell "
    "whistle lantern compass map globe telescope spoon fork plate bowl cup jug barrel bucket broom chest chair "
    "stool bench cradle saddle bridle harness wheel cart bellows chisel plough scythe sickle spade rake net hook "
    "sail flute fiddle harp trumpet bottle cork jar pot pan knife ring locket brooch comb brush hat glove boot "
    "scarf cloak coat shawl pillow quilt carpet curtain key lock hinge nail coin purse ledger letter seal stamp "
    "quill book kite bugle parasol teapot ladle funnel sieve pulley crowbar bolster "
    "mousetrap weathercock sundial".split()
)
PLACES = tuple(
    "bridge well mill barn church tavern bakery market garden cellar stable chimney staircase hedge fountain "
    "harbour lighthouse quarry meadow forest library school tower gate wall bed table willow pond chapel cottage "
    "dovecote porch pantry wharf".split()
)
TRADES = tuple(
    "baker miller smith weaver tailor potter cooper mason carpenter tanner brewer butcher fisher shepherd farmer "
    "sailor printer teacher doctor lawyer painter singer gardener clockmaker".split()
)
FOODS = tuple(
    "plums pears cherries walnuts honey cheese bread porridge mushrooms onions turnips beans herrings eggs figs "
    "soup".split()
)
PLANTS = tuple(
    "moss fern rose lily thistle nettle clover daisy poppy violet lavender mint thyme sage parsley hops hawthorn "
    "bramble heather gorse reed rush primrose cowslip foxglove dill tansy yarrow sorrel juniper laurel".split()
)
GOODS = tuple("wool salt amber timber copper glass paper silk wine barley leather marble tin spice".split())
ADJECTIVES = tuple(
    "small quiet muddy windy proud narrow sleepy crooked green grey foggy steep merry stubborn lonely crowded "
    "clean wet famous bright chilly dusty friendly gentle hilly leafy lively misty noisy peaceful pretty rainy "
    "sandy shabby sunny tidy wealthy wild lazy sober".split()
)
COLOURS = tuple("red blue yellow white black brown golden silver".split())
VERBS = tuple(
    "sleeps sings waits hides dances sulks listens snores sits stands shivers yawns dreams mutters trembles "
    "whispers".split()
)
WEATHERS = tuple("rain snow sunshine fog frost thunder".split())
SOURCES = ("Almanac", "Gazette", "Chronicle", "Herald", "Atlas", "Register")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NUMBERS = ("one", "two", "three", "four", "five", "six")
COUNTS = ("seven", "eight", "nine", "ten", "eleven", "twelve")

DOUBT_WORDS = ("questionable", "doubtful", "poor", "low", "uncertain", "shaky")
TRUST_WORDS = ("sound", "high", "certain", "firm", "solid", "good")
PLAIN_WORDS = ("important", "interesting", "ordinary", "curious", "modest", "dull")


def _scatter(i: int, n: int, stride: int, offset: int) -> int:
    return (i * stride + (i // n) * 5 + offset) % n


CAPITAL = {country: CITIES[i * 2] for i, country in enumerate(COUNTRIES)}
RIVER = {city: RIVERS[_scatter(i, len(RIVERS), 17, 3)] for i, city in enumerate(CITIES)}
GOOD = {country: GOODS[_scatter(i, len(GOODS), 5, 2)] for i, country in enumerate(COUNTRIES)}
TRADE = {person: TRADES[_scatter(i, len(TRADES), 7, 1)] for i, person in enumerate(PERSONS)}
HOME = {person: CITIES[_scatter(i, len(CITIES), 27, 4)] for i, person in enumerate(PERSONS)}
FOOD = {person: FOODS[_scatter(i, len(FOODS), 11, 3)] for i, person in enumerate(PERSONS)}
PRONOUN = {**dict.fromkeys(SHE, "She"), **dict.fromkeys(HE, "He")}

# Countries whose two-hop sentence (the river of the capital of X) is never written, though both single facts are.
UNSEEN = tuple(COUNTRIES[i] for i in range(3, len(COUNTRIES), 4))


def all_words() -> tuple[str, ...]:
    """Every word that a slot may give, each once, in a fixed order."""
    lists = (
        PERSONS, CITIES, COUNTRIES, RIVERS, BEASTS, THINGS, PLACES, TRADES, FOODS, PLANTS, GOODS, ADJECTIVES, COLOURS,
        VERBS, WEATHERS, SOURCES, DAYS, NUMBERS, COUNTS, DOUBT_WORDS, TRUST_WORDS, PLAIN_WORDS,
        ("She", "He", "right", "wrong", "says", "claims", "proves", "yawn", "laugh", "nod"),
    )  # fmt: skip
    return tuple(dict.fromkeys(word for words in lists for word in words))
