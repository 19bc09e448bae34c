"""The one schema of a TrackGPT, from nano to 13B: frozen dataclasses, the only place where defaults live.

A configuration is values only. It is read from YAML or JSON with strict keys and dotted overrides (OmegaConf structured
configs), and written into every checkpoint and every run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class LoraConfig:
    """LoRA on the language model's q_proj and v_proj (LISA's choice; the paper names LoRA and no numbers).

    rank 0 means no LoRA: the language model itself is trained, as nano is.
    """

    rank: int = field(default=8, metadata={"range": (0, 4096)})
    alpha: int = field(default=16, metadata={"range": (1, 65_536)})
    dropout: float = field(default=0.05, metadata={"range": (0.0, 1.0)})


@dataclass
class BrainConfig:
    """The reasoner: a LLaVA, or a model of another family, with two more tokens.

    Attributes:
        llava: transformers' configuration of the model as a dictionary; without `model_type` a `LlavaConfig`.
        projection_depth: linear layers of phi; 2 loads LISA's weights, the paper says 3.
        read_at: "predict" reads the hidden state that predicts <TK> / <PO> (as LISA does), "token" that of the token.
        image_side: side of the square the brain sees, in pixels.
        pixel_mean, pixel_std: of the image's channels in 0..1; CLIP's unless a checkpoint says otherwise.
        conversation: the words around image, instruction and answer (`reasoners.templates.CONVERSATIONS`).
        fit: "pad" shows the whole frame; "centre-crop" is what LISA's weights were trained with.
        answer: "generated" lets the model decide (and refuse); "forced" reads the queries off `forced_answer`.
        forced_answer: the teacher-forced answer of the paper's template.
        max_answer_tokens: generation stops here.
        max_instruction_tokens: a longer instruction is refused, never cut in silence.
        lora: see `LoraConfig`.
    """

    llava: Any = None
    projection_depth: int = field(default=2, metadata={"range": (1, 64)})
    read_at: str = field(default="predict", metadata={"choices": ("predict", "token")})
    image_side: int = field(default=336, metadata={"range": (1, 8192)})
    pixel_mean: list[float] = field(
        default_factory=lambda: [0.48145466, 0.4578275, 0.40821073], metadata={"range": (-1e3, 1e3)}
    )
    pixel_std: list[float] = field(
        default_factory=lambda: [0.26862954, 0.26130258, 0.27577711], metadata={"range": (1e-6, 1e3)}
    )
    conversation: str = field(
        default="vicuna",
        metadata={
            "choices": ("vicuna", "mistral", "llava-chatml", "lisa", "lisa-llama-2", "chatml", "qwen", "smolvlm"),
        },
    )
    fit: str = field(default="pad", metadata={"choices": ("pad", "centre-crop")})
    answer: str = field(default="generated", metadata={"choices": ("generated", "forced")})
    forced_answer: str = "Sure, I track the object. <TK>, <PO>"
    max_answer_tokens: int = field(default=96, metadata={"range": (1, 10**6)})
    max_instruction_tokens: int = field(default=512, metadata={"range": (1, 10**6)})
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass
class EncoderConfig:
    """The image encoder of the perception part.

    Attributes:
        kind: "sam_vit" (the paper), "sam2" (SAM 2.1's Hiera) or "conv" (nano: plain 3x3 convolutions, folded at load).
        sam: a `SamVisionConfig` as a dictionary for "sam_vit", a `Sam2VisionConfig` for "sam2".
        channels: output channels at strides 2, 4, 8 and 16, for "conv".
        blocks: number of 3x3 convolutions at each of those strides, for "conv".
    """

    kind: str = field(default="sam_vit", metadata={"choices": ("sam_vit", "sam2", "conv")})
    sam: Any = None
    channels: list[int] = field(default_factory=lambda: [32, 48, 96, 192], metadata={"range": (1, 65_536)})
    blocks: list[int] = field(default_factory=lambda: [1, 2, 4, 5], metadata={"range": (0, 1000)})


@dataclass
class DecoderConfig:
    """The revamped SAM mask decoder (paper section 3.4).

    Attributes:
        style: "sam"; "sam2" has an object token in front and a sigmoid at the end of the IoU head.
        hidden_size: width of all tokens and of the image embedding; 256 in SAM.
        mlp_dim, layers, heads: of the two-way transformer; 2048, 2, 8 in SAM.
        multimask: extra mask tokens of SAM, kept so that its weights load; the first mask is the one used.
        iou_head_depth, iou_head_hidden: SAM's IoU head, whose output is the purport score here.
        skips: add the encoder's stride-4 and stride-8 maps while upscaling ("conv" and "sam2" encoders).
        adapter_depth: linear layers between the online query's output and Q_{t+1}; the paper says 3.
        propagate: hand Q_t to the next frame; False is Table 3's baseline.
        purport: multiply the IoU token by Q_p; False leaves SAM's own, as LISA does.
    """

    style: str = field(default="sam", metadata={"choices": ("sam", "sam2")})
    hidden_size: int = field(default=256, metadata={"range": (1, 65_536)})
    mlp_dim: int = field(default=2048, metadata={"range": (1, 10**6)})
    layers: int = field(default=2, metadata={"range": (1, 1000)})
    heads: int = field(default=8, metadata={"range": (1, 1024)})
    multimask: int = field(default=3, metadata={"range": (0, 64)})
    iou_head_depth: int = field(default=3, metadata={"range": (1, 64)})
    iou_head_hidden: int = field(default=256, metadata={"range": (1, 65_536)})
    skips: bool = False
    adapter_depth: int = field(default=3, metadata={"range": (1, 64)})
    propagate: bool = True
    purport: bool = True


@dataclass
class PerceptionConfig:
    """Encoder and decoder, and the side in pixels of the padded square they see."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    image_side: int = field(default=1024, metadata={"range": (16, 8192)})


@dataclass
class MaskPropagationConfig:
    """nano's mask propagation network (see `trackgpt.perception.mask_propagation`).

    Attributes:
        kind: what tells such a folder from others.
        name: of the model.
        channels, blocks: of the convolutional encoder, at strides 2, 4, 8 and 16.
        width: of the maps at stride 16.
        key: of the vectors that cells are matched by.
        value: of what is read from remembered frames.
        side: of the square window that the network sees, pixels.
    """

    kind: str = field(default="mask_propagation", metadata={"choices": ("mask_propagation",)})
    name: str = "nano-memory"
    channels: list[int] = field(default_factory=lambda: [32, 48, 96, 192], metadata={"range": (1, 65_536)})
    blocks: list[int] = field(default_factory=lambda: [1, 2, 4, 5], metadata={"range": (0, 1000)})
    width: int = field(default=128, metadata={"range": (1, 65_536)})
    key: int = field(default=56, metadata={"range": (1, 65_536)})
    value: int = field(default=56, metadata={"range": (1, 65_536)})
    side: int = field(default=256, metadata={"range": (16, 8192)})


@dataclass
class BoxTransformerConfig:
    """A one-stream tracker of boxes (see `trackgpt.perception.box_transformer`).

    Attributes:
        kind: what tells such a folder from others.
        name: of the model.
        stem: how pixels become cells of 16 x 16 pixels: "patch", one convolution (ViT); "pyramid", Fast-iTPN's
            convolutional stages at strides 4 and 8 (DUTrack); "convolutions", nano's image encoder, whose normalisation
            never follows a batch, so that weights that were learned elsewhere stay what they are.
        stem_blocks: of the two stages of a "pyramid", or of the stages of "convolutions".
        stem_channels: of the stages of "convolutions".
        width, depth, heads, hidden: of the transformer; `hidden` is the width inside its MLPs.
        gated: MLPs are SwiGLU with a normalisation inside, and what attention and MLP add is scaled (Fast-iTPN); off is
            a plain ViT.
        temporal: what is handed on from frame to frame: "none" (OSTrack); "added", outputs of the temporal tokens that
            are added to learned ones (ODTrack); "handed", the first outputs as they are (DUTrack).
        temporal_tokens: how many.
        weighed: cells of the search window are multiplied by how alike they are to the first temporal token before the
            head reads them (ODTrack, DUTrack).
        words: most word pieces that are read, 0 for a tracker without words.
        vocabulary, word_width: of the table of word pieces.
        templates: views of the target that are looked at beside the search window, the first one included.
        template_side, search_side: of the two kinds of squares, pixels, multiples of 16.
        template_factor, search_factor: their sides in sizes of the target, which are roots of areas.
        segments: a learned vector for all cells of a template, and one for those of the search window.
        head: channels of the first layer of the centre head.
    """

    kind: str = field(default="box_transformer", metadata={"choices": ("box_transformer",)})
    name: str = "box-nano"
    stem: str = field(default="patch", metadata={"choices": ("patch", "pyramid", "convolutions")})
    stem_blocks: list[int] = field(default_factory=lambda: [3, 3], metadata={"range": (0, 1000)})
    stem_channels: list[int] = field(default_factory=list, metadata={"range": (1, 65_536)})
    width: int = field(default=192, metadata={"range": (8, 65_536)})
    depth: int = field(default=8, metadata={"range": (1, 1000)})
    heads: int = field(default=3, metadata={"range": (1, 1024)})
    hidden: int = field(default=768, metadata={"range": (8, 10**6)})
    gated: bool = False
    temporal: str = field(default="added", metadata={"choices": ("none", "added", "handed")})
    temporal_tokens: int = field(default=1, metadata={"range": (1, 64)})
    weighed: bool = True
    words: int = field(default=40, metadata={"range": (0, 512)})
    vocabulary: int = field(default=1536, metadata={"range": (1, 10**7)})
    word_width: int = field(default=192, metadata={"range": (1, 65_536)})
    templates: int = field(default=3, metadata={"range": (1, 16)})
    template_side: int = field(default=128, metadata={"range": (16, 2048)})
    search_side: int = field(default=256, metadata={"range": (16, 2048)})
    template_factor: float = field(default=2.0, metadata={"range": (1.0, 100.0)})
    search_factor: float = field(default=4.0, metadata={"range": (1.0, 100.0)})
    segments: bool = False
    head: int = field(default=128, metadata={"range": (8, 65_536)})


@dataclass
class RethinkConfig:
    """When the brain is asked again (Algorithm 1) and what that resets.

    Attributes:
        enabled: False never asks again (Table 3's ablation).
        ratio: tau = ratio x the first purport score of the track; the paper says 0.5.
        floor: an absolute lower bound for tau; 0 is the paper.
        rebase: a rethink's own first score becomes the new reference for tau.
        reset_online: a rethink restarts Q_t from the learned embedding; False lets it flow on.
        cooldown: frames that must pass between two rethinks; 0 is the paper.
        budget: the largest share of the frames so far that may be rethought, beyond a first rethink; 1 is the paper.
        search_every: while nothing is found, ask again every so many frames.
        ask: what the brain is asked on a rethink: "instruction", the paper; or "name", what its own answer called the
            one target that it names (see `trackgpt.reasoners.brain.name_of`), which stays true while "the leftmost
            one" becomes another.
    """

    enabled: bool = True
    ratio: float = field(default=0.5, metadata={"range": (0.0, 1e3)})
    floor: float = field(default=0.0, metadata={"range": (0.0, 1.0)})
    rebase: bool = False
    reset_online: bool = True
    cooldown: int = field(default=0, metadata={"range": (0, 10**9)})
    budget: float = field(default=1.0, metadata={"range": (0.0, 1.0)})
    search_every: int = field(default=8, metadata={"range": (1, 10**9)})
    ask: str = field(default="instruction", metadata={"choices": ("instruction", "name")})


@dataclass
class TrackGPTConfig:
    """A whole TrackGPT: name, brain, perception and the loop's rule."""

    name: str = "trackgpt"
    brain: BrainConfig = field(default_factory=BrainConfig)
    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    rethink: RethinkConfig = field(default_factory=RethinkConfig)
    mask_threshold: float = field(default=0.0, metadata={"range": (-1e6, 1e6)})
    min_area: float = field(default=0.0002, metadata={"range": (0.0, 1.0)})


@dataclass(frozen=True)
class Execution:
    """Runtime settings: they change the speed; results differ by rounding only. Not part of a saved model.

    Attributes:
        dtype: "float32", "bfloat16", or "auto": bfloat16 where this machine is measured to be faster with it. On a GPU
            "int8" and "int4" as well: the language model's matrices quantised, all else in bfloat16. The mask decoder
            computes in float32 with all of them.
        backend: of encoder and mask decoder: "torch", or "onnxruntime" (CPU; needs the extra `onnx`; an encoder in
            bfloat16 stays in PyTorch).
        packed: on a CPU the kernels of nano's convolutions are arranged once, as oneDNN computes with them, and not at
            every frame; `compile` does so itself.
        compile: encoder and mask decoder go through `torch.compile` with fixed shapes, a minute at the first frame.
    """

    dtype: str = field(default="float32", metadata={"choices": ("auto", "float32", "bfloat16", "int8", "int4")})
    backend: str = field(default="torch", metadata={"choices": ("torch", "onnxruntime")})
    packed: bool = True
    compile: bool = False
