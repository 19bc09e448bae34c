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
        shown: a picture, or a video for its first frame, and the mask of its object, which is then the target of every
            drawn clip (see `trackgpt.synthtrack.reenacted`).
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
    shown: list[str] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)
    share: float = field(default=1.0, metadata={"range": (0.0, 1.0)})
    learn: str = field(default="decoder-memory", metadata={"choices": ("decoder-memory", "lora", "all")})


@dataclass
class TapoSettings:
    """Temporal Perception-Aware Policy Optimization (see `train.grpo`).

    Attributes:
        weight: of what a token gains by the true frames, gamma in the paper; 0 is plain GRPO.
        mode: "advantage", with the gradient of the paper's divergence; "loss", that of PAPO's k3, for comparison.
        corruption: what takes motion out of the frames: "freeze", "shuffle" or "drop".
        keep: temporal keep rate, the share of the frames after the first that stay as they are.
        clip: nats per token.
        norm_every: steps between measurements of the term's own gradient, one more forward and backward each; 0 never.
    """

    weight: float = field(default=0.0, metadata={"range": (0.0, 100.0)})
    mode: str = field(default="advantage", metadata={"choices": ("advantage", "loss")})
    corruption: str = field(default="freeze", metadata={"choices": ("freeze", "shuffle", "drop")})
    keep: float = field(default=0.0, metadata={"range": (0.0, 1.0)})
    clip: float = field(default=5.0, metadata={"range": (1e-6, 1e6)})
    norm_every: int = field(default=0, metadata={"range": (0, 10**8)})


@dataclass
class AnswerTraining:
    """How TRL trains a model that answers (see `train.answer_training`).

    Attributes:
        lora: rank of adapters on the language model, merged in the end; 0 tunes the whole model.
        vision: the vision tower learns, too, where the whole model does; LLaMA-Factory, and with it the released
            describer, holds it.
        reward_weights: of terms that win over the set's own.
        group: answers to a question; `plan.batch * plan.accumulate * processes` is a multiple of it.
        tokens: most of an answer.
        temperature: of the sampling.
        beta: of the divergence from the model at the beginning; 0 needs no second model.
        bias_corrected: that divergence, k3, is multiplied by the importance ratio, with which its gradient is right.
        epsilon: of the clipped ratio.
        iterations: updates from the same answers.
        average: TRL's `loss_type`: "bnpo", over the tokens of a batch, is that of the released code.
        entropy: weight of the bonus for entropy.
        tapo: see there.
    """

    lora: int = field(default=0, metadata={"range": (0, 4096)})
    vision: bool = True
    reward_weights: dict[str, float] = field(default_factory=dict, metadata={"range": (0.0, 1e6)})
    group: int = field(default=8, metadata={"range": (2, 65_536)})
    tokens: int = field(default=1024, metadata={"range": (1, 10**6)})
    temperature: float = field(default=1.0, metadata={"range": (1e-3, 100.0)})
    beta: float = field(default=0.0, metadata={"range": (0.0, 100.0)})
    bias_corrected: bool = True
    epsilon: float = field(default=0.2, metadata={"range": (1e-6, 1.0)})
    iterations: int = field(default=1, metadata={"range": (1, 1000)})
    average: str = field(default="bnpo", metadata={"choices": ("grpo", "bnpo", "dr_grpo", "dapo")})
    entropy: float = field(default=0.0, metadata={"range": (0.0, 100.0)})
    tapo: TapoSettings = field(default_factory=TapoSettings)


@dataclass
class PolicyTraining(AnswerTraining):
    """How the stages "sft" and "grpo" train a policy that answers with trajectories (see `train.policy_training`).

    Attributes:
        data: a tree of RMOT26, or the folder above it.
        part: of it.
        paper: by the paper's protocol: two frames, no initial box, the present frame alone is asked of.
        frames: most frames after the reference in a question of ours; 0 asks about one frame alone.
        known: share of the questions of ours that say where the objects are on the reference.
        stride: frames from one reference to the next in a clip; 0 for its own alone.
        jitter: how far the places that a question says are off, see `train.query_rows.RowMaker`.
        rewards: "paper", "released" or "ours" (see `train.rewards`).
    """

    data: str = "data"
    part: str = field(default="train", metadata={"choices": ("train", "test")})
    paper: bool = False
    frames: int = field(default=8, metadata={"range": (0, 1000)})
    known: float = field(default=1.0, metadata={"range": (0.0, 1.0)})
    stride: int = field(default=0, metadata={"range": (0, 10**6)})
    jitter: float = field(default=0.0, metadata={"range": (0.0, 1.0)})
    rewards: str = field(default="ours", metadata={"choices": ("paper", "released", "ours")})


@dataclass
class DescriberTraining(AnswerTraining):
    """How the stages "describer_sft" and "describer_grpo" train a describer (see `train.describer_training`).

    Attributes:
        records: folder of the released records, *.json; of the stage "describer_sft" alone, in the place of pairs.
        images: folder below which the images of the records lie; empty leaves their paths as they are.
        sets: folders of real video by the name of their layout, see `BoxConfig.sets`; of the stage "describer_grpo"
            alone. None for SynthTrack's pairs, which need no folder.
        pairs: pairs of frames that are drawn from SynthTrack or `sets`; they come again after that many.
        split: of SynthTrack's pairs; of `sets` the part "train" is read.
        gap: most frames from the first frame of a pair to the second.
        draw: draw the target's box on the first frame.
        tracker: folder or checkpoint of the box tracker that follows with the old words and the new ones; empty where
            no reward needs one.
        window: frames that it follows.
        rewards: "paper" or "ours" (see `train.description_rewards`).
    """

    records: str = ""
    images: str = ""
    sets: dict[str, str] = field(default_factory=dict)
    pairs: int = field(default=100_000, metadata={"range": (1, 10**9)})
    split: str = field(default="train", metadata={"choices": ("train", "test")})
    gap: int = field(default=40, metadata={"range": (1, 10**6)})
    draw: bool = True
    tracker: str = ""
    window: int = field(default=8, metadata={"range": (1, 1000)})
    rewards: str = field(default="ours", metadata={"choices": ("paper", "ours")})


POLICY_STAGES = ("sft", "grpo")
DESCRIBER_STAGES = ("describer_sft", "describer_grpo")
TRL_STAGES = POLICY_STAGES + DESCRIBER_STAGES
"""Stages that TRL trains, see `train.answer_training`."""


@dataclass
class BoxConfig:
    """How the stage "box" makes samples and a new tracker (see `train.box_tracking`).

    Attributes:
        size: of a new tracker, a name in `trackgpt.perception.box_transformer.SIZES`.
        words: the language model whose tokenizer and word table a new tracker begins with, by folder or hub id; empty
            for nano's tokenizer and a random table.
        stem: the model whose image encoder the convolutions of a new tracker begin with: a TrackGPT with such a tower,
            or a nano-memory; empty for random ones.
        hold_stem: the stem learns nothing.
        sets: folders by the name of their layout: lasot, got10k, tnl2k, tnllt, otb-lang; what SynthTrack writes in
            these layouts is read alike. None for SynthTrack's scenes alone, which need no folder.
        share: of samples that come from `sets`, each of which is as likely as another.
        gap: most frames from one sampled frame to the next.
        searches: search windows of a sample, which come after its templates; temporal tokens go from one to the next.
        centre: how far a search window lies from the target: up to half of this, in sizes of the target.
        scale: deviation of the logarithm of its size.
        wordless: share of samples whose words are left out, so that the tracker also follows a box alone.
        described: share of the samples of SynthTrack's scenes whose words describe the target on its last template, as
            a describer would; the others have those of an instruction about the first frame.
        spoilt: share of the samples with words whose templates tell little: blurred, grey, beside the target, or blank;
            the words must tell the rest.
        randomised: share of the drawn samples that are of domain-randomised clips, which have no words.
    """

    size: str = field(default="nano", metadata={"choices": ("nano", "b-256", "b-384")})
    words: str = ""
    stem: str = ""
    hold_stem: bool = False
    sets: dict[str, str] = field(default_factory=dict)
    share: float = field(default=1.0, metadata={"range": (0.0, 1.0)})
    gap: int = field(default=200, metadata={"range": (1, 10**6)})
    searches: int = field(default=2, metadata={"range": (1, 64)})
    centre: float = field(default=3.5, metadata={"range": (0.0, 8.0)})
    scale: float = field(default=0.5, metadata={"range": (0.0, 4.0)})
    wordless: float = field(default=0.1, metadata={"range": (0.0, 1.0)})
    described: float = field(default=0.5, metadata={"range": (0.0, 1.0)})
    spoilt: float = field(default=0.0, metadata={"range": (0.0, 1.0)})
    randomised: float = field(default=0.0, metadata={"range": (0.0, 1.0)})


@dataclass
class TrainConfig:
    """Configuration of one stage.

    Attributes:
        stage: "tracking", the three-part recipe on data sets (see `train.tracking`); "memory", the memory segmenter
            (see `train.memory_tracking`); "box", the box tracker (see `train.box_tracking`); "sft" or "grpo", a policy
            that answers with trajectories (see `train.policy_training`); "describer_sft" or "describer_grpo", a
            describer (see `train.describer_training`); or a part of nano's foundation, a name in
            `train.stages.STAGES`.
        out: the run's folder: checkpoints, log, curves, previews, and the model under `model/`.
        brain: the model to start from, by a name `trackgpt.hub.load_model` knows; empty for a new nano. In the stage
            "memory" it is a memory segmenter (nano-memory, or a SAM 2.1 with its memory, by folder or hub id), or a
            TrackGPT whose convolutional encoder a new nano-memory begins with; in the stage "box" a box tracker, by
            folder or checkpoint; for a policy and a describer a vision-language model.
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
        policy: of the stages "sft" and "grpo".
        describer: of the stages "describer_sft" and "describer_grpo".
        box: samples and tracker of the stage "box".
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
    policy: PolicyTraining = field(default_factory=PolicyTraining)
    describer: DescriberTraining = field(default_factory=DescriberTraining)
    box: BoxConfig = field(default_factory=BoxConfig)
    device: str = field(default="auto", metadata={"choices": ("auto", "cpu", "cuda")})
    threads: int = field(default=0, metadata={"range": (0, 4096)})
    previews: bool = True
    plan: Plan = field(default_factory=Plan)

    @property
    def answers_name(self) -> str:
        """Of a stage that TRL trains, the name of its own settings."""
        return "describer" if self.stage in DESCRIBER_STAGES else "policy"

    @property
    def answers(self) -> AnswerTraining:
        """Of a stage that TRL trains, its own settings."""
        return self.describer if self.stage in DESCRIBER_STAGES else self.policy


MAY_CHANGE = frozenset(
    (
        "out",
        "device",
        "threads",
        "previews",
        "validate",
        "data.root",
        "data.roots",
        "data.cache",
        "memory.sets",
        "policy.data",
        "describer.records",
        "describer.images",
        "describer.sets",
        "describer.tracker",
        "box.sets",
    )
    + tuple(f"plan.{name}" for name in ("steps", "minutes", "save_minutes", "save_every", "keep", "log_every"))
    + tuple(f"plan.{name}" for name in ("validate_every", "workers", "max_skipped", "checkpointing", "zero", "offload"))
    + ("plan.tensorboard", "plan.wandb", "policy.tapo.norm_every", "describer.tapo.norm_every")
)
"""Settings that may change when a run goes on. With other `plan.steps` the learning rate follows the new schedule."""
