"""The words that tell kinds of instructions apart, for `trackgpt.reasoners.instructions`: closed classes, casefolded.

A table holds words, or phrases of at most `LONGEST_PHRASE` words; "'s" is a word of its own.
"""

from __future__ import annotations

from trackgpt.reasoners.nouns import BODY

LONGEST_PHRASE = 5
"""Words of a phrase of the tables."""


def _set(table: str) -> frozenset[str]:
    """Words or phrases, separated by commas."""
    return frozenset(" ".join(phrase.split()) for phrase in table.split(","))


BREAKS = frozenset(",;.:!?-–—")
PRONOUNS = _set("it, he, she, they, him, her, them, this, that, this one, that one")
SUBJECTS = _set("it, he, she, they, the target, the object, this one, that one")
OBJECTS = _set("it, him, her, them")
OWNERS = _set("his, her, its, their")
GENERIC = _set("one, ones, thing, target, object, person")
ARTICLES = _set("the, a, an, this, that, these, those")
BE = _set("is, are, was, were, 's, isn't, aren't, wasn't, has, have, had, hasn't, will, gets, got")
RELATIVE = _set("who, that, which, whose, where, whom")
NEGATED = _set("not, isn't, aren't, wasn't, can't, cannot, couldn't, don't, doesn't, no, never, won't, hasn't")
ALL = _set("all, everything, both, them, everyone, all of them, all of it, both of them, all targets, the targets")
NUMBERED = _set("number, no, nr, target, object, id, #, player")
ORDINALS = ("first", "second", "third", "fourth", "fifth")

# What stands before the words that name something, and after them.
LEADING = _set("""
    please, now, ok, okay, then, so, well, hey, oh, sorry, hm, hmm, actually, instead, just, only, but, and, simply,
    can you, could you, would you, will you, i want you to, i want to, i want, i would like you to, i would like, i
    need, i'd like you to, i'd like, let 's, let us, track, follow, watch, find, show, show me, trace, segment,
    keep, keep to, keep an eye on, stay with, stick to, stick with, mark, start tracking, start following, keep
    tracking, keep following, continue tracking, continue following, tracking, following, focus on, focus only on,
    only focus on, focus just on, concentrate on, zoom in on, zoom on, zoom into, look at, look for, select, pick,
    choose, take, get, rather, or rather, box, highlight, maybe
""")
TRAILING = _set("please, now, instead, again, only, then, from now on, thanks, thank you, for me, and, but, or, though")
ONLY = _set("""
    only, just, focus on, focus only on, only focus on, focus just on, concentrate on, zoom in on, zoom on, zoom
    into
""")
BEFORE = _set("""
    on, in, at, with, without, behind, near, next, beside, by, under, above, below, to, from, of, between, over,
    left of, right of, around, holding, riding, wearing, carrying, following, facing, against, into, onto, after,
    like, than
""")
"""Words after which something stands that a thing has to do with."""
BETWEEN = BEFORE | _set("the, left, right, front, back, side, close")
UNNAMED = _set("thing, things, object, objects, item, items, something, anything, others, color, colour, colors")
ENDS_NOUN = BEFORE | RELATIVE | BREAKS | _set("closest, nearest, not, standing, sitting, walking, running, moving")

# What a sentence may begin with that changes nothing, where a kind is told by what comes next.
POLITE_ONLY = _set("please, ok, okay, can you, could you, you can, and, then, let 's")
POLITE = POLITE_ONLY | {"now"}
ORDERING = POLITE | _set("track, follow, watch, i want")
NOTING = _set("""
    now, ok, okay, and, but, so, then, note, careful, attention, oh, at the moment, right now, by now, meanwhile, in
    the meantime
""")
SHOWING = _set("you see, you find, you can see, you can find, you should see, you should find, you will see")
HESITATING = _set("oh, sorry, hm, hmm, well, but, hey, ok, wait, stop, please, actually")
PLEASE = frozenset({"please"})

# Corrections.
NO = _set("no, nope, nah, wrong, incorrect, false")
NOT_NUMBER = ARTICLES | OWNERS | _set("it, him, not, i, on, in, wrong, sorry, you, track, follow, they, he, she, at")
POINTING = _set("that, this, it, he, she, they, those, these, which")
I_MEANT = _set("""
    i mean, i meant, i said, i was talking about, i wanted, i asked for, i am talking about, rather, or rather, i'm
    talking about, it should be, it must be
""")
NOT_WHAT = ARTICLES | OBJECTS | _set("what, my, right, correct, who")
RIGHT = _set("""
    yes, right, correct, good, exactly, perfect, great, that 's right, that is right, that 's correct, that is
    correct, that 's it, that 's the one, that is the one, that is it, yes that one, yes this one, yes that 's it,
    yes that 's right, yes exactly, good job, well done, yes correct, keep it, keep tracking it, keep following it,
    this one is right
""")

# The other kinds.
STOP = _set("""
    stop tracking, stop following, stop watching, stop looking at, stop looking for, stop with, don't track, don't
    follow, do not track, do not follow, no longer track, no longer follow, don't watch, quit tracking, quit
    following, cease tracking, finish tracking, end tracking, leave out, never mind
""")
STOP_ALL = _set("stop, stop it, end, that 's all, forget it, forget that, stop tracking")
UNWANTED = _set("""
    does not matter, doesn't matter, do not matter, don't matter, no longer matters, no longer matter, is not needed,
    is no longer needed, is not important, is no longer important
""")
FORGET = _set("forget, forget about, drop, remove, ignore, untrack, unfollow, delete, discard, dismiss")
LATER = _set("any more, anymore, any longer, now, please, again, completely, entirely")
ALSO = _set("also, plus, additionally, in addition, and also, as well as, besides, add, and add, include, and include")
TOO = _set("too, as well, also, in addition, to the tracked ones, to the targets")
BACK = _set("""
    back to, go back to, going back to, come back to, return to, switch back to, get back to, jump back to, turn
    back to, now back to, resume, resume tracking, resume following, change back to, back on, restore
""")
BACK_ALONE = _set("back, go back, switch back, change back, previous one, previous target")
TO_OTHER = _set("""
    switch to, switch target to, switch the target to, switch over to, change to, change target to, change the
    target to, now switch to, go to, move to, move on to, go on to, swap to, now, actually, turn to, shift to, shift
    focus to, switch focus to, continue with, go on with, change over to, now track, now follow, rather track,
    rather follow, from now on, leave that one and track, leave that one and follow, leave it and track, leave it
    and follow
""")
SEARCHING = _set("""
    keep searching, keep looking, continue searching, continue looking, go on searching, search for it, look for it,
    wait for it, keep searching for it, keep looking for it, wait, wait until it returns, target lost, lost, lost
    it, you lost it, i lost it, search on, it is lost, no target, nothing there, keep waiting, wait for him, wait
    for her, object lost, target gone, target not visible, not visible, out of view, out of frame, out of sight
""")
SEARCHING_FOR = _set("keep looking for, keep searching for")
WENT = _set("left, went, walked out")
GONE = _set("""
    gone, hidden, lost, missing, invisible, occluded, absent, leaving, disappearing, disappeared, vanished,
    vanishing, disappear, vanish, exiting, exited, obscured, unseen, departed, out of view, out of frame, out of
    sight, out of shot, out of picture, out of the frame, out of the picture, out of the view, out of the shot, off
    screen, off the screen, no longer visible, not visible, no longer there, not there, no longer here, not here, no
    longer in, not in, leave, completely hidden, partly hidden, fully hidden, move out of, moving out of, going out
    of, go out of, covered, offscreen, on its way out, on his way out, on her way out, on their way out, on the way out,
    behind
""")
LOSING = _set("you will lose, you'll lose, you may lose, you are going to lose, you are about to lose")
SHARES = _set("part of, a part of, parts of, some of, half of, most of, all of, little of, more of")
"""Of what is followed, where only so much of it can be seen."""
WHILE = _set("while, when, whenever, as soon as, once, any time")
AS_LONG = _set("as long as, so long as")
OTHERWISE = _set("otherwise, or else, failing that, or otherwise, else")
SEEN = _set("visible, there, see, find, found, seen, present, view, frame, available, picture, possible, in")
GONE_VERBS = _set("disappears, leaves, vanishes, goes")
UNSEEN = GONE_VERBS | _set("hidden, lost, gone, absent, missing, occluded, invisible, away, out")
HEADING = _set("about to, going to, now, still, currently, completely, fully, soon, already, be, been, just, partly")
MEANWHILE = _set("now, still, currently, already, just, been, being, come to be")
ALL_OF_IT = _set("all of it, all of him, all of her")
BODY_WHOLE = _set("whole, full, entire, complete, rest")
PARTS = BODY | _set("""
    wheel, door, window, roof, license plate, number plate, plate, engine, windshield, bumper, headlight, mast,
    sail, handlebar, saddle, seat, screen, lid, handle, body, upper body, lower body, front, rear, top, bottom
""")
ASKED = _set("""
    track, tracking, tracked, follow, following, followed, looking, pick, picked, choose, chose, chosen, select,
    selected, switch, switched, lose, lost, reject, rejected, sure, certain, confident, doing, watching, found,
    mistake, stop, stopped, jump, jumped, drop, dropped
""")
LOOKING = _set("what do you see, what can you see, what did you see, what are you seeing, who do you see")
FITTING = _set("another, any, more, else, fits, fit, matches, match, like, several, candidate, candidates, others")
FURTHER = _set("another, else, more, several, candidate, candidates, others")
ASKS_FOR_OTHERS = _set("is there, are there, any, does anything, do you see, what else, anything else")
ASKS = _set("why, what, which, who, whom, where, how, when, are, is, do, did, have, since, was, were, does, has")
SMALL = (
    ARTICLES
    | PRONOUNS
    | BE
    | _set("""
    one, ones, not, other, now, currently, being, still, number, target, targets, object, objects, score, scores, id, #,
    it, long, many, much, when, sure, right, correct, same, of, these, those, thing, black, white, left
""")
)
