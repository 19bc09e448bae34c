"""Training samples from data sets on disk: frames, turns about the first of them, true masks.

A `Source` is one data set with its way of asking; its item number i and a generator give one `TrackingSample`. Images
are samples of one frame, videos unroll I_0, I_t, I_{t+1}, ... as paper section 4.1 samples them, conversations have
words alone. Everything is numpy, so that worker processes can make it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from trackgpt.data.conversations import ConversationFile, llava_instruct
from trackgpt.data.images import Conversation, ImageSample, ImageSet
from trackgpt.data.referring_image import grefcoco, reason_seg, reason_seg_explanations, refcoco
from trackgpt.data.referring_video import READERS
from trackgpt.data.segmentation import (
    ade20k,
    coco_stuff,
    mapillary,
    paco_lvis,
    part_imagenet,
    pascal_part,
    wordings,
)
from trackgpt.data.videos import Expression, Video, read_image
from trackgpt.errors import InputError, UsageError
from trackgpt.geometry.letterbox import Letterbox, fit
from trackgpt.reasoners.templates import TRACK_TOKEN
from trackgpt.systems.trackgpt import central_square
from train.wording import (
    CLASS_QUESTIONS,
    PHRASE_QUESTIONS,
    SENTENCE_QUESTIONS,
    WHY_QUESTIONS,
    answer,
    ask,
    is_instruction,
    with_reason,
)

STRIDE = 4
"""Pixels of the square to one of the decoder's mask."""
TRIES = 8


@dataclass(frozen=True)
class SampleSpec:
    """Sizes and limits of a sample.

    Attributes:
        side: of the square that the perception sees, pixels.
        read: of the square that the brain sees, pixels.
        fit: how the brain sees a frame: "pad" or "centre-crop".
        frames: unrolled of a video, I_0 included.
        turns: most instructions of a sample.
        targets: most targets of an instruction that get a <TK> each; more become one, their union.
        gap: most frames between I_0 and I_t; 0 for any.
        original: masks have the frame's size and not that of the decoder's grid.
        echo: answers to classes and phrases repeat them.
    """

    side: int = 1024
    read: int = 336
    fit: str = "pad"
    frames: int = 3
    turns: int = 3
    targets: int = 1
    gap: int = 0
    original: bool = False
    echo: bool = False


@dataclass(frozen=True)
class TrackingSample:
    """One sample of a stage.

    Attributes:
        frames: uint8 RGB (t, side, side, 3), as the perception sees them; t is 0 where there is nothing to mark.
        read: uint8 RGB (read, read, 3), the first frame as the brain sees it.
        turns: dialogues about it; each a list of (question, answer).
        masks: bool (n, t, h, w), of every <TK> in the order of the turns: h and w are side / 4, the decoder's grid, or
            with `SampleSpec.original` those of the frame.
        ignored: bool (t, h, w), what is not learned: padding, and pixels without a truth.
        source: data set and item, as text.
        pictures: the files of the frames.
        features: of the frames by a frozen encoder, where they are cached (see `train.feature_cache`).
    """

    frames: np.ndarray
    read: np.ndarray
    turns: tuple[tuple[tuple[str, str], ...], ...]
    masks: np.ndarray
    ignored: np.ndarray
    source: str
    pictures: tuple[str, ...] = ()
    features: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """A data set that gives samples."""

    def __len__(self) -> int: ...

    def sample(self, item: int, spec: SampleSpec, rng: np.random.Generator) -> TrackingSample:
        """Item `item` as a sample; the same for the same generator.

        Raises:
            InputError: its files are missing or damaged, or there is nothing to ask.
        """
        ...

    def pictures(self) -> Iterator[str]:
        """Every file that a sample may show to the perception, each once."""
        ...


@dataclass(frozen=True)
class ImageSource:
    """An image set: a few classes or phrases of one image, one turn each.

    Attributes:
        name: of the set.
        samples: its images.
        questions: templates around an expression's text.
        parts: an expression may be said in two ways, "dog leg" or "the leg of the dog".
        reasons: explanations by the name of the sample (ReasonSeg).
    """

    name: str
    samples: ImageSet | Sequence[ImageSample]
    questions: tuple[str, ...]
    parts: bool = False
    reasons: Mapping[str, Conversation] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, item: int, spec: SampleSpec, rng: np.random.Generator) -> TrackingSample:
        """See `Source.sample`."""
        sample = self.samples[item]
        expressions = sample.expressions
        if not expressions:
            raise InputError(f"{sample.image}: {self.name} names nothing in it")
        chosen = [expressions[int(k)] for k in rng.permutation(len(expressions))[: spec.turns]]
        frame, box = sample.frame(), fit(sample.size, spec.side)
        turns, masks = [], []
        for expression in chosen:
            objects = separate(expression, spec)
            turns.append((self._turn(sample, expression, len(objects), spec, rng),))
            masks += [[compared(sample.truth.mask(keys), box, spec)] for keys in objects]
        ignored = unlearned(sample.ignored(), box, spec)
        return TrackingSample(
            box.apply(frame)[None], brain_view(frame, spec), tuple(turns), _stack(masks, ignored[None]), ignored[None],
            f"{self.name}/{sample.name}", (str(sample.image),),
        )  # fmt: skip

    def pictures(self) -> Iterator[str]:
        """See `Source.pictures`."""
        return (str(self.samples[i].image) for i in range(len(self.samples)))

    def _turn(
        self, sample: ImageSample, expression: Expression, targets: int, spec: SampleSpec, rng: np.random.Generator
    ) -> tuple[str, str]:
        said = wordings(expression) if self.parts else (expression.text,)
        text = said[int(rng.integers(len(said)))]
        reason = self.reasons.get(sample.name)
        if reason is not None and targets == 1 and rng.random() < 0.5:
            return ask(WHY_QUESTIONS, reason.rounds[0].question, rng), with_reason(reason.rounds[0].answer)
        sentence = expression.tags.get("kind") == "long" or is_instruction(text)
        questions = SENTENCE_QUESTIONS if sentence else self.questions
        return ask(questions, text, rng), _said(expression, targets, text if spec.echo and not sentence else "", rng)


@dataclass(frozen=True)
class ClipSource:
    """A referring-video set: a few expressions of one video about I_0, followed over I_t, I_{t+1}, ...

    Attributes:
        name: of the set.
        videos: those with truth.
        instructions: expressions are whole instructions (InsTrack) and are said as they are.
    """

    name: str
    videos: tuple[Video, ...]
    instructions: bool = False

    def __len__(self) -> int:
        return len(self.videos)

    def sample(self, item: int, spec: SampleSpec, rng: np.random.Generator) -> TrackingSample:
        """See `Source.sample`."""
        video = self.videos[item]
        chosen = [video.expressions[int(k)] for k in rng.permutation(len(video.expressions))[: spec.turns]]
        times = self._times(video, chosen, spec, rng)
        frames = [video.frame(t) for t in times]
        box = fit(frames[0].shape[:2], spec.side)
        turns, masks = [], []
        assert video.masks is not None
        for expression in chosen:
            objects = separate(expression, spec)
            turns.append((self._turn(expression, len(objects), spec, rng),))
            masks += [[compared(video.masks.mask(keys, t), box, spec) for t in times] for keys in objects]
        never = unlearned(np.zeros(box.source, bool), box, spec)
        ignored = np.broadcast_to(never, (len(times), *never.shape))
        squares = np.stack([box.apply(frame) for frame in frames])
        where = f"{self.name}/{video.name}@{','.join(map(str, times))}"
        pictures = tuple(str(video.images[t]) for t in times)
        read, truth = brain_view(frames[0], spec), _stack(masks, ignored)
        return TrackingSample(squares, read, tuple(turns), truth, ignored, where, pictures)

    def pictures(self) -> Iterator[str]:
        """See `Source.pictures`."""
        return (str(image) for video in self.videos for image in video.images)

    def _times(
        self, video: Video, chosen: Sequence[Expression], spec: SampleSpec, rng: np.random.Generator
    ) -> list[int]:
        """I_0, on which the first expression's object is seen, then I_t, I_{t+1}, ... after a gap."""
        count = min(spec.frames, len(video))
        assert video.masks is not None
        for _ in range(TRIES):
            longest = len(video) - count
            gap = int(rng.integers(0, min(longest, spec.gap or longest) + 1))
            first = int(rng.integers(0, len(video) - count - gap + 1))
            objects = chosen[0].objects
            if not objects or video.masks.mask(objects, first).any():
                return [first, *range(first + gap + 1, first + gap + count)]
        raise InputError(f"{self.name}/{video.name}: {chosen[0].text!r} has no mask on {TRIES} frames that were tried")

    def _turn(
        self, expression: Expression, targets: int, spec: SampleSpec, rng: np.random.Generator
    ) -> tuple[str, str]:
        whole = self.instructions or is_instruction(expression.text)
        said = _said(expression, targets, expression.text if spec.echo and not whole else "", rng)
        if whole:
            return expression.text, said
        return ask(PHRASE_QUESTIONS, expression.text, rng), said


@dataclass(frozen=True)
class ConversationSource:
    """Conversations about pictures, in words alone; a dialogue of several rounds is one turn."""

    name: str
    conversations: ConversationFile

    def __len__(self) -> int:
        return len(self.conversations)

    def sample(self, item: int, spec: SampleSpec, rng: np.random.Generator) -> TrackingSample:
        """See `Source.sample`."""
        talk = self.conversations[item]
        grey = np.full((spec.read, spec.read, 3), 124, np.uint8)
        frame = grey if talk.image is None else read_image(talk.image)
        rounds = tuple((one.question, one.answer) for one in talk.rounds)
        grid = spec.side // STRIDE
        return TrackingSample(
            np.zeros((0, spec.side, spec.side, 3), np.uint8),
            brain_view(frame, spec),
            (rounds,),
            np.zeros((0, 0, grid, grid), bool),
            np.zeros((0, grid, grid), bool),
            f"{self.name}/{talk.name}",
        )

    def pictures(self) -> Iterator[str]:
        """None: conversations are not shown to the perception."""
        return iter(())


def _said(expression: Expression, targets: int, named: str, rng: np.random.Generator) -> str:
    """The answer that the set brings, where it has a <TK> for each target; or one of ours."""
    given = expression.tags.get("answer", "")
    return given if given and given.count(TRACK_TOKEN) == targets else answer(targets, rng, named)


def separate(expression: Expression, spec: SampleSpec) -> list[tuple[str, ...]]:
    """The objects of each <TK> of an expression: one each, or all in one where there are more than `spec.targets`."""
    if len(expression.objects) <= 1 or len(expression.objects) > spec.targets:
        return [expression.objects] if expression.objects else []
    return [(key,) for key in expression.objects]


def brain_view(frame: np.ndarray, spec: SampleSpec) -> np.ndarray:
    """A frame as the brain sees it at inference: uint8 (read, read, 3)."""
    if spec.fit == "centre-crop":
        frame = central_square(frame)
    return fit(frame.shape[:2], spec.read).apply(frame)


def compared(mask: np.ndarray, box: Letterbox, spec: SampleSpec) -> np.ndarray:
    """A mask, bool (height, width) of the frame, where the loss compares it: as it is, or on the decoder's grid."""
    return mask if spec.original else small(mask, box)


def unlearned(ignored: np.ndarray, box: Letterbox, spec: SampleSpec) -> np.ndarray:
    """What is not learned, of a frame's ignored pixels, bool (height, width); the grid has padding as well."""
    return ignored if spec.original else outside(box) | small(ignored, box, share=0.0)


def small(mask: np.ndarray, box: Letterbox, share: float = 0.5) -> np.ndarray:
    """A mask on the decoder's grid: set where more than `share` of a cell's pixels of the square are.

    Args:
        mask: bool (height, width) of the frame.
        box: how the frame lies in the square.
        share: 0.5 for a truth, 0.0 for what must not be learned at all.

    Returns:
        bool (side / 4, side / 4).
    """
    square = np.zeros((box.side, box.side), np.uint8)
    inner = cv2.resize(mask.astype(np.uint8), (box.width, box.height), interpolation=cv2.INTER_NEAREST_EXACT)
    square[box.top : box.top + box.height, box.left : box.left + box.width] = inner
    cells = square.reshape(box.side // STRIDE, STRIDE, box.side // STRIDE, STRIDE)
    return np.asarray(cells.mean(axis=(1, 3)) > share)


def outside(box: Letterbox) -> np.ndarray:
    """Cells that hold no pixel of the frame: bool (side / 4, side / 4)."""
    cells = np.ones((box.side // STRIDE, box.side // STRIDE), bool)
    bottom, right = -(-(box.top + box.height) // STRIDE), -(-(box.left + box.width) // STRIDE)
    cells[box.top // STRIDE : bottom, box.left // STRIDE : right] = False
    return cells


def _stack(masks: Sequence[Sequence[np.ndarray]], ignored: np.ndarray) -> np.ndarray:
    return np.array(masks, bool).reshape(-1, *ignored.shape)


# The sets by name


def _labels(reader: Callable[..., Any], name: str, root: Path, split: str) -> ImageSource:
    return ImageSource(name, reader(root, split) if split else reader(root), CLASS_QUESTIONS)


def _parts(reader: Callable[..., Any], name: str, root: Path, split: str) -> ImageSource:
    return ImageSource(name, reader(root, split) if split else reader(root), CLASS_QUESTIONS, parts=True)


def _phrases(name: str, root: Path, split: str) -> ImageSource:
    reader = grefcoco if name == "grefcoco" else partial(refcoco, name=name)
    return ImageSource(name, reader(root, split=split or "train"), PHRASE_QUESTIONS)


def _reasons(root: Path, split: str) -> ImageSource:
    samples = reason_seg(root, split or "train")
    explained = reason_seg_explanations(root) if (split or "train") == "train" else {}
    return ImageSource("reason-seg", samples, CLASS_QUESTIONS, reasons=explained)


def _videos(name: str, root: Path, split: str, wordings: Sequence[int] = ()) -> ClipSource:
    found = READERS[name](root, split or "train")
    videos = tuple(v for v in _heard(found, wordings) if v.masks is not None and v.expressions)
    if not videos:
        raise InputError(f"{root}: {name}, {split or 'train'} has no video with expressions and masks to learn from")
    return ClipSource(name, videos, instructions=name == "instrack")


def _heard(videos: Sequence[Video], wordings: Sequence[int]) -> Iterator[Video]:
    """Videos with the expressions of some wordings alone; those of sets that number none are all kept."""
    kept = {str(wording) for wording in wordings}
    for video in videos:
        said = tuple(e for e in video.expressions if not kept or e.tags.get("wording", "") in kept | {""})
        yield replace(video, expressions=said)


SOURCES: dict[str, Callable[..., Source]] = {
    **{
        name: partial(_labels, reader, name)
        for name, reader in (("ade20k", ade20k), ("coco-stuff", coco_stuff), ("mapillary", mapillary))
    },
    **{
        name: partial(_parts, reader, name)
        for name, reader in (("paco-lvis", paco_lvis), ("pascal-part", pascal_part), ("part-imagenet", part_imagenet))
    },
    **{name: partial(_phrases, name) for name in ("refclef", "refcoco", "refcoco+", "refcocog", "grefcoco")},
    "reason-seg": _reasons,
    "llava-instruct": lambda root, split: ConversationSource("llava-instruct", llava_instruct(root)),
    **{name: partial(_videos, name) for name in READERS},
}
"""What a mixture may name: each opens a data set below a root, for a split ("" is the one to train on)."""


def open_source(name: str, root: Path, split: str = "", wordings: Sequence[int] = ()) -> Source:
    """The data set `name` as samples; `wordings` as in `DataConfig`.

    Raises:
        UsageError: there is no such set.
        InputError: it is not below the root, or has nothing to learn from; `python -m data_tools check` says more.
    """
    if name not in SOURCES:
        raise UsageError(f"mixture: {name!r} is no data set; choose from {', '.join(SOURCES)}")
    found = SOURCES[name](root, split, *([wordings] if name in READERS else []))
    if not len(found):
        raise InputError(f"{root}: {name} is empty; see python -m data_tools check {name} {root}")
    return found
