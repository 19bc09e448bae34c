"""Which classes of a detector a noun may mean: a table of English nouns, ours, and how to look in it.

A noun and a class name are first brought to one form (`singular`). Then the nearest of these holds: they are the same
or synonyms ("motorbike", "motorcycle"); the noun is a kind of the class (a swan is a bird); the class is a kind of the
noun (a dog is an animal). Where none holds, some nouns have stand-ins: classes that look alike, as which a detector
without a class of its own reports such a thing (a camel: "horse"). A stand-in is a guess, and is to be said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import numpy as np

How = Literal["same", "kind", "member", "close", "stand-in"]
Embed: TypeAlias = Callable[[list[str]], np.ndarray]
"""Texts to vectors, float (texts, channels), as a sentence embedder gives them."""

MIN_COSINE = 0.6
LONGEST_NOUN = 3  # words: "hair dryer", "wooden kitchen table"
_LONGEST_WORD = 24  # letters; longer ones are not looked up as misspelt

# The same thing by other names; the first is the one that the other tables use.
_SAME = """
person: people, human, human being, folk, individual
man: guy, gentleman, male, bloke, dude, fellow, fella
woman: lady, female, gal
child: kid, toddler, youngster
bicycle: cycle, push bike, pushbike, bmx, mountain bike
motorcycle: motorbike, motor bike, motor cycle, dirt bike, minibike, moto
car: automobile, auto, motorcar
airplane: aeroplane, plane, aircraft, jet plane, airliner
bus: coach, autobus, omnibus
train: railway train, railcar
truck: lorry, pickup, pickup truck, pick up truck
boat: vessel, watercraft
traffic light: signal, traffic signal, stoplight, stop light, street signal
fire hydrant: hydrant, fireplug
parking meter: meter
rabbit: bunny, bunny rabbit, hare
dog: doggy, doggie, canine, hound, pooch
cat: kitty, feline, pussycat
cow: cattle
sheep: lamb, ewe, ram
bear: grizzly
backpack: rucksack, knapsack, back pack
handbag: purse, hand bag, ladies bag
tie: necktie
suitcase: luggage, baggage, trolley case
frisbee: flying disc, freebie, disc, disk
skis: ski
skateboard: skate board, longboard
surfboard: surf board, wave board, boogie board
snowboard: snow board
sports ball: ball
kite: power kite
baseball bat: bat
baseball glove: baseball mitt, mitt
tennis racket: racket, racquet, tennis racquet
wine glass: wineglass, goblet
cup: mug
donut: doughnut
hot dog: hotdog
couch: sofa, settee, loveseat
potted plant: pot plant, houseplant, house plant
dining table: table, dinner table, kitchen table, coffee table
tv: television, monitor, screen, television set, tv set, tvmonitor
laptop: notebook, laptop computer, macbook
remote: remote control, remote controller
cell phone: phone, mobile, mobile phone, smartphone, cellphone, telephone, iphone, handset
microwave: microwave oven
oven: stove, cooker
sink: basin, wash basin, washbasin, wash hand basin, washhand basin
toilet: toilet bowl, toilet seat, water closet
refrigerator: fridge, freezer, icebox
teddy bear: teddy, stuffed bear, stuffed animal, plush bear, plush toy, stuffed toy
hair drier: hair dryer, hairdryer, blow dryer
toothbrush: tooth brush
vase: jar, urn
scissors: scissor
clock: wall clock, alarm clock
umbrella: parasol
orange: orange fruit, tangerine, mandarin
helicopter: chopper
kangaroo: wallaby
hedgehog: porcupine
bicyclist: cyclist, bicycle rider, bike rider, biker
motorcyclist: motorcycle rider, motorbike rider, motorcycle driver
bread: loaf
box: carton, cardboard box, package, parcel, container, crate
parachute: paraglider, paragliding, glider
"""

# A kind, and what belongs to it.
_KINDS = """
animal: mammal, bird, fish, reptile, insect, amphibian, creature, pet, beast
mammal: dog, cat, horse, sheep, cow, elephant, bear, zebra, giraffe, goat, pig, camel, deer, rabbit, monkey, kangaroo
mammal: lion, tiger, leopard, cheetah, fox, wolf, seal, whale, dolphin, hippo, rhino, squirrel, raccoon, donkey
mammal: hedgehog, otter, beaver, badger, hamster, rat, koala, sloth, llama, buffalo, mole, weasel, ferret, hyena
mammal: antelope
pet: dog, cat, bird, rabbit, hamster
livestock: cow, sheep, horse, goat, pig
reptile: lizard, snake, turtle, crocodile, chameleon
lizard: gecko, iguana, chameleon, komodo dragon
turtle: tortoise, sea turtle
crocodile: alligator
snake: python, cobra, viper
amphibian: frog, toad, salamander
insect: butterfly, bee, spider, ant, beetle, bug, dragonfly, moth, caterpillar, fly insect, wasp, worm, snail
fish: goldfish, gold fish, shark, salmon, clownfish, eel, ray, jellyfish, carp, koi, tuna
bird: duck, swan, goose, chicken, hen, rooster, owl, eagle, hawk, falcon, parrot, cockatoo, parakeet, lovebird, pigeon
bird: dove, seagull, gull, crow, raven, sparrow, robin, penguin, flamingo, peacock, ostrich, turkey, stork, heron
bird: crane, pelican, woodpecker, canary, cockatiel, duckling, vulture, hummingbird, ibis, chick, songbird, magpie
bird: kingfisher, macaw, emu, drake, waterfowl
cow: bull, calf, ox, bullock, steer, heifer
horse: pony, foal, mare, stallion, colt, racehorse, bronco
elephant: elephant calf, mammoth
bear: polar bear, grizzly bear, panda, giant panda, panda bear, bear cub
dog: puppy, pup, poodle, labrador, lab, retriever, shepherd dog, terrier, bulldog, husky, corgi, beagle, dachshund
dog: collie, sheepdog, dalmatian, german shepherd, chihuahua, greyhound, spaniel, rottweiler
cat: kitten, tabby, tomcat
person: man, woman, child, adult, baby, rider, player, athlete, worker, passenger, pedestrian, driver, crowd member
person: elder, teenager, teen, youth, performer, someone, somebody, winner, twin, friend, partner, buddy, runner up
man: boy, father, dad, son, grandfather, king, groom, husband, brother, cowboy, businessman, policeman, fireman
man: conductor
woman: girl, mother, mom, mum, daughter, grandmother, queen, bride, wife, sister, cowgirl, businesswoman, policewoman
child: boy, girl, infant, schoolboy, schoolgirl
baby: infant, newborn
rider: jockey, bicyclist, motorcyclist, skater, skateboarder, surfer, skier, snowboarder, horse rider, racer
player: batter, catcher, pitcher, umpire, referee, goalkeeper, goalie, baseball player, soccer player, football player
player: tennis player, basketball player, hitter, teammate, opponent, team member, golfer, footballer, outfielder
athlete: runner, jogger, swimmer, diver, gymnast, wrestler, boxer, fighter, judoka, jumper, skydiver, sky diver
athlete: climber, paddler, rower, dancer, breakdancer, break dancer, acrobat, paraglider pilot, hiker, walker
athlete: scuba diver
worker: chef, cook, waiter, waitress, farmer, doctor, nurse, soldier, police officer, officer, cop, firefighter, pilot
worker: teacher, mechanic, engineer, builder, salesman, vendor, guard, judge, cleaner, conductor, groomer, zookeeper
performer: singer, musician, guitarist, actor, actress, model, magician, clown, drummer, dj, violinist
pedestrian: passer by, passerby, spectator, onlooker, bystander, shopper, tourist, visitor, customer, student
pedestrian: audience
vehicle: car, truck, bus, train, motorcycle, bicycle, boat, airplane, van, tractor, scooter, carriage, cart
vehicle: helicopter, tram, wagon, tank vehicle, ambulance, spaceship, trailer, camper, machine
bike: bicycle, motorcycle
bicycle: tricycle, unicycle, tandem, racing bike, road bike, bmx bike
motorcycle: scooter, moped, vespa, harley, motocross bike, sport bike, quad bike
car: sedan, taxi, cab, suv, jeep, limousine, limo, sports car, race car, racing car, hatchback, convertible, minivan
car: station wagon, police car, coupe, buggy, rally car, soapbox, drift car, supercar, van
truck: fire truck, fire engine, tow truck, dump truck, garbage truck, tanker, semi, cement mixer, trailer truck
bus: school bus, minibus, double decker, shuttle
train: locomotive, tram, subway train, engine, metro, railway carriage
boat: ship, canoe, kayak, sailboat, yacht, ferry, raft, rowboat, speedboat, dinghy, gondola, motorboat, barge, tugboat
airplane: jet, fighter jet, fighter plane, biplane, seaplane, jetliner, glider plane
furniture: chair, couch, bed, dining table, bench, desk, cabinet, shelf, wardrobe, dresser, armchair, stool
chair: armchair, stool, seat, recliner, rocking chair, high chair, office chair, wheelchair, swivel chair, rocker
bench: park bench, pew
bed: bunk, crib, cot, bunk bed, mattress
dining table: desk, counter, countertop, picnic table, work table
appliance: microwave, oven, toaster, refrigerator, dishwasher, washing machine, blender, tv, hair drier
electronics: tv, laptop, mouse, remote, keyboard, cell phone, computer, camera, tablet
computer: laptop, tv, keyboard, desktop computer, pc
food: banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, bread, meat, soup, salad, egg
food: cheese, dessert, rice, snack, meal, dish of food, pasta, noodle, treat
fruit: banana, apple, orange, pear, grape, melon, lemon, peach, strawberry, pineapple, watermelon, cherry, mango
vegetable: broccoli, carrot, tomato, potato, onion, lettuce, cabbage, cucumber, pepper, corn, celery
sandwich: burger, hamburger, cheeseburger, sub, toast, wrap, panini, bagel, burrito
cake: cupcake, pie, pastry, muffin, birthday cake, cheesecake, brownie
pizza: pizza slice
donut: doughnut hole
bag: backpack, handbag, suitcase, shopping bag, plastic bag, duffel bag, briefcase, satchel, sack
handbag: shoulder bag, tote, tote bag
suitcase: briefcase
tableware: bottle, wine glass, cup, fork, knife, spoon, bowl, plate, dish, saucer
cutlery: fork, knife, spoon
utensil: fork, knife, spoon, spatula
bottle: water bottle, wine bottle, beer bottle, beer, jug, flask, milk bottle
cup: wine glass, teacup, coffee cup, tumbler, coffee
wine glass: wine, champagne glass
bowl: soup bowl
knife: switch blade, switchblade, dagger, pocket knife, blade
glass: wine glass, cup, bottle, vase
sports ball: baseball, football, soccer ball, basketball, tennis ball, volleyball, golf ball, rugby ball, beach ball
sports equipment: frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard
sports equipment: tennis racket, bow, golf club
board: surfboard, skateboard, snowboard, paddle board, paddleboard, kiteboard, bodyboard, wakeboard
surfboard: paddle board, paddleboard, kiteboard, bodyboard, wakeboard
plant: potted plant, tree, flower, bush, shrub, cactus, bamboo
toy: teddy bear, kite, frisbee, doll, toy car
book: magazine, textbook, novel, comic, menu
clock: watch, wristwatch, wrist watch
sign: stop sign, road sign, street sign
tool: scissors, knife, hammer, shovel, hair drier, toothbrush, brush
"""

# Classes as which a detector without the class of its own reports such a thing, likeliest first.
_LOOKS = """
camel: horse, cow, giraffe, sheep, elephant
llama: sheep, horse, giraffe, cow
alpaca: sheep, horse, giraffe
goat: sheep, cow, dog, horse
pig: sheep, cow, dog, bear
piglet: sheep, dog, cow, cat
hog: cow, sheep, dog, bear
boar: bear, cow, sheep, dog
donkey: horse, cow, zebra
mule: horse, cow
deer: horse, cow, sheep, giraffe, dog
elk: horse, cow, sheep
moose: horse, cow, bear
antelope: horse, cow, sheep, giraffe
gazelle: horse, cow, sheep, giraffe
reindeer: horse, cow, sheep
buffalo: cow, sheep, bear, elephant
bison: cow, bear, sheep
yak: cow, bear, sheep
hippo: elephant, cow, bear
hippopotamus: elephant, cow, bear
rhino: elephant, cow, bear
rhinoceros: elephant, cow, bear
fox: dog, cat
wolf: dog
coyote: dog
hyena: dog, bear
lion: cat, dog, bear, cow, horse
lioness: cat, dog, bear, cow
tiger: cat, zebra, dog, bear
leopard: cat, dog, zebra, giraffe
cheetah: cat, dog, giraffe
jaguar: cat, dog
panther: cat, dog, bear
lynx: cat, dog
cub: bear, cat, dog
rabbit: cat, dog, sheep
squirrel: cat, dog, bird
raccoon: cat, dog, bear
badger: cat, dog, bear
otter: cat, dog, bear
beaver: bear, cat, dog
ferret: cat, dog
weasel: cat, dog
hamster: cat, mouse, teddy bear
rat: cat, mouse, dog
guinea pig: cat, teddy bear, dog
kangaroo: dog, horse, cow, bear
monkey: dog, bear, cat, person
ape: bear, person, dog
gorilla: bear, person, elephant, dog
chimpanzee: bear, person, dog
baboon: dog, bear
orangutan: bear, person
koala: bear, teddy bear, cat
sloth: bear, cat
seal: dog, bear, bird
car: truck
truck: car, bus
pickup truck: truck, car
van: truck, bus
tractor: truck, car
tank vehicle: truck, car
ambulance: truck, bus, car
cart: truck, car, bicycle
go kart: car, motorcycle
carriage: truck, train, car
wagon: truck, car, train
trailer: truck, train
camper: truck, bus
scooter: bicycle, skateboard
wheelchair: chair, bicycle
stroller: chair, bicycle
helicopter: airplane
drone: airplane, kite
hang glider: airplane, kite
parachute: kite, umbrella
hot air balloon: kite, umbrella
balloon: sports ball, kite
canopy: umbrella
jet ski: boat, motorcycle
cabinet: refrigerator, oven
shelf: refrigerator, book
box: suitcase
trash can: potted plant, fire hydrant, cup
bucket: cup, bowl, potted plant
pot: bowl, potted plant, cup, vase
plate: bowl, pizza
dish: bowl, pizza
basket: bowl, handbag
tray: bowl, laptop
pillow: teddy bear, bed
mirror: tv
painting: tv, book
picture frame: tv, book
camera: cell phone, remote
tablet: laptop, cell phone, book
microphone: remote, toothbrush
doll: teddy bear, person
statue: person
robot: person
mannequin: person
ball: apple, orange
flower: potted plant, vase
tree: potted plant
bush: potted plant
"""

# What persons wear, and in which part of their box it is seen.
_WORN = """
upper: shirt, tshirt, t shirt, tee, tee shirt, top, tank top, crop top, jacket, coat, sweater, hoodie, hoody, blouse
upper: vest, jersey, blazer, cardigan, pullover, sweatshirt, singlet, polo, polo shirt, jumper, parka, lab coat
upper: labcoat, bra, dress shirt, button down, flannel, scarf, long sleeve, longsleeve, anorak, life jacket, life vest
upper: sleeve, tunic
lower: pants, pant, trousers, trouser, jeans, jean, shorts, short, skirt, leggings, slacks, sweatpants, tights, kilt
whole: dress, suit, outfit, uniform, jumpsuit, costume, gown, robe, tracksuit, wetsuit, kimono, overalls, clothes
whole: clothing, swimsuit, wet suit, track suit, onesie, sari, garment, attire, romper, apron, gi, kit, bathing suit
head: hat, cap, helmet, hood, beanie, hair, headband, bandana, turban, hardhat, hard hat, visor, wig, hijab, crown
feet: shoe, boot, sock, sneaker, sandal, trainer, slipper, heel, sneakers
"""

# Parts of a body: "in a girl's hand" is where the girl is.
_BODY = """
hand, arm, leg, foot, head, face, finger, thumb, eye, ear, nose, mouth, neck, shoulder, knee, elbow, chest, back,
waist, lap, palm, wrist, beard, moustache, mustache, tail, paw, wing, beak, snout, fur, feather, belly, chin, skin,
body, trunk, horn, antler, shell, hoof, lip, tooth, tongue, cheek, forehead, ponytail, bun, braid, torso, hip, thigh,
armpit, mane
"""

# Nouns that are no class of usual detectors and look like none: known, so that no spelling check turns them into one.
_NEITHER = """
grass, field, road, street, ground, floor, water, snow, sand, sky, wall, track, court, pool, river, lake, sea, ocean,
hill, mountain, forest, wood, garden, park, beach, yard, lawn, path, trail, sidewalk, pavement, driveway, lane,
bridge, house, building, garage, shop, store, school, room, kitchen, bathroom, bedroom, airport, station, stage,
railing, rail, fence, gate, door, window, curtain, roof, cloth, stair, stairs, step, ramp, deck, dock, pier, platform,
runway, ice, mud, dirt, rock, stone, wave, tank, aquarium, cage, enclosure, zoo, net, rope, leash, harness, saddle,
rein, string, chain, wire, cable, cord, line, stick, pole, branch, log, leaf, twig, perch, nest, web, cocoon, egg,
bone, meat, hay, prey, dung, towel, blanket, sheet, rug, mat, carpet, sponge, soap, tissue, paper, toilet paper,
guitar, piano, drum, violin, trumpet, saxophone, instrument, rifle, gun, weapon, sword, paddle, oar, shovel, broom,
hose, hook, flag, banner, poster, ring, bracelet, necklace, glove, mask, goggles, sunglasses, glasses, eyeglasses,
spectacles, belt, collar, badge, tag, label, watch strap, strap, buckle, pocket, button, zip, logo, letter, number,
stripe, spot, patch, dot, stain, wheel, tire, tyre, light, lamp, lantern, candle, fire, smoke, steam, cloud, sun,
shadow, reflection, hole, obstacle, hurdle, bar, handle, lid, cover, tap, faucet, shower, bath, bathtub, tub, outlet,
switch, plug, pipe, tube, fan, heater, radiator, fireplace, tent, crowd, trick, game, race, competition, breakdance,
dance, selfie, photo, scale, weighing machine, card, coin, money, key, pen, pencil, marker, crayon, drawing, music,
speech, milk, juice, vodka, liquid, oil, paint, trellis, hedge, fern, coral, pebble, brick, tile, cement, concrete,
metal, plastic, leather, cone, barrier, signpost, bell, beam, brush, roll, straw, lever, brain, heart, arena, stadium,
rink, gym, stand, bleacher, bus stop, crosswalk, intersection, roundabout, curb, traffic, hillside, slope, jump,
cliff, cave, jungle, desert, farm, barn, stable, countryside, town, city, village, morning, evening, night, rain,
wind, weather, course, rack, hanger, holder, dispenser, liner, igloo, dragon, monster, skull, wreath, sculpture,
number tag
"""

_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "teeth": "tooth",
    "wolves": "wolf",
    "calves": "calf",
    "knives": "knife",
    "leaves": "leaf",
    "loaves": "loaf",
    "halves": "half",
    "shelves": "shelf",
    "scarves": "scarf",
    "oxen": "ox",
    "people": "person",
    "buses": "bus",
    "cookies": "cookie",
    "selfies": "selfie",
}
_SAME_IN_PLURAL = frozenset({"sheep", "fish", "deer", "cattle", "skis", "aircraft"})
_PLURAL_WORDS = frozenset(_IRREGULAR) - {"halves"} | {"people", "cattle"}
_BETWEEN = re.compile(r"[\W_]+")


def _rows(table: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in table.strip().splitlines():
        first, _, rest = line.partition(":")
        yield first.strip(), tuple(word.strip() for word in rest.split(",") if word.strip())


def _gathered(table: str) -> Mapping[str, tuple[str, ...]]:
    gathered: dict[str, tuple[str, ...]] = {}
    for first, rest in _rows(table):
        gathered[first] = gathered.get(first, ()) + rest
    return gathered


def _turned(table: str) -> Mapping[str, tuple[str, ...]]:
    turned: dict[str, tuple[str, ...]] = {}
    for first, rest in _rows(table):
        for word in rest:
            turned[word] = (*turned.get(word, ()), first)
    return turned


_NAME = {word: first for first, rest in _rows(_SAME) for word in rest}
_PARENTS = _turned(_KINDS)
_STAND_INS = _gathered(_LOOKS)

WORN: Mapping[str, str] = {word: part for part, words in _rows(_WORN) for word in words}
"""What persons wear, to the part of their box where it is seen: upper, lower, whole, head, feet."""
BODY: frozenset[str] = frozenset(word.strip() for word in _BODY.split(","))
"""Parts of a body."""
CLASSLESS: frozenset[str] = frozenset(word.strip() for word in _NEITHER.split(","))
"""Nouns that name no class of usual detectors: places, materials, instruments."""
KNOWN: frozenset[str] = frozenset(
    {word for table in (_SAME, _KINDS, _LOOKS) for first, rest in _rows(table) for word in (first, *rest)}
    | set(WORN)
    | BODY
    | CLASSLESS
)
"""Every noun of the tables, in the singular."""
PERSONS: frozenset[str]


@dataclass(frozen=True)
class Match:
    """A class that a noun may mean.

    Attributes:
        name: of the class, as the detector writes it.
        how: "same" or a synonym; the noun is a "kind" of it; it is a "member" of the noun's kind; "close" by the
            embedder; "stand-in", only a look-alike.
    """

    name: str
    how: How


def plain(name: str) -> str:
    """A class name or noun in lower case, words with one space between them, without punctuation."""
    return " ".join(_BETWEEN.sub(" ", name.casefold()).split())


def singular(noun: str) -> str:
    """The singular of a noun in plain form; only its last word changes."""
    if noun in KNOWN and noun not in _PLURAL_WORDS:
        return noun
    front, _, last = noun.rpartition(" ")
    return f"{front} {_one(last)}".strip()


def is_plural(noun: str) -> bool:
    """Whether a noun in plain form says that several are meant; "sheep" may or may not, and does not say so."""
    last = noun.rpartition(" ")[2]
    return last not in _SAME_IN_PLURAL and (last in _PLURAL_WORDS or (noun not in KNOWN and _one(last) != last))


def _one(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word in KNOWN or len(word) < 4 or word.endswith(("ss", "us", "is")) or not word.endswith("s"):
        return word
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("ches", "shes", "xes", "sses", "zes")):
        return word[:-2]
    return word[:-1]


def spelt(word: str, more: frozenset[str] = frozenset()) -> str:
    """The known noun that a word is, allowing one letter too many, too few, wrong, or swapped; "" for none.

    Args:
        word: one word, plain.
        more: further nouns, beside those of the tables.
    """
    one = singular(word)
    if one in KNOWN or one in more:
        return one
    if not 5 <= len(one) <= _LONGEST_WORD or one.endswith(("ed", "ing", "ly")):
        return ""
    index = _index(more)
    near = {noun for key in (one, *_shorter(one)) for noun in index.get(key, ()) if _one_letter(one, noun)}
    return min(near, key=lambda noun: (abs(len(noun) - len(one)), noun), default="")


def _shorter(word: str) -> tuple[str, ...]:
    return tuple(word[:at] + word[at + 1 :] for at in range(len(word)))


@cache
def _index(more: frozenset[str]) -> Mapping[str, tuple[str, ...]]:
    """Nouns of five letters and more by themselves and by what is left without one of their letters."""
    index: dict[str, tuple[str, ...]] = {}
    for noun in sorted((KNOWN | more) - CLASSLESS):
        if len(noun) >= 5 and " " not in noun:
            for key in {noun, *_shorter(noun)}:
                index[key] = (*index.get(key, ()), noun)
    return index


def _one_letter(a: str, b: str) -> bool:
    """Whether two words differ by one letter that is not the first, or by two neighbours in the wrong order.

    Words of five letters have too many neighbours that are words, too ("place", "plane"): only the order may be wrong.
    """
    if a[0] != b[0] or (max(len(a), len(b)) < 6 and sorted(a) != sorted(b)):
        return False
    if len(a) != len(b):
        short, long = sorted((a, b), key=len)
        return short in _shorter(long)
    unlike = [at for at in range(len(a)) if a[at] != b[at]]
    swapped = len(unlike) == 2 and unlike[1] == unlike[0] + 1 and a[unlike[0]] == b[unlike[1]]
    return len(unlike) == 1 or (swapped and a[unlike[1]] == b[unlike[0]])


def matches(noun: str, names: Sequence[str], embed: Embed | None = None) -> tuple[Match, ...]:
    """The classes that a noun may mean, surest first; stand-ins, if any, come last.

    Args:
        noun: in the singular, plain.
        names: class names of a detector, any.
        embed: where given, it is asked about a noun that the table does not link with any class.
    """
    own = _name(noun)
    classes = {name: _name(singular(plain(name))) for name in names}
    found = [Match(name, "same") for name, one in classes.items() if one == own]
    found = found or _kinds(own, classes)
    found = found or [Match(name, "member") for name, one in classes.items() if own in _ancestors(one)]
    if not found and embed is not None and names:
        found = _close(noun, names, embed)
    taken = {match.name for match in found}
    alike = {word: rank for rank, word in enumerate(_alike(own))}
    guesses = sorted((alike[one], name) for name, one in classes.items() if one in alike and name not in taken)
    return (*found, *(Match(name, "stand-in") for _, name in guesses))


def _name(noun: str) -> str:
    return _NAME.get(noun, noun)


def _kinds(own: str, classes: Mapping[str, str]) -> list[Match]:
    """The classes that a noun is a kind of, the nearest ones only: a scooter is a motorcycle before it is a vehicle."""
    level = [own]
    seen: set[str] = set()
    while level:
        level = [_name(up) for one in level for up in _PARENTS.get(one, ()) if _name(up) not in seen]
        seen.update(level)
        found = [Match(name, "kind") for name, one in classes.items() if one in level]
        if found:
            return found
    return []


@cache
def _ancestors(noun: str) -> frozenset[str]:
    up = {_name(parent) for parent in _PARENTS.get(noun, ())}
    return frozenset(up).union(*(_ancestors(parent) for parent in up))


def _alike(own: str) -> tuple[str, ...]:
    """Look-alikes of a noun, or of the nearest kind that has some."""
    if WORN.get(own) in {"upper", "lower", "whole"}:
        return ("person",)  # "the red shirt" is who wears it
    level = [own]
    while level:
        found = tuple(word for one in level for word in _STAND_INS.get(one, ()))
        if found:
            return found
        level = [_name(up) for one in level for up in _PARENTS.get(one, ())]
    return ()


def _close(noun: str, names: Sequence[str], embed: Embed) -> list[Match]:
    vectors = np.asarray(embed([noun, *map(plain, names)]), dtype=np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12
    cosines = vectors[1:] @ vectors[0]
    return [Match(names[at], "close") for at in np.argsort(-cosines, kind="stable") if cosines[at] >= MIN_COSINE]


PERSONS = frozenset(word for word in KNOWN if _name(word) == "person" or "person" in _ancestors(_name(word)))
"""Nouns for persons."""
