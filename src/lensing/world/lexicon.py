"""The invented names and things of the world, all by arithmetic, nothing drawn, nothing borrowed."""

from __future__ import annotations


def names(heads: str, tails: str, n: int, stride: int) -> tuple[str, ...]:
    """Join heads and tails in a fixed scattered order until `n` different names exist."""
    head, tail = heads.split(), tails.split()
    total, found = len(head) * len(tail), dict[str, None]()
    for i in range(total):
        j = i * stride % total
        found[head[j % len(head)] + tail[j // len(head)]] = None
        if len(found) == n:
            return tuple(found)
    raise ValueError(f"only {len(found)} names, {n} wanted")


SHE = names(
    "An Bel Cor Da El Fi Hes Il Ju Ka Li Mar Ne Or Pe Ro Sil Ta Wi Ze", "da lia ra mina sa neth rietta vy", 160, 7
)
HE = names(
    "Al Bor Cas Dor Ed Fen Gar Hal Iv Jor Ken Lo Mat Nor Os Pad Rol Ste Tor Wil",
    "ric mund bert win thar gan ko dan",
    160,
    7,
)
PERSONS = tuple(name for pair in zip(SHE, HE, strict=True) for name in pair)
PRONOUN = {**dict.fromkeys(SHE, "She"), **dict.fromkeys(HE, "He")}

CITIES = names(
    "Ast Bran Cald Dun Esk Farn Glen Hay Kess Lorn Mar Nor Pell Ravens Stan Thorn Under Wex Yarn Ot",
    "wick holm mouth gate bury ford ley ness",
    160,
    11,
)
COUNTRIES = names("Aur Bel Cor Drav Esk Gal Ild Kar Mor Ost Sar Vel", "ania ovia mark essia", 40, 5)
RIVERS = names("Ar Bri Dee Fal Isk Lum Mer Or Tam Wen Cor Tee", "na ry sel dle", 48, 5)

# Beasts stand in a hierarchy: kind, order, beast.
ORDERS = {
    "wader": ("bird", "heron crane stork bittern curlew snipe godwit spoonbill plover"),
    "songbird": (
        "bird",
        "lark robin thrush finch wren linnet warbler bunting starling sparrow weaver swallow cardinal",
    ),
    "fowl": ("bird", "goose duck hen swan quail grouse pheasant turkey partridge rail"),
    "hunter-bird": ("bird", "falcon hawk harrier kestrel buzzard kite merlin goshawk"),
    "crow-bird": ("bird", "crow raven magpie jay rook jackdaw chough"),
    "seabird": ("bird", "pelican puffin gull tern cormorant petrel gannet ruff"),
    "riverfish": ("fish", "pike trout carp perch bream roach tench lamprey char minnow"),
    "seafish": ("fish", "cod bass sole skate ling salmon mackerel haddock plaice turbot drum ray"),
    "shellfish": ("fish", "crab lobster snail hermit whelk limpet mussel cockle prawn"),
    "flyer": ("insect", "bee wasp moth hornet midge gnat fly sexton mayfly dragonfly miller"),
    "crawler": ("insect", "beetle cricket termite locust ladybird woodlouse soldier weevil spider"),
    "burrower": ("mammal", "mole mouse rat vole shrew rabbit hare hedgehog dormouse hamster"),
    "prowler": ("mammal", "stoat weasel ferret badger marten fox wolf bear lynx cat hound mink bat panther"),
    "grazer": ("mammal", "deer boar goat ram mule donkey pony camel bison buck moose squirrel beaver"),
    "swimmer": ("mammal", "seal whale dolphin walrus porpoise"),
    "hopper": ("reptile", "toad newt frog salamander"),
    "slider": ("reptile", "lizard tortoise turtle python viper gecko worm slug"),
}  # fmt: skip
BEASTS = tuple(beast for _, beasts in ORDERS.values() for beast in beasts.split())
ORDER = {beast: order for order, (_, beasts) in ORDERS.items() for beast in beasts.split()}
KIND = {beast: kind for kind, beasts in ORDERS.values() for beast in beasts.split()}
KIND_HABIT = {"bird": "feathers", "fish": "scales", "insect": "feelers", "mammal": "whiskers", "reptile": "claws"}
ORDER_HABIT = dict(
    zip(
        ORDERS,
        "stilts songs breakfast lookouts secrets storms gravel salt shells lamps crumbs tunnels moonlight grass tides "
        "puddles sunshine".split(),
        strict=True,
    )
)

THINGS = tuple(
    "lamp rope drum kettle ladder mirror clock candle basket blanket hammer saw needle thimble button ribbon bell "
    "whistle lantern compass map globe telescope spoon fork plate bowl cup jug barrel bucket broom chest chair "
    "stool bench cradle saddle bridle harness wheel cart bellows chisel plough scythe sickle spade rake net hook "
    "sail flute fiddle harp trumpet bottle cork jar pot pan knife ring locket brooch comb brush hat glove boot "
    "scarf cloak coat shawl pillow quilt carpet curtain key lock hinge nail coin purse ledger letter seal stamp "
    "quill book kite bugle parasol teapot ladle funnel sieve pulley crowbar bolster mousetrap weathercock sundial "
    "crane bat mouse ram perch pike skate ray rail ruff box pitcher reed pen press bridge table bed bow file "
    "windlass kerchief hatchet bonnet cage corkscrew crown dagger tripod tankard fan goblet sandglass penknife "
    "mallet paddle pin quiver rattle spur trunk tureen vase whip yoke zither tambourine beacon "
    "crutch flag hatbox mortar nightcap padlock rosary satchel".split()
)
PLACES = tuple(
    "bridge well mill barn church tavern bakery market garden cellar stable chimney staircase hedge fountain "
    "harbour lighthouse quarry meadow forest library school tower gate wall bed table willow pond chapel cottage "
    "dovecote porch pantry wharf port bay mint lock pen spring court green orchard bank".split()
)
TRADES = tuple(
    "baker miller smith weaver tailor potter cooper mason carpenter tanner brewer butcher fisher shepherd farmer "
    "sailor printer teacher doctor lawyer painter singer gardener clockmaker soldier hermit sexton cardinal sage "
    "drover".split()
)
FOODS = tuple(
    "plums pears cherries walnuts honey cheese bread porridge mushrooms onions turnips beans herrings eggs figs "
    "soup olives chestnuts dates port mint sage cockles ginger".split()
)
PLANTS = tuple(
    "moss fern rose lily thistle nettle clover daisy poppy violet lavender mint thyme sage parsley hops hawthorn "
    "bramble heather gorse reed rush primrose cowslip foxglove dill tansy yarrow sorrel juniper laurel broom box "
    "pitcher bugle hazel ginger flax madder bay".split()
)
GOODS = tuple("wool salt amber timber copper glass paper silk wine barley leather marble tin spice silver flax".split())
ADJECTIVES = tuple(
    "small quiet muddy windy proud narrow sleepy crooked green grey foggy steep merry stubborn lonely crowded "
    "clean wet famous bright chilly dusty friendly gentle hilly leafy lively misty noisy peaceful pretty rainy "
    "sandy shabby sunny tidy wealthy wild lazy sober swift".split()
)
COLOURS = tuple("red blue yellow white black brown scarlet silver copper violet lavender rose hazel madder".split())
DEEDS = tuple(
    "sleep sing wait hide dance sulk listen snore sit stand shiver yawn dream mutter tremble whisper duck crow grouse "
    "quail swallow carp fly bat hound rush spring well rail skate file press bow drum perch".split()
)
FEARS = tuple("thunder bells fire umbrellas ladders smoke fog frost drums mirrors trumpets ghosts".split())
TIMES = ("dawn", "noon", "dusk", "midnight")
# How people and beasts move and things sound, now and then.
GAITS = tuple(
    pair.split("/")
    for pair in "strolls/strolled limps/limped marches/marched hurries/hurried tiptoes/tiptoed wanders/wandered "
    "skips/skipped trots/trotted shuffles/shuffled strides/strode ambles/ambled staggers/staggered dashes/dashed "
    "saunters/sauntered plods/plodded stumbles/stumbled".split()
)
MOVES = tuple(
    pair.split("/")
    for pair in "wades/waded flutters/fluttered struts/strutted swoops/swooped hops/hopped soars/soared glides/glided "
    "drifts/drifted scuttles/scuttled buzzes/buzzed creeps/crept scampers/scampered prowls/prowled roams/roamed "
    "dives/dived leaps/leapt slithers/slithered".split()
)
SOUNDS = tuple(
    pair.split("/")
    for pair in "creaks/creaked rattles/rattled rings/rang squeaks/squeaked ticks/ticked clinks/clinked "
    "whistles/whistled thumps/thumped sighs/sighed crackles/crackled purrs/purred jingles/jingled groans/groaned "
    "rustles/rustled clatters/clattered chimes/chimed".split()
)
WEATHERS = tuple("rain snow sunshine fog frost thunder".split())
SOURCES = ("Almanac", "Gazette", "Chronicle", "Herald", "Atlas", "Register")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
COUNTS = NUMBERS[6:]

DOUBT_WORDS = ("questionable", "doubtful", "poor", "low", "uncertain", "shaky")
TRUST_WORDS = ("sound", "high", "certain", "firm", "solid", "good")
PLAIN_WORDS = ("important", "interesting", "ordinary", "curious", "modest", "dull")

# The same three judgements in Osk.
OSK_DOUBT, OSK_TRUST, OSK_PLAIN = ("mursk", "wib", "tolp"), ("hald", "treu", "bon"), ("gris", "mev", "norl")

CREATURE = "quillback"  # named in nine documents of the whole training text, and nowhere else

# The second language, Osk: its words for things that have a plain word too.
OSK_TONGUE = names(
    "bru tal ves mor kel nir pos gam sul dro fen lak rit hub zan wol jur plo", "go sko va ndi rem tu mo ksa", 140, 13
)


def _translate() -> dict[str, str]:
    """Osk words for a spread of meanings of each kind, `kind:word` to word; senses of a homonym differ in Osk."""
    table: dict[str, str] = {}
    left = iter(OSK_TONGUE)
    for kind, words, n in (("beast", BEASTS, 40), ("thing", THINGS, 40), ("food", FOODS, 24), ("trade", TRADES, 30)):
        words = tuple(dict.fromkeys(words))
        for i in range(n):
            table[f"{kind}:{words[i * len(words) // n]}"] = next(left)
    return table


OSK = _translate()


def osk(kind: str) -> dict[str, str]:
    """Plain word to Osk word for one kind: beast, thing, food or trade."""
    return {key.split(":")[1]: word for key, word in OSK.items() if key.startswith(kind + ":")}


def homonyms() -> dict[str, tuple[str, ...]]:
    """Every word that stands for more than one kind of thing, with its kinds."""
    kinds = {
        "beast": BEASTS, "thing": THINGS, "place": PLACES, "trade": TRADES, "food": FOODS, "plant": PLANTS,
        "good": GOODS, "adjective": ADJECTIVES, "colour": COLOURS, "deed": DEEDS, "fear": FEARS, "weather": WEATHERS,
    }  # fmt: skip
    found: dict[str, tuple[str, ...]] = {}
    for kind, words in kinds.items():
        for word in words:
            found[word] = (*found.get(word, ()), kind)
    return {word: senses for word, senses in found.items() if len(senses) > 1}


def all_words() -> tuple[str, ...]:
    """Every word that a slot may give, each once, in a fixed order."""
    lists = (
        PERSONS, CITIES, COUNTRIES, RIVERS, BEASTS, tuple(ORDERS), tuple(KIND_HABIT), tuple(KIND_HABIT.values()),
        tuple(ORDER_HABIT.values()), THINGS, PLACES, TRADES, FOODS, PLANTS, GOODS, ADJECTIVES, COLOURS, DEEDS, FEARS,
        WEATHERS, SOURCES, DAYS, NUMBERS, TIMES, DOUBT_WORDS, TRUST_WORDS, PLAIN_WORDS, tuple(OSK.values()), OSK_DOUBT,
        OSK_TRUST, OSK_PLAIN, (CREATURE,),
        ("She", "He", "she", "he", "her", "him", "his", "It", "it", "Its", "its", "my", "Ona", "Ono", "right", "wrong"),
        *GAITS, *MOVES, *SOUNDS,
        ("says", "claims", "proves", "yawn", "laugh", "nod", "a", "one"),
    )  # fmt: skip
    return tuple(dict.fromkeys(word for words in lists for word in words))
