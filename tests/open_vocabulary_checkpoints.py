"""Open-vocabulary detectors, tiny and random, in the layouts in which a hub holds them.

Each writer of `FAMILIES` fills a folder with what transformers' own classes save, and returns the model itself.
"""

import functools
import json
import string
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    BertTokenizer,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessorPil,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessorPil,
)

WORDS = ("a", "the", "dog", "person", "man", "in", "white", "on", "left", "all", "two", "red", "car")
LETTERS = string.ascii_lowercase + string.digits


@functools.cache
def bert_words() -> BertTokenizer:
    """BERT's special tokens, dot and question mark at their real ids, which Grounding DINO knows by heart."""
    vocab = {f"[unused{i}]": i for i in range(1100)}
    known = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ",": 1010, ".": 1012, "?": 1029}
    known |= {name: 200 + i for i, name in enumerate([*WORDS, *LETTERS[1:], *(f"##{c}" for c in LETTERS)])}
    ids = set(known.values())
    vocab = {name: i for name, i in vocab.items() if i not in ids} | known
    return BertTokenizer(vocab=dict(sorted(vocab.items(), key=lambda pair: pair[1])), model_max_length=512)


@functools.cache
def clip_words() -> CLIPTokenizer:
    """CLIP's tokenizer as OWL has it: padded by "!", the id 0, to 16 tokens; the end has the largest id."""
    names = ["!", *LETTERS, ",", ".", *(f"{c}</w>" for c in ("!", *LETTERS, ",", "."))]
    merges = ["d o", "do g</w>", "r e", "re d</w>", "c a", "ca r</w>", "t h", "th e</w>", "m a", "ma n</w>"]
    names += [merge.replace(" ", "") for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    vocab = {name: i for i, name in enumerate(names)}
    pairs: Any = [tuple(merge.split()) for merge in merges]
    return CLIPTokenizer(vocab=vocab, merges=pairs, pad_token="!", model_max_length=16)


@torch.no_grad()
def spread(model: nn.Module) -> nn.Module:
    """Weights with which boxes of all sizes lie all over the image, with scores all over 0 to 1."""
    for name, weight in model.named_parameters():
        if name.endswith(("bbox_embed.0.layers.2.weight", "bbox_embed.1.layers.2.weight")):
            weight.normal_(0, 1.0)
        elif name.endswith("box_head.dense2.weight"):
            weight.normal_(0, 0.02)
        elif name.endswith("decoder.layer_norm.weight"):
            weight.fill_(0.3)
        elif name.endswith(("class_embed.0.bias", "class_embed.1.bias")):  # -4.6 before training
            weight.fill_(0.0)
    return model.eval()


def grounding_dino(folder: Path) -> nn.Module:
    """As IDEA-Research/grounding-dino-tiny."""
    return _dino(folder, GroundingDinoForObjectDetection, GroundingDinoConfig(**_dino_config()))


def mm_grounding_dino(folder: Path) -> nn.Module:
    """As openmmlab-community/mm_grounding_dino_* and iSEE-Laboratory/llmdet_*: no head is shared between layers."""
    config = MMGroundingDinoConfig(**_dino_config(), decoder_bbox_embed_share=False, decoder_cls_embed_share=False)
    return _dino(folder, MMGroundingDinoForObjectDetection, config)


def _dino_config() -> dict[str, Any]:
    swin = {"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2], "window_size": 2}
    bert = {"model_type": "bert", "vocab_size": 1100, "hidden_size": 32, "intermediate_size": 32}
    values: dict[str, Any] = {"backbone_config": swin | {"out_indices": [2, 3, 4]}, "d_model": 64, "num_queries": 12}
    values["text_config"] = bert | {"num_hidden_layers": 1, "num_attention_heads": 2}
    values |= {"encoder_layers": 1, "decoder_layers": 2}
    values |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32)
    return values | dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)


def _dino(folder: Path, kind: Any, config: Any) -> nn.Module:
    torch.manual_seed(5)
    model = spread(kind(config))
    model.save_pretrained(folder)
    bert_words().save_pretrained(folder)
    GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 107}).save_pretrained(folder)
    return model


def owlv2(folder: Path) -> nn.Module:
    """As google/owlv2-base-patch16-ensemble."""
    torch.manual_seed(6)
    model = spread(Owlv2ForObjectDetection(Owlv2Config(**_owl_config())))
    return _owl(folder, model, Owlv2ImageProcessorPil(size={"height": 64, "width": 64}))


def owlvit(folder: Path) -> nn.Module:
    """As google/owlvit-base-patch32."""
    torch.manual_seed(7)
    model = spread(OwlViTForObjectDetection(OwlViTConfig(**_owl_config())))
    return _owl(folder, model, OwlViTImageProcessorPil(size={"height": 64, "width": 64}))


def _owl_config() -> dict[str, Any]:
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": clip_words().bos_token_id, "eos_token_id": clip_words().eos_token_id, "pad_token_id": 0}
    text = tower | ids | {"vocab_size": len(clip_words()), "max_position_embeddings": 16}
    return {"text_config": text, "vision_config": tower | {"image_size": 64, "patch_size": 8}, "projection_dim": 32}


def _owl(folder: Path, model: Any, images: Any) -> nn.Module:
    model.save_pretrained(folder)
    clip_words().save_pretrained(folder)
    images.save_pretrained(folder)
    return model


FAMILIES = {
    "grounding-dino": grounding_dino,
    "mm-grounding-dino": mm_grounding_dino,
    "owlv2": owlv2,
    "owlvit": owlvit,
}
"""A writer of each family, by transformers' name."""


def as_the_hub_has_owl(folder: Path) -> None:
    """Replace tokenizer.json by the files of 2022: vocab.json, merges.txt and what is added."""
    held = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(held["vocab"]))
    merges = (pair if isinstance(pair, str) else " ".join(pair) for pair in held["merges"])
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    described = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 16, "pad_token": "!", "do_lower_case": True}
    described |= {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
