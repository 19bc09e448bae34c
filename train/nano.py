"""A new nano: its configuration, and its tokenizer, learned from SynthTrack's language."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from trackgpt.config import BrainConfig, DecoderConfig, EncoderConfig, LoraConfig, PerceptionConfig, TrackGPTConfig
from trackgpt.reasoners.templates import IMAGE_TOKEN, PURPORT_TOKEN, TRACK_TOKEN
from trackgpt.synthtrack.questions import corpus
from trackgpt.systems.trackgpt import TrackGPT
from train.codes import WIDTH

CHANNELS = [32, 48, 96, 192]
BLOCKS = [1, 2, 4, 5]
BRAIN_SIDE = 128


def build_tokenizer(lines: Iterable[str], vocabulary: int = 1536) -> Any:
    """A byte-level BPE tokenizer (any text encodes) with LLaVA's special tokens and the two query tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<unk>", "<s>", "</s>", "<pad>", IMAGE_TOKEN, TRACK_TOKEN, PURPORT_TOKEN]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=[IMAGE_TOKEN, TRACK_TOKEN, PURPORT_TOKEN],
    )


def nano_config(tokenizer: Any, width: int = 192, layers: int = 5, image_side: int = 256) -> TrackGPTConfig:
    """The configuration of nano for a tokenizer."""
    llava = {
        "vision_config": {
            "model_type": "trackgpt_conv_tower",
            "channels": CHANNELS,
            "blocks": BLOCKS,
            "image_size": BRAIN_SIDE,
        },
        "text_config": {
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": width * 8 // 3,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 32,
            "num_key_value_heads": width // 32,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        "tie_word_embeddings": True,
        "image_token_index": tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "image_seq_length": (BRAIN_SIDE // 16) ** 2,
        "projector_hidden_act": "gelu",
    }
    brain = BrainConfig(
        llava=llava,
        image_side=BRAIN_SIDE,
        max_instruction_tokens=128,
        max_answer_tokens=96,
        lora=LoraConfig(rank=0),
    )
    decoder = DecoderConfig(hidden_size=WIDTH, mlp_dim=512, heads=4, multimask=0, iou_head_hidden=WIDTH, skips=True)
    encoder = EncoderConfig(kind="conv", channels=CHANNELS, blocks=BLOCKS)
    perception = PerceptionConfig(encoder=encoder, decoder=decoder, image_side=image_side)
    return TrackGPTConfig(name="nano", brain=brain, perception=perception)


def new_nano(seed: int = 0) -> TrackGPT:
    """A nano with random weights and a fresh tokenizer, the same for the same seed."""
    tokenizer = build_tokenizer(corpus(seed, 20_000))
    torch.manual_seed(seed)
    return TrackGPT.from_config(nano_config(tokenizer), tokenizer)
