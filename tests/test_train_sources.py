"""Samples from data sets on disk: what is asked, what is answered, and where the masks are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_sets import IMAGE_SETS, VIDEO_SETS, write_sets

from trackgpt.data.videos import Expression
from trackgpt.errors import InputError, UsageError
from trackgpt.geometry.letterbox import fit
from trackgpt.reasoners.templates import TRACK_TOKEN
from train.config import DataConfig, Kind
from train.plan import SEED_STRIDE
from train.sources import SampleSpec, open_source, outside, separate, small
from train.tracking import MixtureSamples
from train.wording import ANSWERS, PAIR, PHRASE_QUESTIONS, ask, is_instruction

SPEC = SampleSpec(side=64, read=64, frames=3, turns=3, targets=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


@pytest.mark.parametrize("name", [*IMAGE_SETS, *VIDEO_SETS])
def test_every_set_gives_samples_with_one_mask_for_every_track_token(root, name):
    source = open_source(name, root)
    asked = 0
    for item in range(len(source)):
        sample = source.sample(item, SPEC, np.random.default_rng(item))
        said = " ".join(answer for dialogue in sample.turns for _, answer in dialogue)
        assert said.count(TRACK_TOKEN) == len(sample.masks)
        assert sample.frames.shape[1:] == (64, 64, 3)
        assert sample.masks.shape[1:] == (len(sample.frames), 16, 16)
        assert sample.read.shape == (64, 64, 3)
        assert not (sample.masks & sample.ignored).all(axis=(1, 2, 3)).any()
        assert len(sample.frames) == (3 if name in VIDEO_SETS else 1)
        asked += len(sample.turns)
        again = source.sample(item, SPEC, np.random.default_rng(item))
        assert np.array_equal(again.frames, sample.frames)
        assert again.turns == sample.turns
    assert asked >= len(source)


def test_conversations_have_words_and_no_masks(root):
    source = open_source("llava-instruct", root)
    sample = source.sample(0, SPEC, np.random.default_rng(0))
    assert sample.frames.shape == (0, 64, 64, 3)
    assert len(sample.masks) == 0
    assert all(TRACK_TOKEN not in answer for dialogue in sample.turns for _, answer in dialogue)


def test_a_clip_begins_where_its_object_is_seen_and_goes_on_without_gaps(root):
    source = open_source("refer-youtube-vos", root)
    for seed in range(12):
        sample = source.sample(0, SPEC, np.random.default_rng(seed))
        first, second, third = (int(t) for t in sample.source.split("@")[1].split(","))
        assert third == second + 1
        assert second > first
        assert sample.masks[0, 0].any()


def test_an_expression_of_more_objects_than_wanted_is_their_union():
    three = Expression("0", "the dogs", ("1", "2", "4"))
    assert separate(three, SampleSpec(targets=1)) == [("1", "2", "4")]
    assert separate(three, SampleSpec(targets=3)) == [("1",), ("2",), ("4",)]
    assert separate(Expression("0", "a unicorn"), SampleSpec(targets=3)) == []


def test_padding_is_ignored_and_masks_keep_their_place():
    # A frame of 32 x 64 in a square of 64: rows 0 to 31 of the square, rows 0 to 7 of the grid.
    box = fit((32, 64), 64)
    assert outside(box).sum() == 8 * 16
    assert outside(box)[8:].all()
    mask = np.zeros((32, 64), bool)
    mask[4:12, 16:24] = True
    found = small(mask, box)
    assert np.argwhere(found).tolist() == [[y, x] for y in (1, 2) for x in (4, 5)]


def test_a_mixture_opens_its_sets_and_repeats_a_sample_exactly(root):
    config = DataConfig(str(root), mixture={"semantic": Kind(3, ["ade20k"]), "refer": Kind(1, ["refcoco"])})
    samples = MixtureSamples(config, SPEC)
    drawn = [samples(2 * SEED_STRIDE + i) for i in range(40)]
    names = [sample.source.split("/")[0] for sample in drawn]
    assert 20 <= names.count("ade20k") <= 38
    assert np.array_equal(MixtureSamples(config, SPEC)(2 * SEED_STRIDE + 7).frames, drawn[7].frames)


def test_names_of_things_are_asked_for_and_instructions_are_said_as_they_are():
    rng = np.random.default_rng(0)
    asked = {ask(PHRASE_QUESTIONS, "The white dog on the left.", rng) for _ in range(40)}
    assert asked == {
        "Can you track the white dog on the left in the video?",
        "Please follow the white dog on the left.",
        "Track this: the white dog on the left.",
        "Find the white dog on the left and stay on it.",
    }
    assert is_instruction("which animal hops?")
    assert is_instruction("Track whatever has a shell")
    assert is_instruction("please, the one in blue")
    assert not is_instruction("a dog tracking a scent")
    assert not is_instruction("a person on the left.")


def test_without_rephrasing_only_the_seed_wording_is_heard(root):
    everything, seeds = (open_source("instrack", root, wordings=heard) for heard in ((), (0,)))
    assert {e.tags["wording"] for v in seeds.videos for e in v.expressions} == {"0"}
    said = [sum(len(v.expressions) for v in source.videos) for source in (everything, seeds)]
    assert said[0] == 6 * said[1]


def spoken(source, spec: SampleSpec, seeds: int = 12) -> list[tuple[str, str]]:
    """Questions and answers of some samples."""
    drawn = [source.sample(seed % len(source), spec, np.random.default_rng(seed)) for seed in range(seeds)]
    return [turn for sample in drawn for dialogue in sample.turns for turn in dialogue]


@pytest.mark.parametrize("name", ["refcoco", "refer-youtube-vos", "instrack"])
def test_sets_that_bring_answers_are_answered_with_them(root, name):
    said = {answer.split(" <TK>")[0] for _, answer in spoken(open_source(name, root), SPEC) if TRACK_TOKEN in answer}
    assert said
    assert all(answer.startswith("Sure, I track") and "the object" not in answer for answer in said)


def test_an_echo_repeats_a_class_but_nothing_that_is_said_to_be_done(root):
    echoing = replace(SPEC, echo=True)
    for question, answer in spoken(open_source("ade20k", root), echoing):
        name = answer.removeprefix("Sure, I track the ").removesuffix(f". {PAIR}")
        assert f" the {name}" in question
    plain = {answer for _, answer in spoken(open_source("ade20k", root), SPEC)}
    assert plain <= {*ANSWERS}
    # ReasonSeg's sentences are instructions: an answer that repeats them says nothing.
    sentences = [(q, a) for q, a in spoken(open_source("reason-seg", root), echoing) if "?" in q]
    assert not any(a.startswith("Sure, I track the wh") for _, a in sentences)


def test_unknown_sets_and_empty_roots_are_refused_in_words(root, tmp_path):
    with pytest.raises(UsageError, match="is no data set; choose from"):
        open_source("imagenet", root)
    with pytest.raises(InputError):
        open_source("ade20k", tmp_path)
