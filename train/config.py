"""What a run is configured with: one schema for `python -m train`, read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from train.plan import Plan


@dataclass
class Kind:
    """Data sets that share one sampling weight equally."""

    weight: float = field(default=1.0, metadata={"range": (1e-9, 1e9)})
    sets: list[str] = field(default_factory=list)


@dataclass
class DataConfig:
    """Training data of a stage.

    Attributes:
        root: folder below which all sets lie, under any of the names that projects give them.
        roots: of sets that lie elsewhere, by name.
        splits: of sets whose training split is not the one to use, by name.
        mixture: kinds with their weights; LISA's are semantic 9, referring 3, talk 3, reasoning 1.
        frames: unrolled of a video, I_0 included; 1 for images.
        turns: most instructions of a sample.
        targets: most targets of an instruction that get a <TK> each.
        gap: most frames between I_0 and I_t; 0 for any.
        wordings: of an instruction that are used, 0 the seed, 1 to 5 its paraphrases; empty for all (Table 4's
            ablation without rephrasing is [0]).
        echo: answers to classes and phrases repeat them ("Sure, I track the red cat."), where a set brings no answers
            of its own; False answers with the paper's template.
        own_answers: share of answers replaced by the brain's own, so that the purport score learns what its mistakes
            look like; 0 reproduces the paper.
        mask_loss: where masks are compared: on the decoder's "grid", a quarter of the square's side, or at the frames'
            "original" resolution, as LISA does; `train.truth` gives the memory of both.
        detach: stop gradients through Q_t from frame to frame.
        cache: folder of the frozen encoder's features (see `train.feature_cache`); empty encodes in every step.
    """

    root: str = "data"
    roots: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    mixture: dict[str, Kind] = field(default_factory=dict, metadata={"of": Kind})
    frames: int = field(default=1, metadata={"range": (1, 1000)})
    turns: int = field(default=3, metadata={"range": (1, 1000)})
    targets: int = field(default=1, metadata={"range": (1, 1000)})
    gap: int = field(default=0, metadata={"range": (0, 10**6)})
    wordings: list[int] = field(default_factory=list, metadata={"range": (0, 5)})
    echo: bool = False
    own_answers: float = field(default=0.0, metadata={"range": (0.0, 1.0)})
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
    tasks: int = field(default=8, metadata={"range": (1, 10**6)})


@dataclass(frozen=True)
class Shape:
    """The size of a foundation sample.

    Attributes:
        side: of the padded square, pixels.
        frames: unrolled per clip.
        targets: per clip; in "join" instructions per clip.
    """

    side: int = field(default=128, metadata={"range": (16, 4096)})
    frames: int = field(default=3, metadata={"range": (1, 1000)})
    targets: int = field(default=2, metadata={"range": (1, 1000)})


@dataclass
class TowerConfig:
    """A convolutional vision tower on a larger square than that of the model to start from.

    Attributes:
        side: of the square, pixels; 0 keeps the tower as it is.
        merging: convolutions behind the encoder, the first of which makes one token of 2 x 2 cells; 0 for none.
    """

    side: int = field(default=0, metadata={"range": (0, 4096)})
    merging: int = field(default=0, metadata={"range": (0, 16)})


@dataclass
class SeeingConfig:
    """What the stage "seeing" shows to the tower (see `train.seeing`).

    Attributes:
        window: side of the windows of a frame that are read, pixels; 0 reads whole frames.
        mosaics: share of pictures that are packed with sprites; the others are ordinary scenes.
        hold: the encoder's convolutions do not learn.
    """

    window: int = field(default=0, metadata={"range": (0, 4096)})
    mosaics: float = field(default=0.7, metadata={"range": (0.0, 1.0)})
    hold: bool = False


@dataclass
class JoinConfig:
    """What the stage "join" does to targets, so that the purport score learns what failures look like.

    Attributes:
        swap: share of targets that are followed by another target's queries from some frame on: the tracker has gone
            over to another object. Their masks are not learned.
        drift: share of targets whose online query is lost on the way and becomes another target's.
    """

    swap: float = field(default=0.0, metadata={"range": (0.0, 1.0)})
    drift: float = field(default=0.0, metadata={"range": (0.0, 1.0)})


@dataclass
class MemoryConfig:
    """How the stage "memory" unrolls a clip (see `train.memory_tracking`).

    Attributes:
        prompts: shares of targets that are shown by a mask, by a box and by a point.
        refine: share of batches in which a first frame is looked at twice.
        click: share of later frames that get a corrective click.
        force: share of later masks that are remembered as they truly are.
        spoil: share of remembered masks that are damaged.
        drop: share of targets without each of the last mask, what is carried over, and what is read.
        echo: how often a drawn clip is used, the second time mirrored, in other colours and backwards.
        sets: folders of real video with masks, laid out as DAVIS, YouTube-VOS or MOSE (see `train.memory_sets`); none
            for domain-randomised clips alone.
        share: of clips that come from `sets`; the others are domain-randomised.
        learn: what learns of a SAM 2.1 (see `train.sam2_tracking`): "decoder-memory", all but the image encoder;
            "lora", low-rank adapters on the attention of memory and image encoder; "all". Of nano-memory all learns.
    """

    prompts: list[float] = field(default_factory=lambda: [0.4, 0.4, 0.2], metadata={"range": (0.0, 1.0)})
    refine: float = field(default=0.5, metadata={"range": (0.0, 1.0)})
    click: float = field(default=0.15, metadata={"range": (0.0, 1.0)})
    force: float = field(default=0.0, metadata={"range": (0.0, 1.0)})
    spoil: float = field(default=0.0, metadata={"range": (0.0, 1.0)})
    drop: float = field(default=0.1, metadata={"range": (0.0, 1.0)})
    echo: int = field(default=2, metadata={"range": (1, 2)})
    sets: list[str] = field(default_factory=list)
    share: float = field(default=1.0, metadata={"range": (0.0, 1.0)})
    learn: str = field(default="decoder-memory", metadata={"choices": ("decoder-memory", "lora", "all")})


@dataclass
class TrainConfig:
    """Configuration of one stage.

    Attributes:
        stage: "tracking", the three-part recipe on data sets (see `train.tracking`); "memory", the memory segmenter
            (see `train.memory_tracking`); or a part of nano's foundation, a name in `train.stages.STAGES`.
        out: the run's folder: checkpoints, log, curves, previews, and the model under `model/`.
        brain: the model to start from, by a name `trackgpt.hub.load_model` knows; empty for a new nano. In the stage
            "memory" it is a memory segmenter (nano-memory, or a SAM 2.1 with its memory, by folder or hub id), or a
            TrackGPT whose convolutional encoder a new nano-memory begins with.
        perception: load the perception from this model instead.
        encoder_from_tower: start the perception's encoder from the brain's vision tower.
        matching_heads: initialise attention heads that match words to image patches (see `train.mimetic`).
        random_encoder: start from an image encoder with random weights (Table 4's ablation).
        new_referring: start from random weights for all that TrackGPT adds to LLaVA and SAM.
        propagate: pass Q_t from frame to frame; false is Table 3's baseline, in training and in the exported model.
        frozen: parts that do not learn: "brain", "perception", "language" (the brain without phi).
        data: of the stage "tracking".
        validate: on what, every `plan.validate_every` steps.
        tower: of the brain, where it is to be larger than that of the model to start from.
        seeing: of the stage "seeing".
        join: of the stage "join".
        shape: of the foundation's samples, and of the memory segmenter's clips.
        memory: how the stage "memory" unrolls them.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads for the arithmetic; 0 leaves torch's choice.
        previews: draw answers and tracks in SynthTrack after every checkpoint.
        plan: see `train.plan.Plan`.
    """

    stage: str = "words"
    out: str = "runs/words"
    brain: str = ""
    perception: str = ""
    encoder_from_tower: bool = False
    matching_heads: bool = False
    random_encoder: bool = False
    new_referring: bool = False
    propagate: bool = True
    frozen: list[str] = field(default_factory=list, metadata={"choices": ("brain", "perception", "language")})
    data: DataConfig = field(default_factory=DataConfig)
    validate: ValidationConfig = field(default_factory=ValidationConfig)
    tower: TowerConfig = field(default_factory=TowerConfig)
    seeing: SeeingConfig = field(default_factory=SeeingConfig)
    join: JoinConfig = field(default_factory=JoinConfig)
    shape: Shape = field(default_factory=Shape)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    device: str = field(default="auto", metadata={"choices": ("auto", "cpu", "cuda")})
    threads: int = field(default=0, metadata={"range": (0, 4096)})
    previews: bool = True
    plan: Plan = field(default_factory=Plan)


MAY_CHANGE = frozenset(
    ("out", "device", "threads", "previews", "validate", "data.root", "data.roots", "data.cache", "memory.sets")
    + tuple(f"plan.{name}" for name in ("steps", "minutes", "save_minutes", "save_every", "keep", "log_every"))
    + tuple(f"plan.{name}" for name in ("validate_every", "workers", "max_skipped", "checkpointing", "zero", "offload"))
    + ("plan.tensorboard", "plan.wandb")
)
"""Settings that may change when a run goes on. With other `plan.steps` the learning rate follows the new schedule."""
