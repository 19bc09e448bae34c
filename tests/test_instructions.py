"""What sentences ask of a tracker: their kind, and their words written out, with traps that only look like a kind."""


import pytest

from trackgpt.reasoners.instructions import Context, Named, understand
from trackgpt.types import PROMPT_KINDS


def following(*words, former=(), last=None):
    """A track of targets 1, 2, ... of these words, after former ones."""
    first = len(former) + 1
    tracked = tuple(Named(first + k, each) for k, each in enumerate(words))
    gone = tuple(Named(k + 1, each) for k, each in enumerate(former))
    return Context(tracked, gone, (*former, *words), (tracked[-1].id,) if last is None else last)


CONTEXTS = {
    "nothing": Context(),
    "dog": following("the dog on the left"),
    "woman": following("track the woman in red"),
    "panda": following("the panda"),
    "player": following("the ball handler"),
    "head": following("the head of the woman in red"),
    "two": following("the brown dog", "the referee in black"),
    "back": following("the ball", former=("the rider in blue", "the white horse")),
    "thing": following("the biggest thing"),
    "shown": following(""),
    "sought": Context(said=("the dog on the left",)),
}

SENTENCES = """
nothing | the red car | start | the red car
nothing | track the dog on the left | start | track the dog on the left
nothing | who will win the race? | start | who will win the race?
nothing | which car is the fastest? | start | which car is the fastest?
nothing | what would you drink from? | start | what would you drink from?
nothing | the other dog | start | the other dog
nothing | stop sign | start | stop sign
nothing | the stop sign behind the bus | start | the stop sign behind the bus
nothing | the man with no hat | start | the man with no hat
nothing | back of the car | start | back of the car
nothing | the man with his back to the camera | start | the man with his back to the camera
nothing | no, the black one | start | no, the black one
nothing | the lost dog | start | the lost dog
nothing | the man or the woman | start | the man or the woman
nothing | why is the man running? | start | why is the man running?
nothing | now the cat | start | now the cat
nothing | the panda is now lying down | start | the panda is now lying down
nothing | a person is riding a horse in the water | start | a person is riding a horse in the water
nothing | also the referee | start | the referee
nothing | switch to the cat | start | the cat

dog | the cat | switch | the cat
dog | the second dog from the right | switch | the second dog from the right
dog | track the man with no hat | switch | track the man with no hat
dog | back of the car | switch | back of the car
dog | the back of the bus | switch | the back of the bus
dog | stop sign | switch | stop sign
dog | a drop of water | switch | a drop of water
dog | the man who stops the car | switch | the man who stops the car
dog | why is the man running? | switch | why is the man running?
dog | who is holding the ball? | switch | who is holding the ball?
dog | which animal is the fastest? | switch | which animal is the fastest?
dog | the lost cat | switch | the lost cat
dog | the man leaving the room | switch | the man leaving the room
dog | the dog that is leaving | switch | the dog that is leaving
dog | the dog the man is holding | switch | the dog the man is holding
dog | a dog is sitting in the basket | switch | a dog is sitting in the basket
dog | the man is running | switch | the man is running
dog | the man with the hidden face | switch | the man with the hidden face
dog | no one wears the hat | switch | no one wears the hat
dog | the man and the dog | switch | the man and the dog
dog | number 7 in white | switch | number 7 in white
dog | not moving car | switch | not moving car
dog | the dog with a ball in front of it | switch | the dog with a ball in front of it
dog | a hand is touching the cat near to him | switch | a hand is touching the cat near to him
dog | the woman with a bag next to her | switch | the woman with a bag next to her
dog | the also barking dog | switch | the also barking dog
dog | the wrong-way driver | switch | the wrong-way driver
dog | back to back dancers | switch | back to back dancers
dog | two men on the right | switch | two men on the right

dog | switch to the cat | switch | the cat
dog | Switch target to player #24 | switch | player #24
dog | change target to the man in blue, please | switch | the man in blue
dog | now the cat | switch | the cat
dog | now track the man in the hat | switch | the man in the hat
dog | ok, now follow the woman | switch | the woman
dog | the cat instead | switch | the cat
dog | actually, the cat | switch | the cat
dog | the black one | switch | the black dog
dog | track the black one | switch | the black dog
dog | the one behind it | switch | the dog behind the dog on the left
dog | the man next to it | switch | the man next to the dog on the left
dog | the other one | switch | the other dog
dog | the other dog | switch | the other dog
dog | another one | switch | another dog
dog | go to the one on the right | switch | the dog on the right
woman | his dog | switch | the dog of the woman in red
woman | now her dog | switch | the dog of the woman in red
woman | the man behind her | switch | the man behind the woman in red
thing | the smallest thing | switch | the smallest thing
thing | the red one | switch | the red one
shown | the black one | switch | the black one
sought | the cat | switch | the cat
sought | no, the black one | switch | the black dog

dog | no, the black one | correct | the black dog
dog | No. The black one! | correct | the black dog
dog | no the black one | correct | the black dog
dog | nope, the left one | correct | the left dog
dog | no, the one on the right | correct | the dog on the right
dog | no, on the right | correct | the dog on the right
dog | no, the cat | correct | the cat
dog | no, the other one | correct | the other dog
dog | no, the other dog | correct | the other dog
dog | no, the other | correct | the other dog
dog | no, another one | correct | another dog
dog | no, the one behind it | correct | the dog behind the dog on the left
dog | no, the black | correct | the black dog
dog | no, the second one from the left | correct | the second dog from the left
dog | no, I meant the black one | correct | the black dog
dog | I mean the cat | correct | the cat
dog | i said the white one | correct | the white dog
dog | not that one, the black one | correct | the black dog
dog | not the dog, the cat | correct | the cat
dog | not this but the black one | correct | the black dog
dog | that's not it | correct | the dog on the left
dog | that is not the dog | correct | the dog on the left
dog | it isn't the right one, the white one | correct | the white dog
dog | wrong | correct | the dog on the left
dog | no | correct | the dog on the left
dog | wrong dog | correct | the dog on the left
dog | the wrong dog, track the white one | correct | the white dog
dog | that's the wrong one | correct | the dog on the left
dog | you are tracking the wrong dog | correct | the dog on the left
dog | no, not that one, the black one | correct | the black dog
dog | no, that's wrong, the other one | correct | the other dog
dog | it's the black one | correct | the black dog
dog | oh no, the white dog | correct | the white dog
dog | no, please track the one in front | correct | the dog in front
woman | no, the one who is in blue | correct | the woman in blue
woman | no, the one wearing a hat | correct | the woman wearing a hat
woman | no, her dog | correct | the dog of the woman in red
two | no, the tall one | correct | the tall referee
two | no, the white dog | correct | the white dog

woman | now only her head | refine | the head of the woman in red
woman | Now only focus on her head | refine | the head of the woman in red
woman | only the head | refine | the head of the woman in red
woman | just her face | refine | the face of the woman in red
woman | focus on her left hand | refine | the left hand of the woman in red
woman | zoom in on the face | refine | the face of the woman in red
woman | her hat | refine | the hat of the woman in red
woman | the woman's face | refine | the woman's face
dog | the tail of the dog | refine | the tail of the dog
dog | now its tail | refine | the tail of the dog on the left
head | return to the full body | refine | the woman in red
head | now the whole body | refine | the woman in red
head | the whole woman again | refine | the woman in red
head | all of her | refine | the woman in red
woman | the head of a lion | switch | the head of a lion
woman | a hand | switch | a hand
woman | the man with the red face | switch | the man with the red face

back | Back to the rider who is in blue | resume | the rider in blue
back | back to the first one | resume | the rider in blue
back | go back to the horse | resume | the white horse
back | return to the rider | resume | the rider in blue
back | please go back to the white horse | resume | the white horse
back | resume the horse | resume | the white horse
back | the rider again | resume | the rider in blue
back | track the horse again | resume | the white horse
back | back to number 1 | resume | the rider in blue
back | switch back to the previous one | resume | the white horse
back | switch to number 2 | resume | the white horse
back | go back | resume | the white horse
back | no, back to the horse | resume | the white horse
back | back to the woman in green | switch | the woman in green
back | the back of the horse | switch | the back of the horse
dog | back to the rider who is in blue | switch | the rider in blue

panda | the panda is now lying down | state | the panda lying down
panda | The panda is lying down now. | state | the panda lying down now
panda | it is now lying down | state | the panda lying down
panda | it's climbing a tree | state | the panda climbing a tree
panda | it turned around | state | the panda turned around
panda | it isn't moving | state | the panda not moving
dog | he is standing up | state | the dog standing up
dog | the dog is running | state | the dog running
dog | now it is behind the tree | state | the dog behind the tree
woman | she has turned around | state | the woman in red turned around
woman | the woman in red is now sitting | state | the woman in red sitting
dog | yes, that one | state | the dog on the left
dog | that's right | state | the dog on the left

dog | it is about to leave | absence |
dog | it's about to move out of view | absence |
dog | The dog is about to move out of view | absence |
dog | the dog is leaving | absence |
dog | the dog is gone | absence |
dog | it has left the frame | absence |
dog | it disappeared | absence |
dog | it is hidden | absence |
dog | it's no longer visible | absence |
dog | he is not visible | absence |
dog | keep searching | absence |
dog | Keep looking for it | absence |
dog | keep looking for the dog | absence |
dog | dog lost. Keep searching | absence |
dog | target lost | absence |
dog | wait for it | absence |
dog | Dice with number 6 lost. Keep searching | absence |
woman | she will leave | absence |

nothing | track the ball handler; if not visible, the ball | conditional | the ball handler / the ball
nothing | Track the ball handler; if not visible, track the ball only | conditional | the ball handler / the ball
nothing | the man, otherwise the dog | conditional | the man / the dog
nothing | the man or else the dog | conditional | the man / the dog
nothing | if you can't see the man, track the dog | conditional | the man / the dog
nothing | if the man is not visible, follow the dog | conditional | the man / the dog
nothing | if there is no man, the dog | conditional | man / the dog
nothing | the dog if the man is hidden | conditional | the man / the dog
nothing | the man, or the dog if he is not there | conditional | the man / the dog
nothing | the man if visible, otherwise the dog | conditional | the man / the dog
dog | if it is hidden, track the cat | conditional | the dog on the left / the cat
dog | the black one; if not visible, the white one | conditional | the black dog / the white dog
dog | the man walking as if drunk | switch | the man walking as if drunk
dog | the otherwise white cat | switch | the otherwise white cat

dog | also the referee | add | the referee
dog | Also track the cat, please | add | the cat
dog | can you also follow the cat? | add | the cat
dog | track also the black one | add | the black dog
dog | and the cat | add | the cat
dog | and also the man in red | add | the man in red
dog | the cat, too | add | the cat
dog | the cat as well | add | the cat
dog | track the cat in addition | add | the cat
dog | add the cat | add | the cat
dog | plus the man | add | the man
dog | add the other one | add | the other dog
woman | also her dog | add | the dog of the woman in red

two | stop following the dog | drop | 1
two | stop tracking the referee | drop | 2
two | forget number 2 | drop | 2
two | forget the dog | drop | 1
two | drop #1 | drop | 1
two | remove the one in black | drop | 2
two | please stop tracking the brown dog now | drop | 1
two | don't track the dog any more | drop | 1
two | no longer follow the referee | drop | 2
two | drop the first one | drop | 1
two | ignore the referee | drop | 2
two | no, stop following the dog | drop | 1
two | stop tracking it | drop | 2
dog | stop tracking | drop |
dog | stop | drop |
dog | forget it | drop |
two | drop both | drop |
two | forget everything | drop |
two | stop following the horse | drop | the horse

dog | why that one? | question |
dog | Why? | question |
dog | why not the other one? | question |
dog | why this dog? | question |
dog | what are you tracking? | question |
dog | which one are you following? | question |
dog | who are you tracking | question |
dog | where is it? | question |
dog | what is that? | question |
dog | how sure are you? | question |
dog | are you sure? | question |
dog | is that the black dog? | question |
dog | why did you switch? | question |
dog | what is number 1? | question |
nothing | what are you tracking? | question |
"""
ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in SENTENCES.splitlines() if line.strip()]


@pytest.mark.parametrize(("context", "sentence", "kind", "words"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS])
def test_a_sentence_has_a_kind_and_its_words_are_written_out(context, sentence, kind, words):
    found = understand(sentence, CONTEXTS[context])
    named = " / ".join(map(str, (*found.ids, found.words) if kind == "drop" else (found.words, *found.instead)))
    assert (found.kind, named.removesuffix(" / ").strip()) == (kind, words)


def test_there_are_more_than_150_sentences_and_all_kinds_are_among_them():
    assert len(ROWS) > 200
    assert {row[2] for row in ROWS} == set(PROMPT_KINDS)
