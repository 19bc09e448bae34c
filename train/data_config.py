"""What the three-part recipe learns from and is validated on: values alone, so that they are read quickly."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Kind:
    """Sets that share one weight equally."""

    weight: float = 1.0
    sets: list[str] = field(default_factory=list)


@dataclass
class DataConfig:
    """What a stage learns from.

    Attributes:
        root: folder below which all sets lie, under any of the names that projects give them.
        roots: of sets that lie elsewhere, by name.
        splits: of sets whose training split is not the one to use, by name.
        mixture: kinds with their weights; LISA's are semantic 9, referring 3, talk 3, reasoning 1.
        frames: unrolled of a video, I_0 included; 1 for images.
        turns: most instructions of a sample.
        targets: most targets of an instruction that get a <TK> each.
        gap: most frames between I_0 and I_t; 0 for any.
        wordings: of an instruction that are heard, 0 the seed, 1 to 5 its paraphrases; empty for all (Table 4's
            ablation without rephrasing is [0]).
        echo: answers to classes and phrases repeat them ("Sure, I track the red cat."), where a set brings no answers
            of its own; False answers with the paper's template.
        own_answers: share of answers that are read in the brain's own words, so that the purport score learns what its
            mistakes look like; 0 reproduces the paper.
        mask_loss: where masks are compared: on the decoder's "grid", a quarter of the square's side, or at the frames'
            "original" resolution, as LISA does; what that takes is told in `train.truth`.
        detach: do not let gradients flow from frame to frame through Q_t.
        cache: folder of the frozen encoder's features (see `train.feature_cache`); empty encodes in every step.
    """

    root: str = "data"
    roots: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    mixture: dict[str, Kind] = field(default_factory=dict, metadata={"of": Kind})
    frames: int = 1
    turns: int = 3
    targets: int = 1
    gap: int = 0
    wordings: list[int] = field(default_factory=list)
    echo: bool = False
    own_answers: float = 0.0
    mask_loss: str = field(default="grid", metadata={"choices": ("grid", "original")})
    detach: bool = False
    cache: str = ""


@dataclass
class ValidationConfig:
    """What to validate on while a run goes on (see `train.validation`).

    Attributes:
        kit: "synthtrack", or a benchmark of `python -m eval`; empty validates on nothing.
        data: its root; empty for that of the training data. Not needed by synthtrack.
        split: of the benchmark, e.g. "valid"; of synthtrack "train".
        tasks: videos.
    """

    kit: str = ""
    data: str = ""
    split: str = "train"
    tasks: int = 8
