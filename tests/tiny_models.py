"""Whole TrackGPTs with random weights, a few thousand parameters each, in the layouts of the real ones.

Import what a test needs: `tiny_trackgpt(tower="clip" | "conv", encoder="conv" | "sam_vit")`, `tiny_brain`.
`say` writes the answer of a brain before it is asked, so that generation can be tested without training anything.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trackgpt.config import (
    BrainConfig,
    DecoderConfig,
    EncoderConfig,
    LoraConfig,
    PerceptionConfig,
    TrackGPTConfig,
)
from trackgpt.reasoners.brain import Brain
from trackgpt.reasoners.templates import IMAGE_TOKEN, TrackTemplate
from trackgpt.systems.trackgpt import TrackGPT
from train.nano import build_tokenizer

LINES = (
    "Sure, I track the object. <TK>, <PO>",
    "Sure, I track 2 objects: the red car <TK>, <PO>; the dog <TK>, <PO>",
    "USER: can you track the red car in the video? ASSISTANT: no such thing",
)
ANSWER = "Sure, I track the red car. <TK>, <PO>"
PAIR = "the red car <TK>, <PO>; the dog <TK>, <PO>"
CHANNELS = [4, 8, 8, 16]
BLOCKS = [1, 1, 1, 1]
TINY_VIT: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 64,
    "window_size": 3,
    "global_attn_indexes": [1],
    "output_channels": 32,
    "num_pos_feats": 16,
}
"""SAM's image encoder on a square of 64 pixels, windows of 3 cells and one layer that sees all of them."""


@functools.cache
def tiny_tokenizer() -> Any:
    """A byte-level BPE of 300 ids; shared, so do not change it."""
    return build_tokenizer(LINES, vocabulary=300)


def tiny_llava(tower: str = "clip", image: int = 56, tied: bool = False) -> dict[str, Any]:
    """A `LlavaConfig` as a dictionary: a real CLIP tower (patch 14) or nano's convolutional one (stride 16)."""
    tokenizer = tiny_tokenizer()
    clip = {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": image,
        "patch_size": 14,
    }
    conv = {"model_type": "trackgpt_conv_tower", "channels": CHANNELS, "blocks": BLOCKS, "image_size": image}
    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": tied,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return {
        "vision_config": clip if tower == "clip" else conv,
        "text_config": text,
        "tie_word_embeddings": tied,
        "image_token_index": tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        "vision_feature_layer": -2 if tower == "clip" else -1,
        "vision_feature_select_strategy": "default" if tower == "clip" else "full",
    }


def tiny_brain_config(tower: str = "clip", image: int = 0, tied: bool = False, **fields: Any) -> BrainConfig:
    """Of a brain that sees a square of `image` pixels: 56 (16 tokens) with CLIP, 64 (16 tokens) with convolutions."""
    side = image or (56 if tower == "clip" else 64)
    values = {"max_answer_tokens": 24, "max_instruction_tokens": 40, "lora": LoraConfig(rank=0), **fields}
    return BrainConfig(llava=tiny_llava(tower, side, tied), image_side=side, **values)


def tiny_perception_config(encoder: str = "conv", width: int = 32, side: int = 64) -> PerceptionConfig:
    """Of a perception of `width` channels on a square of `side` pixels."""
    sam = {
        "hidden_size": 32,
        "output_channels": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": side,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
        "mlp_dim": 64,
        "num_pos_feats": width // 2,
    }
    decoder = DecoderConfig(
        hidden_size=width,
        mlp_dim=32,
        layers=1,
        heads=4,
        multimask=0 if encoder == "conv" else 3,
        iou_head_hidden=16,
        skips=encoder == "conv",
    )
    part = EncoderConfig(kind="conv", channels=CHANNELS, blocks=BLOCKS)
    if encoder == "sam_vit":
        part = EncoderConfig(kind="sam_vit", sam=sam)
    return PerceptionConfig(encoder=part, decoder=decoder, image_side=side)


def tiny_brain(tower: str = "clip", image: int = 0, tied: bool = False, seed: int = 0, **fields: Any) -> Brain:
    """A brain in evaluation mode; `fields` are those of `BrainConfig`. Its queries have 32 channels."""
    torch.manual_seed(seed)
    brain = Brain.from_config(tiny_brain_config(tower, image, tied, **fields), tiny_tokenizer(), 32)
    _liven(brain)
    return brain.eval()


def tiny_trackgpt(
    tower: str = "clip", encoder: str = "conv", tied: bool = False, seed: int = 0, width: int = 32, **fields: Any
) -> TrackGPT:
    """A whole model in evaluation mode; `fields` are those of `BrainConfig`. nano is ("conv", "conv", tied=True)."""
    config = TrackGPTConfig(
        name="tiny",
        brain=tiny_brain_config(tower, tied=tied, **fields),
        perception=tiny_perception_config(encoder, width),
    )
    torch.manual_seed(seed)
    model = TrackGPT.from_config(config, tiny_tokenizer())
    _liven(model)
    return model.eval()


@torch.no_grad()
def _liven(model: nn.Module) -> None:
    """Give normalisations statistics of their own, and weights a size at which inputs change outputs visibly."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.uniform_(0.7, 1.3)
            module.bias.uniform_(-0.2, 0.2)
    for name, parameter in model.named_parameters():
        if "language_model" in name and parameter.dim() > 1:
            parameter.mul_(8)
        elif "iou_prediction_head.proj_out.bias" in name:
            parameter.fill_(0.5)
        elif "image_encoder.vision_encoder" in name and parameter.dim() > 1:
            parameter.mul_(4)
        elif "mask_decoder" in name and "iou_prediction_head" not in name and parameter.dim() > 1:
            parameter.mul_(2)


class Script(nn.Module):
    """An output layer that ignores what it is given: it goes on with `ids` where they have been begun, or begins them.

    It reads along what the model `listens` to, because a model may read several tokens at once and take some back.
    """

    def __init__(self, ids: Sequence[int], vocabulary: int, listens: nn.Module) -> None:
        super().__init__()
        self.ids, self.vocabulary, self.heard = list(ids), vocabulary, list[int]()
        listens.register_forward_pre_hook(self.listen, with_kwargs=True)

    def listen(self, module: nn.Module, args: Any, given: dict[str, Any]) -> None:
        past = given["past_key_values"].get_seq_length() if "past_key_values" in given else 0
        self.heard = self.heard[:past] + given["input_ids"][0].tolist()

    def forward(self, hidden: Tensor) -> Tensor:
        logits = torch.zeros(*hidden.shape[:-1], self.vocabulary)
        for row, end in enumerate(range(len(self.heard) - len(hidden) + 1, len(self.heard) + 1)):
            logits[row, self.after(self.heard[:end])] = 1
        return logits

    def after(self, heard: list[int]) -> int:
        begun = (n for n in range(len(self.ids) - 1, 0, -1) if heard[-n:] == self.ids[:n])
        return self.ids[next(begun, 0)]


def dtypes(model: TrackGPT) -> set[torch.dtype]:
    """Of all weights that a loaded model has but the mask decoder's, which are always float32."""
    parts = model.segmenter.named_parameters()
    assert {value.dtype for name, value in parts if not name.startswith("image_encoder")} == {torch.float32}
    return {value.dtype for part in (model.brain, model.segmenter.image_encoder) for value in part.parameters()}


def say(brain: Brain, answer: str | Sequence[int]) -> list[int]:
    """Make a brain generate this answer from now on, whatever it sees; returns the answer's ids."""
    ids = brain.template.answer(answer) if isinstance(answer, str) else list(answer)
    brain.llava.lm_head = Script(ids, len(brain.template.tokenizer), brain.llava.model)
    return ids


class Given(TrackTemplate):
    """A template whose `answer` is the ids in its text, so that any ids can be forced: "5 17 2"."""

    def answer(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]


def frame(seed: int = 0, height: int = 36, width: int = 64) -> np.ndarray:
    """A frame of coloured patches, another one for each seed: uint8 RGB (height, width, 3)."""
    patches = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 3 // height, np.arange(width) * 4 // width
    return patches[rows[:, None], columns]


def square(brain: Brain, seed: int = 0) -> Tensor:
    """A padded square of coloured patches as `Brain.reason` takes it, uint8 (3, side, side)."""
    side = brain.config.image_side
    return torch.from_numpy(frame(seed, side, side)).permute(2, 0, 1)
