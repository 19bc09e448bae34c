"""SynthTrack's words: the forms of instructions, and the templates that instructions and questions are filled into.

The questions for each fact stand beside the facts, in `catalog.FACT_QUESTIONS`.
"""

from __future__ import annotations

WORDINGS = 6
TRAIN_WORDINGS = 5
THIN_WORDINGS = 3
REGIONS = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
SIZES = ("small", "medium", "large")

FORMS: dict[str, str] = {
    "category": "explicit",
    "colour-category": "explicit",
    "size-category": "explicit",
    "size-colour-category": "explicit",
    "where-category": "explicit",
    "colour-only": "explicit",
    "fact": "implicit",
    "part": "implicit",
    "superlative": "implicit",
    "relation": "implicit",
    "odd-one-out": "implicit",
    "race": "implicit",
    "all-category": "multi",
    "all-colour": "multi",
    "all-fact": "multi",
    "two": "multi",
    "absent-category": "none",
    "absent-colour-category": "none",
    "absent-fact": "none",
}

# Six wordings each; the first is the seed, the last is kept for tests. Absent things are asked for in the very words
# used for present ones, or the words alone would give the answer away. Facts are asked for in FACT_QUESTIONS.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "category": (
        "the {category}",
        "track the {category}",
        "please follow the {category}",
        "can you track the {category} in the video?",
        "find the {category} and track it",
        "could you please follow the {category} in the video?",
    ),
    "colour-category": (
        "the {colour} {category}",
        "track the {colour} {category}",
        "please follow the {category} that is {colour}",
        "can you track the {colour} {category} in the video?",
        "i see the {colour} {category}, please track it",
        "could you please find and track the {colour} {category}?",
    ),
    "size-category": (
        "the {size} {category}",
        "track the {size} {category}",
        "please follow the {category} that is {size}",
        "can you track the {size} {category} in the video?",
        "i see the {size} {category}, please track it",
        "could you please find and track the {size} {category}?",
    ),
    "size-colour-category": (
        "the {size} {colour} {category}",
        "track the {size} {colour} {category}",
        "please follow the {colour} {category} that is {size}",
        "can you track the {size} {colour} {category} in the video?",
        "i see the {size} {colour} {category}, please track it",
        "could you please find and track the {size} {colour} {category}?",
    ),
    "where-category": (
        "the {category} {place}",
        "track the {category} {place}",
        "please follow the {category} that is {place}",
        "can you track the {category} {place} of the video?",
        "look {place}, find the {category} and track it",
        "could you please track the {category} that you see {place}?",
    ),
    "most-category": (
        "the {most} {category}",
        "track the {most} {category}",
        "please follow the {category} that is furthest {towards}",
        "can you track the {category} closest to the {side} edge of the video?",
        "of all the {plural}, track the {most} one",
        "which {category} is furthest {towards}?",
    ),
    "colour-only": (
        "the {colour} one",
        "the {colour} thing",
        "track the {colour} one",
        "please follow whatever is {colour}",
        "can you track the {colour} thing in the video?",
        "could you please track the one that is {colour}?",
    ),
    "part": (
        "what has {part}?",
        "which one has {part}?",
        "track whatever has {part}",
        "something here has {part}, please track it",
        "can you track the thing with {part}?",
        "which thing here has {part}?",
    ),
    "biggest": (
        "what is the biggest thing here?",
        "which one is the largest of all?",
        "track whatever is bigger than everything else",
        "one thing is larger than all the others, please track it",
        "which object takes up the most room?",
        "which object is the biggest of all?",
    ),
    "smallest": (
        "what is the smallest thing here?",
        "which one is the tiniest of all?",
        "track whatever is smaller than everything else",
        "one thing is smaller than all the others, please track it",
        "which object takes up the least room?",
        "which object is the smallest of all?",
    ),
    "most": (
        "what is the {most} thing here?",
        "which one is furthest {towards}?",
        "track whatever is closest to the {side} edge",
        "everything else is {opposite} it, please track it",
        "which object is the {most} of all?",
        "what is closest to the {side} edge of the video?",
    ),
    "beside": (
        "what is {beside} {anchor}?",
        "which thing do you see {on} {anchor}?",
        "track whatever is {on} {anchor}",
        "look at {anchor}, then track what is {beside} it",
        "one thing is {on} {anchor}, please track it",
        "can you find the thing {on} {anchor}?",
    ),
    "closest": (
        "what is closest to {anchor}?",
        "which thing is nearest to {anchor}?",
        "track whatever is next to {anchor}",
        "look at {anchor}, then track what is nearest to it",
        "one thing is closest to {anchor}, please track it",
        "can you find the thing closest to {anchor}?",
    ),
    "furthest": (
        "what is furthest from {anchor}?",
        "which thing is the most far away from {anchor}?",
        "track whatever is furthest away from {anchor}",
        "look at {anchor}, then track what is furthest from it",
        "one thing is furthest from {anchor}, please track it",
        "can you find the thing furthest away from {anchor}?",
    ),
    "odd-one-out": (
        "which one does not belong?",
        "what is the odd one out?",
        "track the one that does not fit with the others",
        "all things but one are of the same kind, please track that one",
        "which thing is of a different kind?",
        "which one does not fit with the others?",
    ),
    "race": (
        "who will win the race?",
        "who is about to cross the line first?",
        "track the winner of this race",
        "which one is ahead of the others in this race?",
        "who is in the lead?",
        "who will cross the line ahead of the others?",
    ),
    "all-category": (
        "all the {plural}",
        "track all the {plural}",
        "please follow every {category}",
        "can you track each {category} in the video?",
        "there are several {plural}, please track them all",
        "could you please follow all the {plural} in the video?",
    ),
    "all-colour": (
        "everything {colour}",
        "track everything {colour}",
        "please follow all the {colour} things",
        "can you track each {colour} thing in the video?",
        "there are several {colour} things, please track them all",
        "could you please follow everything that is {colour}?",
    ),
    "all-fact": (
        "everything that {fact}",
        "track everything that {fact}",
        "please follow each thing that {fact}",
        "can you track every object that {fact}?",
        "more than one thing here {fact}, please track them all",
        "could you please follow everything that {fact}?",
    ),
    "two": (
        "{first} and {second}",
        "track {first} and {second}",
        "please follow both {first} and {second}",
        "can you track {first} and {second} in the video?",
        "find {first}, then {second}, and track both",
        "could you please track both {first} and {second}?",
    ),
}

SIDES: dict[str, dict[str, str]] = {
    "left": {
        "most": "leftmost",
        "towards": "to the left",
        "side": "left",
        "opposite": "to the right of",
        "beside": "left of",
        "on": "to the left of",
    },
    "right": {
        "most": "rightmost",
        "towards": "to the right",
        "side": "right",
        "opposite": "to the left of",
        "beside": "right of",
        "on": "to the right of",
    },
    "top": {
        "most": "highest",
        "towards": "up",
        "side": "top",
        "opposite": "below",
        "beside": "above",
        "on": "above",
    },
    "bottom": {
        "most": "lowest",
        "towards": "down",
        "side": "bottom",
        "opposite": "above",
        "beside": "below",
        "on": "below",
    },
}

PLACES = {name: f"in the {name}" for name in REGIONS} | {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
}

QUESTIONS: dict[str, tuple[str, str]] = {
    "count": ("how many things are there?", "how many things do you see?"),
    "count-category": ("how many {plural} are there?", "how many {plural} do you see?"),
    "count-colour": ("how many {colour} things are there?", "how many things are {colour}?"),
    "colour": ("what colour is {name}?", "do you know the colour of {name}?"),
    "at": ("what is {place}?", "what do you see {place}?"),
    "where": ("where is {name}?", "where do you see {name}?"),
    "bigger": ("which is bigger, {first} or {second}?", "what is larger, {first} or {second}?"),
    "smaller": ("which is smaller, {first} or {second}?", "what takes up less room, {first} or {second}?"),
    "further": (
        "which is further {towards}, {first} or {second}?",
        "which is closer to the {side} edge, {first} or {second}?",
    ),
    "there-category": ("is there any {category}?", "do you see any {category}?"),
    "there-colour-category": ("is there any {colour} {category}?", "do you see any {colour} {category}?"),
}
