"""Other people's checkpoints, tiny and random, written by their own classes in the layouts of the real ones.

`llava`, `llava_next`, `qwen2_5`, `qwen3`, `smolvlm` each write a folder as a hub holds it and return the model itself;
`sam2` and `clip` do so for a SAM 2.1 and a CLIP, `lisa` for a LISA in LLaVA's original key layout.
"""

import functools
import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from test_sam_parity import build_sam
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Sam2Config,
    Sam2Model,
    Sam2VideoConfig,
    Sam2VideoModel,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

CLIP_MEAN, CLIP_STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
HALF = [0.5, 0.5, 0.5]
CLIP_VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def tokenizer(special: tuple[str, ...], begin: str | None, end: str, added: tuple[str, ...] = ()) -> Any:
    """Bytes and special tokens, then tokens that somebody added later."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*dict.fromkeys([*([begin] if begin else []), end, *special]), *alphabet]
    made = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    whole = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=begin, eos_token=end, pad_token=end, additional_special_tokens=list(special)
    )
    whole.add_tokens(list(added))
    return whole


@functools.cache
def sentencepiece_model() -> bytes:
    """Llama's kind of tokenizer.model, trained on a few hundred sentences: 520 pieces, 256 of them bytes."""
    import random

    import sentencepiece

    words = "the red car dog runs behind a tree who will win race please track output mask in this image on left right"
    spoken = "A chat between a curious human and an assistant. USER: can you track it? ASSISTANT: Sure, I track it."
    rng = random.Random(0)
    lines = [" ".join(rng.choices(words.split(), k=rng.randint(3, 12))) + rng.choice(".? ") for _ in range(400)]
    lines += [spoken] * 30
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=file,
        vocab_size=520,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        split_digits=True,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    return file.getvalue()


def llama_words(folder: Path, added: tuple[str, ...] = (), **config: Any) -> None:
    """The files of a slow Llama tokenizer as transformers 4.31 wrote them: the names alone of added tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    described = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    described |= {"add_bos_token": True, "add_eos_token": False, "model_max_length": 10**30}
    (folder / "tokenizer_config.json").write_text(json.dumps(described | config))
    (folder / "added_tokens.json").write_text(json.dumps({name: 520 + i for i, name in enumerate(added)}))


def text_config(words: Any, hidden: int = 48, spare: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(words) + spare,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
        **more,
    }


@torch.no_grad()
def liven(model: nn.Module) -> nn.Module:
    """Weights of a size at which inputs change outputs visibly."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.mul_(4)
        elif "norm" not in name:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def written(folder: Path, model: Any, words: Any, mean: list[float], std: list[float], **options: Any) -> Any:
    model.save_pretrained(folder, **options)
    words.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))
    return model


def llava(
    folder: Path,
    hidden: int = 48,
    spare: int = 0,
    mistral: bool = False,
    special: tuple[str, ...] = (),
    window: int | None = None,
    **options: Any,
) -> Any:
    """LLaVA 1.5: `spare` rows of the embedding that no token has, as llava-hf's checkpoints have 62 of them.

    `window` is how many tokens a Mistral looks back.
    """
    words = tokenizer(("<image>", *special), "<s>", "</s>")
    text = {"model_type": "mistral" if mistral else "llama", **text_config(words, hidden, spare)}
    text |= {"sliding_window": window} if mistral else {}
    config = LlavaConfig(vision_config=CLIP_VISION, text_config=text, **_llava_like(words))
    torch.manual_seed(0)
    return written(folder, liven(LlavaForConditionalGeneration(config)), words, CLIP_MEAN, CLIP_STD, **options)


def llava_next(folder: Path) -> Any:
    """LLaVA 1.6, whose largest square grid is two by two tiles."""
    words = tokenizer(("<image>",), "<s>", "</s>")
    text = {"model_type": "llama", **text_config(words)}
    grids = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
    config = LlavaNextConfig(
        vision_config=CLIP_VISION, text_config=text, image_grid_pinpoints=grids, **_llava_like(words)
    )
    torch.manual_seed(0)
    return written(folder, liven(LlavaNextForConditionalGeneration(config)), words, CLIP_MEAN, CLIP_STD)


def _llava_like(words: Any) -> dict[str, Any]:
    image = words.convert_tokens_to_ids("<image>")
    return {"image_token_id": image, "vision_feature_layer": -2, "vision_feature_select_strategy": "default"}


def _qwen_words() -> Any:
    return tokenizer(("<|im_start|>", *QWEN_TOKENS), None, "<|im_end|>")


def _qwen_ids(words: Any) -> dict[str, int]:
    start, end, image, video = words.convert_tokens_to_ids(list(QWEN_TOKENS))
    return {
        "vision_start_token_id": start,
        "vision_end_token_id": end,
        "image_token_id": image,
        "video_token_id": video,
    }


def qwen2_5(folder: Path) -> Any:
    words = _qwen_words()
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
    vision |= {"patch_size": 14, "spatial_merge_size": 2, "window_size": 112, "fullatt_block_indexes": [1]}
    text = text_config(words, 64, rope_parameters=rope, tie_word_embeddings=True)
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **_qwen_ids(words))
    torch.manual_seed(0)
    return written(folder, liven(Qwen2_5_VLForConditionalGeneration(config)), words, CLIP_MEAN, CLIP_STD)


def qwen3(folder: Path) -> Any:
    words = _qwen_words()
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6, "mrope_interleaved": True}
    vision = {"depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
    vision |= {"patch_size": 16, "spatial_merge_size": 2, "num_position_embeddings": 64}
    vision |= {"deepstack_visual_indexes": [0, 1]}
    text = text_config(words, 64, rope_parameters=rope, head_dim=16)
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **_qwen_ids(words))
    torch.manual_seed(0)
    return written(folder, liven(Qwen3VLForConditionalGeneration(config)), words, HALF, HALF)


def smolvlm(folder: Path) -> Any:
    """As SmolVLM2: its begin token is ChatML's, its turns end with a token of their own."""
    special = ("<image>", "<fake_token_around_image>", "<global-img>")
    words = tokenizer(special, "<|im_start|>", "<end_of_utterance>")
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision |= {"image_size": 64, "patch_size": 8}
    text = {"model_type": "llama", **text_config(words)}
    image = words.convert_tokens_to_ids("<image>")
    config = SmolVLMConfig(
        vision_config=vision, text_config=text, scale_factor=2, image_token_id=image, tie_word_embeddings=False
    )
    torch.manual_seed(0)
    return written(folder, liven(SmolVLMForConditionalGeneration(config)), words, HALF, HALF)


FAMILIES = {"llava": llava, "llava_next": llava_next, "qwen2_5_vl": qwen2_5, "qwen3_vl": qwen3, "smolvlm": smolvlm}
"""A writer of each family, by transformers' name."""


def clip(folder: Path) -> CLIPModel:
    """OpenAI's CLIP: both towers, as the hub has it."""
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(1)
    model = CLIPModel(CLIPConfig(vision_config=CLIP_VISION, text_config={**text, "vocab_size": 99})).eval()
    model.save_pretrained(folder)
    return model


def sam2(folder: Path) -> Any:
    """A SAM 2.1 for squares of 64 pixels."""
    torch.manual_seed(2)
    backbone = {
        "hidden_size": 16,
        "num_attention_heads": 1,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [4, 2, 2, 2],
        "window_positional_embedding_background_size": [4, 4],
        "global_attention_blocks": [3],
    }
    vision = {
        "backbone_config": {"model_type": "sam2_hiera_det_model", **backbone},
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    }
    prompt = {"hidden_size": 32, "image_size": 64}
    decoder = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 20}
    model = Sam2Model(Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))
    nn.init.normal_(model.no_memory_embedding, std=0.5)
    liven(model).save_pretrained(folder)
    return model


def sam2_video(folder: Path | None = None, **changes: Any) -> Any:
    """A SAM 2.1 with its memory for squares of 64 pixels, which sees its target on every frame.

    `changes` are settings of `Sam2VideoConfig`.
    """
    torch.manual_seed(2)
    values = Sam2VideoConfig().to_dict()
    values["vision_config"] |= {"backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 128}
    values["vision_config"]["backbone_feature_sizes"] = [[16, 16], [8, 8], [4, 4]]
    values["vision_config"]["backbone_config"] |= {
        "image_size": [64, 64],
        "hidden_size": 8,
        "blocks_per_stage": [1, 1, 2, 1],
        "global_attention_blocks": [3],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
    }
    values["prompt_encoder_config"] |= {"image_size": 64, "hidden_size": 128}
    values["mask_decoder_config"] |= {"hidden_size": 128, "mlp_dim": 64, "iou_head_hidden_dim": 32}
    values |= dict.fromkeys(("memory_attention_hidden_size", "memory_encoder_hidden_size"), 128)
    values |= dict.fromkeys(("mask_downsampler_embed_dim", "memory_fuser_embed_dim"), 128)
    values |= {"image_size": 64, "memory_attention_rope_feat_sizes": [4, 4], "memory_attention_num_layers": 2}
    values |= {"memory_attention_feed_forward_hidden_size": 64, "memory_fuser_intermediate_dim": 64}
    model = Sam2VideoModel(Sam2VideoConfig.from_dict(values | changes)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.endswith("bias") and not weight.any():
                weight.normal_(0, 0.5)  # what training fills: positions in time, the pointer of the absent, ...
            elif name.startswith(("mask_decoder.output_hyper", "mask_decoder.iou")):
                weight.mul_(4)
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(5.0)
    if folder is not None:
        model.save_pretrained(folder)
    return model


@functools.cache
def lisa_words() -> Any:
    """Llama's tokenizer after LISA: [SEG], then the two around the image; shared, so do not change it."""
    return tokenizer(("<unk>",), "<s>", "</s>", added=("[SEG]", "<im_start>", "<im_end>"))


def lisa(folder: Path, hidden: int = 48, layers: int = 2, mlp: bool = False, words: Any = None) -> dict[str, Tensor]:
    """Write config and tokenizer of a merged LISA; returns its weights under LISA's names, for a test to store.

    With `words`, the tokenizer's files are already in the folder.
    """
    own, words = words is None, words or lisa_words()
    text = text_config(words, hidden) | {"num_hidden_layers": layers, "pad_token_id": 0}
    torch.manual_seed(3)
    llama = liven(LlamaForCausalLM(LlamaConfig(**text, tie_word_embeddings=False)))
    weights = {name: value.clone() for name, value in llama.state_dict().items()}
    weights |= {f"model.visual_model.{name}": value for name, value in build_sam().state_dict().items()}
    phi = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 32), nn.Dropout(0.0))
    weights |= {f"model.text_hidden_fcs.0.{name}": value for name, value in phi.state_dict().items()}
    projector = (
        nn.Sequential(nn.Linear(32, hidden), nn.GELU(), nn.Linear(hidden, hidden)) if mlp else nn.Linear(32, hidden)
    )
    weights |= {f"model.mm_projector.{name}": value for name, value in projector.state_dict().items()}
    for layer in range(layers):
        weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.rand(6)
    described = {
        "architectures": ["LISAForCausalLM"],
        "model_type": "llava",
        **text,
        "rms_norm_eps": 1e-6,
        "mm_vision_tower": "openai/clip-vit-large-patch14",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": True,
        "train_mask_decoder": True,
        "out_dim": 32,
        "ce_loss_weight": None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(described))
    if own:
        words.save_pretrained(folder)
    return {name: value.detach().clone() for name, value in weights.items()}


def stored(folder: Path, weights: dict[str, Tensor], shards: int = 1, suffix: str = ".bin") -> None:
    """Weights as `pytorch_model-0000i-of-0000n.bin` or `model-...safetensors` with an index, or as one file."""
    stem = "pytorch_model" if suffix == ".bin" else "model"
    names = list(weights)
    files: dict[str, str] = {}
    for i in range(shards):
        part = {name: weights[name] for name in names[i::shards]}
        file = f"{stem}{suffix}" if shards == 1 else f"{stem}-{i + 1:05d}-of-{shards:05d}{suffix}"
        save_file(part, folder / file) if suffix == ".safetensors" else torch.save(part, folder / file)
        files |= dict.fromkeys(part, file)
    if shards > 1:
        (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"weight_map": files}))
