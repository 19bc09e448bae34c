"""What lives in SynthTrack: 64 categories of things, ten colours, and which pairs training never shows.

A category is either one emoji code point, to be drawn from a colour emoji font and possibly tinted, or (empty glyph)
a plane shape that the renderer draws itself. Its facts are verb phrases in the third person ("barks", "is eaten"), so
that "what barks?", "everything that barks" and "nothing that barks" are all English; its parts are noun phrases that
follow "has".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Category:
    """One kind of thing.

    Attributes:
        name: the noun phrase people say, lower case ("fire engine").
        plural: its plural ("fire engines"); equal to `name` for a plurale tantum ("scissors").
        glyph: one emoji code point, or "" for a shape that is drawn.
        group: "animal", "vehicle", "food", "object" or "shape".
        facts: what is true of it, as verb phrases ("barks"); empty for shapes.
        parts: what it has, as noun phrases ("wings"); may be empty.
        looks: every colour a person might use for the sprite in its own ("natural") colours, so that "the red one"
            is never said beside an untinted apple; empty for shapes, whose own colour is a grey that no name covers.
    """

    name: str
    plural: str
    glyph: str
    group: str
    facts: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    looks: tuple[str, ...] = ()


def _category(name: str, glyph: str, group: str, looks: str, facts: str, parts: str, plural: str = "") -> Category:
    """A category from facts and parts with commas between them; the plural is regular unless given."""
    listed = [tuple(item.strip() for item in text.split(",") if item.strip()) for text in (facts, parts)]
    return Category(name, plural or f"{name}s", glyph, group, listed[0], listed[1], tuple(looks.split()))


def _animal(name: str, glyph: str, looks: str, facts: str, parts: str, plural: str = "") -> Category:
    return _category(name, glyph, "animal", looks, f"{facts}, is an animal", parts, plural)


def _vehicle(name: str, glyph: str, looks: str, facts: str, parts: str, plural: str = "") -> Category:
    return _category(name, glyph, "vehicle", looks, f"{facts}, is a vehicle", parts, plural)


def _food(name: str, glyph: str, looks: str, facts: str, parts: str, plural: str = "") -> Category:
    return _category(name, glyph, "food", looks, f"{facts}, is eaten", parts, plural)


def _object(name: str, glyph: str, looks: str, facts: str, parts: str, plural: str = "") -> Category:
    return _category(name, glyph, "object", looks, facts, parts, plural)


def _shape(name: str, plural: str = "") -> Category:
    return _category(name, "", "shape", "", "", "", plural)


CATEGORIES: tuple[Category, ...] = (
    _animal("dog", "\U0001f415", "white brown pink orange", "barks, is a pet", "four legs"),
    _animal("cat", "\U0001f408", "yellow orange", "meows, is a pet", "four legs"),
    _animal("cow", "\U0001f404", "white black", "gives milk, lives on a farm", "four legs, horns"),
    _animal("pig", "\U0001f416", "pink orange", "rolls in mud, lives on a farm", "four legs"),
    _animal("zebra", "\U0001f993", "white black", "looks like a horse, lives in africa", "four legs, a mane, stripes"),
    _animal(
        "elephant", "\U0001f418", "white", "is the largest land animal, lives in africa", "four legs, a trunk, tusks"
    ),
    _animal("lion", "\U0001f981", "brown yellow orange", "roars, lives in africa", "four legs, a mane"),
    _animal("rabbit", "\U0001f407", "white", "eats carrots, hops, is a pet", "four legs, long ears"),
    _animal("turtle", "\U0001f422", "green", "carries its home, swims", "four legs, a shell"),
    _animal("whale", "\U0001f433", "blue", "sprays water, lives in the sea, swims", "fins"),
    _animal("penguin", "\U0001f427", "black white", "lives on ice, is a bird, swims", "a beak, wings, feathers"),
    _animal("owl", "\U0001f989", "brown", "is awake at night, is a bird, flies", "a beak, wings, feathers"),
    _animal("eagle", "\U0001f985", "brown", "hunts from the sky, is a bird, flies", "a beak, wings, feathers"),
    _animal("bee", "\U0001f41d", "yellow black", "makes honey, is an insect, flies", "wings, stripes, a sting"),
    _animal(
        "butterfly", "\U0001f98b", "orange black", "was a caterpillar, is an insect, flies", "wings", "butterflies"
    ),
    _animal("frog", "\U0001f438", "green", "croaks, hops, swims", "four legs, a sticky tongue"),
    _animal("octopus", "\U0001f419", "pink red", "squirts ink, lives in the sea, swims", "eight arms", "octopuses"),
    _animal("crab", "\U0001f980", "orange red", "walks sideways, lives in the sea", "pincers, a shell"),
    _vehicle("car", "\U0001f697", "red", "parks in a garage", "wheels"),
    _vehicle("bus", "\U0001f68c", "white blue", "takes children to school, carries many passengers", "wheels", "buses"),
    _vehicle("fire engine", "\U0001f692", "red", "puts out fires, answers emergencies", "wheels, a ladder, a siren"),
    _vehicle(
        "ambulance", "\U0001f691", "white red", "takes the sick to hospital, answers emergencies", "wheels, a siren"
    ),
    _vehicle("tractor", "\U0001f69c", "green orange", "works in the fields", "wheels"),
    _vehicle("bicycle", "\U0001f6b2", "blue green", "is pedalled, rolls on two wheels", "wheels, pedals, a saddle"),
    _vehicle("motorcycle", "\U0001f3cd", "red", "is ridden by a biker, rolls on two wheels", "wheels, a saddle"),
    _vehicle("airplane", "\u2708", "blue white", "lands at the airport, carries many passengers, flies", "wings"),
    _vehicle("helicopter", "\U0001f681", "yellow", "spins its blades, flies", "a rotor"),
    _vehicle("rocket", "\U0001f680", "red blue", "goes to space, flies", "fins"),
    _vehicle("sailboat", "\u26f5", "orange red white", "is pushed by the wind", "sails"),
    _vehicle("train", "\U0001f682", "red green black", "runs on rails, carries many passengers", "wheels, a chimney"),
    _food("apple", "\U0001f34e", "red orange", "keeps the doctor away, is a fruit", "a leaf"),
    _food("banana", "\U0001f34c", "yellow white", "is loved by monkeys, is a fruit", "a peel"),
    _food("watermelon", "\U0001f349", "red pink green", "is mostly water, is a fruit", "black seeds"),
    _food("pineapple", "\U0001f34d", "yellow green", "is spiky, is a fruit", "a crown"),
    _food("pizza", "\U0001f355", "orange yellow red", "comes from italy, is fast food", "cheese, a crust"),
    _food("hamburger", "\U0001f354", "orange yellow brown", "holds meat, is fast food", "cheese, a bun"),
    _food("ice cream", "\U0001f366", "orange white yellow", "melts, is a dessert", "a cone"),
    _food("cake", "\U0001f382", "white orange pink", "celebrates a birthday, is a dessert, is for a party", "candles"),
    _food("carrot", "\U0001f955", "orange green", "grows under the ground", "a root"),
    _food("mushroom", "\U0001f344", "red orange white", "grows in the forest", "a cap"),
    _object("guitar", "\U0001f3b8", "red", "is strummed, makes music", "strings"),
    _object("drum", "\U0001f941", "red white", "is hit with sticks, makes music", ""),
    _object("clock", "\u23f0", "red white", "tells the time, wakes you up", "hands, bells"),
    _object("key", "\U0001f511", "yellow", "opens a lock, starts a car", ""),
    _object("umbrella", "\u2602", "blue purple", "keeps the rain off, gives shade", "a handle"),
    _object("soccer ball", "\u26bd", "white black", "is kicked, is for sport", ""),
    _object("basketball", "\U0001f3c0", "orange", "goes through a hoop, is for sport", ""),
    _object("hammer", "\U0001f528", "brown blue", "hits nails, is a tool", "a handle"),
    _object("scissors", "\u2702", "red blue", "cuts paper, is a tool", "sharp edges", "scissors"),
    _object("camera", "\U0001f4f7", "black white", "takes pictures, makes a movie", "a lens"),
    _object("light bulb", "\U0001f4a1", "yellow", "gives light, breaks easily", ""),
    _object("book", "\U0001f4d6", "white red", "is read, tells a story", "pages"),
    _object("cup", "\u2615", "white brown", "holds a hot drink, breaks easily", "a handle"),
    _object("balloon", "\U0001f388", "red", "pops, is for a party", ""),
    _shape("circle"),
    _shape("square"),
    _shape("triangle"),
    _shape("star"),
    _shape("heart"),
    _shape("diamond"),
    _shape("hexagon"),
    _shape("cross", "crosses"),
    _shape("ring"),
    _shape("arrow"),
)

BY_NAME: dict[str, Category] = {category.name: category for category in CATEGORIES}

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 30, 38),
    "orange": (255, 134, 20),
    "yellow": (250, 220, 40),
    "green": (40, 160, 60),
    "blue": (36, 90, 220),
    "purple": (128, 44, 168),
    "pink": (255, 130, 190),
    "brown": (120, 74, 36),
    "white": (245, 245, 245),
    "black": (26, 26, 28),
}


def _held_out_pairs() -> frozenset[tuple[str, str]]:
    """One colour for four categories of every five, walked so that every colour loses about as many categories."""
    colours = list(COLOURS)
    kept_whole = 5  # every fifth category keeps all its colours: 52 of 640 pairs, 8 %
    return frozenset(
        (category.name, colours[(7 * index + index // 10) % len(colours)])
        for index, category in enumerate(CATEGORIES)
        if index % kept_whole != kept_whole - 1
    )


HELD_OUT_PAIRS: frozenset[tuple[str, str]] = _held_out_pairs()

FACTS: tuple[str, ...] = tuple(sorted({fact for category in CATEGORIES for fact in category.facts}))
PARTS: tuple[str, ...] = tuple(sorted({part for category in CATEGORIES for part in category.parts}))

# Facts whose questions training hears in three wordings only (0 to 2): about one in seven.
THIN_FACTS: frozenset[str] = frozenset(FACTS[3::7])

# How people ask for each fact without naming the thing. Wording 0 is "what <fact>?"; these are wordings 1 to 5.
# The last one is kept for tests, so its words must all be met in other questions.
# fmt: off
_PARAPHRASES: dict[str, tuple[str, str, str, str, str]] = {
    "is an animal": (
        "which of these is an animal?", "what here is alive?", "track the living thing", "what can breathe?",
        "which one is a living animal?"),
    "is a vehicle": (
        "which of these is a vehicle?", "what could you travel with?", "track the thing that takes people to places",
        "what was built to carry people?", "which vehicle could you travel with?"),
    "is eaten": (
        "which of these is food?", "i am hungry, what could i eat?", "track the food", "what belongs on a plate?",
        "what food could you eat?"),
    "flies": (
        "which one can fly?", "what could leave the ground and fly?", "track the one that could fly",
        "what could fly above the ground?", "what could fly through the air?"),
    "swims": (
        "which animal is a good swimmer?", "who can swim?", "track the animal that swims", "who would enjoy a pool?",
        "which animal can swim?"),
    "is a fruit": (
        "which food is a fruit?", "what grows on a plant and tastes sweet?", "track the fruit",
        "what would you put in a fruit salad?", "which of these is a fruit?"),
    "is a pet": (
        "which animal is a pet?", "who lives with a family at home?", "track the pet",
        "which animal do people keep at home?", "which pet lives at home?"),
    "lives in africa": (
        "which animal lives in africa?", "who could you meet on a safari?", "track the animal from africa",
        "which wild animal comes from hot africa?", "which animal comes from africa?"),
    "lives in the sea": (
        "which animal lives in the sea?", "who has a home in the ocean?", "track the sea animal",
        "which animal would a diver meet?", "which animal has a home in the sea?"),
    "is a bird": (
        "which animal is a bird?", "who builds a nest and lays eggs?", "track the bird",
        "who is covered with feathers?", "which of these is a bird?"),
    "carries many passengers": (
        "which vehicle carries many passengers?", "what do you need a ticket for?", "track what carries many people",
        "what would a hundred people travel with?", "what carries many people?"),
    "lives on a farm": (
        "which animal lives on a farm?", "who does a farmer keep?", "track the farm animal",
        "which animal is happy on a farm?", "which animal does a farmer keep?"),
    "hops": (
        "which animal hops?", "who moves by jumping?", "track the animal that hops", "who jumps with strong legs?",
        "which animal moves by jumping?"),
    "is an insect": (
        "which animal is an insect?", "who has six legs?", "track the insect", "who sits on flowers?",
        "which of these is an insect?"),
    "answers emergencies": (
        "who comes when you call for help?", "which vehicle has a loud siren?", "track what comes in an emergency",
        "who drives past with flashing lights?", "which vehicle comes in an emergency?"),
    "rolls on two wheels": (
        "which vehicle rolls on two wheels?", "what falls over without a rider?", "track the vehicle with two wheels",
        "what has two wheels and a rider?", "which vehicle has two wheels?"),
    "is fast food": (
        "which of these is fast food?", "what is not a healthy meal?", "track the fast food",
        "what would you order for a quick meal?", "what fast food could you order?"),
    "is a dessert": (
        "which food is a dessert?", "what comes at the end of a meal?", "track the dessert",
        "what tastes sweet at the end of a meal?", "what would you order for dessert?"),
    "is for a party": (
        "which of these is for a party?", "what do you bring to a party?", "track the thing for a party",
        "what do children want at a birthday?", "what would you want at a party?"),
    "makes music": (
        "which of these makes music?", "what can you play in a band?", "track the instrument",
        "what does a musician need?", "which instrument makes music?"),
    "is for sport": (
        "which of these is for sport?", "what does a team play with?", "track the ball", "what do you need to score?",
        "which ball is for sport?"),
    "is a tool": (
        "which of these is a tool?", "what helps you to make things?", "track the tool",
        "what would you find in a tool box?", "which tool helps you to make things?"),
    "breaks easily": (
        "which of these breaks easily?", "what must not fall on the floor?", "track the thing that breaks",
        "what could break if it falls?", "what breaks if it falls on the floor?"),
    "barks": (
        "which animal barks?", "who guards the house?", "track the animal that barks",
        "who likes to run after a stick?", "who barks and guards the house?"),
    "meows": (
        "which animal meows?", "who hunts mice in the house?", "track the animal that meows",
        "which animal hunts mice in the house?", "who hunts mice at home?"),
    "gives milk": (
        "which animal gives milk?", "where does milk come from?", "track the animal that gives milk",
        "who eats grass and says moo?", "who gives us milk?"),
    "rolls in mud": (
        "which animal rolls in mud?", "who is happy in the mud?", "track the animal that rolls in mud",
        "who says oink?", "which animal is happy in the mud?"),
    "looks like a horse": (
        "which animal looks like a horse?", "who is a horse with stripes?", "track the animal that looks like a horse",
        "which striped animal runs from lions?", "which animal is like a horse with stripes?"),
    "is the largest land animal": (
        "which one is the largest land animal?", "who is heavy and has a long nose?", "track the largest land animal",
        "who drinks with a long nose?", "who has a long nose?"),
    "roars": (
        "which animal roars?", "who is the king of the animals?", "track the animal that roars",
        "which big cat is wild and dangerous?", "which animal is a king?"),
    "eats carrots": (
        "which animal eats carrots?", "who likes carrots best?", "track the animal that eats carrots",
        "who brings eggs at easter?", "which animal likes carrots?"),
    "carries its home": (
        "which animal carries its home?", "who is slow and hides in its shell?",
        "track the animal that carries its home", "who is slow and carries a house?",
        "which slow animal hides in its house?"),
    "sprays water": (
        "which animal sprays water?", "who is the largest animal of the ocean?", "track the animal that sprays water",
        "who blows water into the air?", "which animal blows water into the air?"),
    "lives on ice": (
        "which animal lives on ice?", "who does not mind the cold?", "track the animal that lives on ice",
        "which bird cannot fly?", "who lives in the cold on ice?"),
    "is awake at night": (
        "which animal is awake at night?", "who sleeps during the day?", "track the animal that is awake at night",
        "which bird hunts in the dark?", "which bird sleeps during the day?"),
    "hunts from the sky": (
        "which animal hunts from the sky?", "who circles above the mountains?",
        "track the animal that hunts from the sky", "which bird is a strong hunter?",
        "which hunter circles above the ground?"),
    "makes honey": (
        "which animal makes honey?", "where does honey come from?", "track the animal that makes honey",
        "who works in a hive?", "who makes honey for us?"),
    "was a caterpillar": (
        "which animal was once a caterpillar?", "what does a caterpillar become?", "track what was once a caterpillar",
        "which insect was once a caterpillar?", "what has a caterpillar become?"),
    "croaks": (
        "which animal croaks?", "who was a prince in the tale?", "track the animal that croaks",
        "who catches flies with a long tongue?", "which animal has a long tongue?"),
    "squirts ink": (
        "which animal squirts ink?", "who hides in a cloud of ink?", "track the animal that squirts ink",
        "who could shake eight hands at once?", "which animal hides in ink?"),
    "walks sideways": (
        "which animal walks sideways?", "who could pinch your toe on the beach?",
        "track the animal that walks sideways", "who moves sideways on the beach?",
        "which animal could pinch your toe?"),
    "parks in a garage": (
        "which vehicle parks in a garage?", "what does a family drive?", "track the vehicle that parks in a garage",
        "what would you drive to the shop?", "which vehicle does a family drive?"),
    "takes children to school": (
        "which vehicle takes children to school?", "what do you wait for at a stop?",
        "track the vehicle that takes children to school", "what do children ride to school?",
        "what takes us to school?"),
    "puts out fires": (
        "which vehicle puts out fires?", "what would a firefighter arrive in?",
        "track the vehicle that puts out fires", "what should come when a house burns?",
        "which vehicle does a firefighter drive?"),
    "takes the sick to hospital": (
        "which vehicle takes the sick to hospital?", "what would a doctor arrive in?",
        "track the vehicle that takes the sick to hospital", "what should come when someone is hurt?",
        "which vehicle goes to the hospital?"),
    "works in the fields": (
        "which vehicle works in the fields?", "what would a farmer drive?",
        "track the vehicle that works in the fields", "what pulls a plough?", "which vehicle does a farmer drive?"),
    "is pedalled": (
        "which vehicle is pedalled?", "what do you move with your own legs?",
        "track the vehicle that needs no engine but legs", "what do you ride to stay healthy?",
        "which vehicle do you move with your legs?"),
    "is ridden by a biker": (
        "which vehicle is ridden by a biker?", "what would a biker in leather ride?",
        "track the vehicle that is ridden by a biker", "what has two wheels and a loud engine?",
        "what would a biker ride?"),
    "lands at the airport": (
        "which vehicle lands at the airport?", "what does a pilot fly to another country?",
        "track the vehicle that lands at the airport", "what would you take to cross the ocean quickly?",
        "what would you take from the airport?"),
    "spins its blades": (
        "which vehicle spins its blades?", "what can stay still in the air and land on a roof?",
        "track the vehicle that spins its blades", "what flies straight up with blades?",
        "which vehicle can land on a roof?"),
    "goes to space": (
        "which vehicle goes to space?", "what would an astronaut travel in?", "track the vehicle that goes to space",
        "what could take us to the moon?", "what takes an astronaut to the moon?"),
    "is pushed by the wind": (
        "which vehicle is pushed by the wind?", "what would a sailor travel in?",
        "track the vehicle that is pushed by the wind", "what floats on the water and needs wind?",
        "which vehicle does a sailor need?"),
    "runs on rails": (
        "which vehicle runs on rails?", "what stops at a station?", "track the vehicle that runs on rails",
        "what pulls wagons with steam?", "which vehicle stops at a station?"),
    "keeps the doctor away": (
        "which food keeps the doctor away?", "what fell on the head of newton?",
        "track the food that keeps the doctor away", "what fruit do you give to a teacher?",
        "what do you eat to keep the doctor away?"),
    "is loved by monkeys": (
        "which food is loved by monkeys?", "what would a monkey eat?", "track the food that is loved by monkeys",
        "which long fruit do monkeys eat?", "what does a monkey want?"),
    "is mostly water": (
        "which food is mostly water?", "which fruit is big and heavy and full of seeds?",
        "track the food that is mostly water", "which fruit is cut for a hot summer day?",
        "which fruit is full of water?"),
    "is spiky": (
        "which food is spiky?", "which fruit has a spiky skin?", "track the spiky food",
        "which fruit has leaves on top of its head?", "which fruit is spiky on top?"),
    "comes from italy": (
        "which food comes from italy?", "what is baked with cheese in a hot oven?",
        "track the food that comes from italy", "what arrives in a flat box?", "which food is baked in an oven?"),
    "holds meat": (
        "which food holds meat?", "what is eaten with fries?", "track the food that holds meat",
        "what has meat inside bread?", "what holds meat inside?"),
    "melts": (
        "which food melts?", "what must be eaten quickly on a hot day?", "track the food that melts",
        "which dessert is very cold?", "what melts on a hot day?"),
    "celebrates a birthday": (
        "which food celebrates a birthday?", "where do you blow out candles?",
        "track the food that celebrates a birthday", "what shows how old you are?",
        "what food do you want at a birthday?"),
    "grows under the ground": (
        "which food grows under the ground?", "what would a rabbit eat?", "track the food that grows under the ground",
        "which food hides under the ground?", "what is the food of a rabbit?"),
    "grows in the forest": (
        "which food grows in the forest?", "what grows in the forest after rain?",
        "track the food that grows in the forest", "what may be poison in the forest?",
        "which food grows after rain?"),
    "is strummed": (
        "which instrument is strummed?", "what does a rock star play?", "track the instrument that is strummed",
        "what has six strings in a band?", "which instrument does a rock star play?"),
    "is hit with sticks": (
        "what do you hit with sticks?", "what keeps the beat in a band?",
        "track the instrument that is hit with sticks", "what makes music when you hit it?",
        "which instrument keeps the beat?"),
    "tells the time": (
        "what could tell you the time?", "what do you look at when you are late?", "track what tells the time",
        "what counts the hours?", "what do you look at for the time?"),
    "wakes you up": (
        "what rings in the morning?", "what ends your sleep?", "track what wakes you up",
        "who is loud at seven in the morning?", "what wakes you in the morning?"),
    "opens a lock": (
        "what could open a lock?", "what do you need to open the door?", "track what opens a lock",
        "what should you not lose when you leave the house?", "what opens the door?"),
    "starts a car": (
        "what could start a car?", "what turns on an engine?", "track what starts a car",
        "what do you turn before you drive?", "what do you need to start an engine?"),
    "keeps the rain off": (
        "what keeps you dry?", "what do you need when it rains?", "track what keeps the rain off",
        "what do you open under dark clouds?", "what keeps you dry in the rain?"),
    "gives shade": (
        "what could give you shade?", "what protects you from the sun?", "track what gives shade",
        "what helps when the sun is too hot?", "what do you need when the sun is hot?"),
    "is kicked": (
        "what could you kick?", "what goes into a goal?", "track what is kicked", "what do you play with your feet?",
        "what do you kick into a goal?"),
    "goes through a hoop": (
        "what could go through a hoop?", "what would a very tall player throw?", "track what goes through a hoop",
        "what do you bounce and throw?", "what do you throw through a hoop?"),
    "hits nails": (
        "what could hit a nail?", "what do you need to hang a picture?", "track what hits nails",
        "what would a builder hold?", "what would a builder hit a nail with?"),
    "cuts paper": (
        "what could cut paper?", "what cuts your hair?", "track what cuts paper",
        "what loses to a rock but wins over paper?", "what do you need to cut paper?"),
    "takes pictures": (
        "what could take a picture?", "what do tourists carry around the neck?", "track what takes pictures",
        "what do you smile at?", "what do you need to take a picture?"),
    "makes a movie": (
        "what could make a movie?", "what can record a video?", "track what makes a movie",
        "what would a movie star stand in front of?", "what could record a movie?"),
    "gives light": (
        "what could give you light?", "what do you switch on in the dark?", "track what gives light",
        "what stands for a bright idea?", "what gives light in the dark?"),
    "is read": (
        "what could you read?", "what do you borrow from a library?", "track what is read",
        "what would a student open at school?", "what do you read at school?"),
    "tells a story": (
        "what could tell you a story?", "what did an author write?", "track what tells a story",
        "what has words on every page?", "what story did an author write?"),
    "holds a hot drink": (
        "what holds coffee or tea?", "what could you drink from?", "track what holds a hot drink",
        "what should be filled with coffee?", "what do you drink coffee from?"),
    "pops": (
        "what could pop?", "what is full of air and hangs on a string?", "track what pops",
        "what would burst on a needle?", "what hangs on a string?"),
}
# fmt: on

FACT_QUESTIONS: dict[str, tuple[str, ...]] = {
    fact: (f"what {fact}?", *paraphrases) for fact, paraphrases in _PARAPHRASES.items()
}
