"""Vision-language models that ground, tiny and random, in the layouts of their hubs; and answers put in their mouths.

Each writer of `WRITERS` fills a folder: weights and config.json by the model's own class, the tokenizer's files, and
preprocessor_config.json as the hub has it. `say` makes a loaded model write an answer, whatever it sees.
"""

import json
from pathlib import Path
from typing import Any

import foreign_checkpoints as foreign
import torch
from transformers import (
    Florence2Config,
    Florence2ForConditionalGeneration,
    Kosmos2Config,
    Kosmos2ForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "vision_use_head": False,
}
LOGIT = 8.0
"""Of each token that `say` puts in a model's mouth; all others have 0."""


def words(begin: str, end: str, special: tuple[str, ...] = (), **names: Any) -> Any:
    """Bytes and special tokens."""
    made = foreign.tokenizer(special, begin, end)._tokenizer
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=begin, eos_token=end, **{"pad_token": end} | names)


def written(folder: Path, model: Any, tokenizer: Any, images: dict[str, Any]) -> None:
    foreign.liven(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(images))


def _square(kind: str, processor: str, side: int, **more: Any) -> dict[str, Any]:
    size = {"height": side, "width": side}
    statistics = {"image_mean": foreign.HALF, "image_std": foreign.HALF}
    return {"image_processor_type": kind, "processor_class": processor, "size": size, **statistics, **more}


def _qwen(folder: Path, patch: int, processor: str, kind: str) -> None:
    images = {"image_processor_type": kind, "processor_class": processor, "patch_size": patch, "merge_size": 2}
    images |= {"temporal_patch_size": 2, "min_pixels": 4 * (2 * patch) ** 2, "max_pixels": 16 * (2 * patch) ** 2}
    images |= {"image_mean": foreign.CLIP_MEAN, "image_std": foreign.CLIP_STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHAT}))
    generation = {"do_sample": True, "temperature": 0.1, "top_k": 1, "top_p": 0.001, "repetition_penalty": 1.05}
    (folder / "generation_config.json").write_text(json.dumps(generation))


def qwen2(folder: Path) -> None:
    """Its boxes and what they belong to stand between special tokens."""
    tags = tuple(f"<|{name}_{end}|>" for name in ("object_ref", "box") for end in ("start", "end"))
    tokenizer = foreign.tokenizer(("<|im_start|>", *foreign.QWEN_TOKENS, *tags), None, "<|im_end|>")
    start, end, picture, video = tokenizer.convert_tokens_to_ids(list(foreign.QWEN_TOKENS))
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    text = foreign.text_config(tokenizer, 64, rope_parameters=rope)
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        vision_start_token_id=start,
        vision_end_token_id=end,
        image_token_id=picture,
        video_token_id=video,
    )
    torch.manual_seed(0)
    written(folder, Qwen2VLForConditionalGeneration(config), tokenizer, {})
    _qwen(folder, 14, "Qwen2VLProcessor", "Qwen2VLImageProcessor")


def qwen2_5(folder: Path) -> None:
    """Its hub's settings of generation sample; repetition_penalty 1.05 there is real."""
    foreign.qwen2_5(folder)
    _qwen(folder, 14, "Qwen2_5_VLProcessor", "Qwen2VLImageProcessor")


def qwen3(folder: Path) -> None:
    foreign.qwen3(folder)
    _qwen(folder, 16, "Qwen3VLProcessor", "Qwen2VLImageProcessorFast")
    (folder / "video_preprocessor_config.json").write_text(
        json.dumps({"video_processor_type": "Qwen3VLVideoProcessor"})
    )


def florence(folder: Path) -> None:
    special = ("<image>", *(f"<loc_{i}>" for i in range(1000)))
    tokenizer = words("<s>", "</s>", special, extra_special_tokens={"image_token": "<image>"})
    vision = {"depths": [1, 1], "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1]}
    vision |= {"patch_prenorm": [False, True], "embed_dim": [16, 32], "num_heads": [2, 4], "num_groups": [2, 4]}
    vision |= {"window_size": 4, "projection_dim": 32, "max_position_embeddings": 20, "drop_path_rate": 0.0}
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    text = {"model_type": "bart", "vocab_size": len(tokenizer), "d_model": 32, "max_position_embeddings": 256}
    text |= {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    text |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "bos_token_id": begin, "eos_token_id": end}
    text |= {"pad_token_id": end, "decoder_start_token_id": end, "forced_bos_token_id": begin}
    config = Florence2Config(vision_config=vision, text_config=text, image_token_id=tokenizer.image_token_id)
    torch.manual_seed(0)
    images = _square("CLIPImageProcessor", "Florence2Processor", 32, do_center_crop=False, image_seq_length=17)
    written(folder, Florence2ForConditionalGeneration(config), tokenizer, images)
    tasks = {"processor_class": "Florence2Processor", "post_processor_config": {"phrase_grounding": {}}}
    (folder / "processor_config.json").write_text(json.dumps(tasks))
    generation = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": end}
    generation |= {"forced_bos_token_id": begin, "num_beams": 3, "no_repeat_ngram_size": 3, "early_stopping": True}
    (folder / "generation_config.json").write_text(json.dumps(generation))


def paligemma(folder: Path, text_type: str = "gemma") -> None:
    from transformers.models.paligemma.processing_paligemma import EXTRA_TOKENS

    tokenizer = words("<bos>", "<eos>", ("<image>",), extra_special_tokens={"image_token": "<image>"})
    tokenizer.add_tokens(EXTRA_TOKENS)
    text = {"model_type": text_type, **foreign.text_config(tokenizer, 32), "head_dim": 8}
    config = PaliGemmaConfig(
        vision_config=SIGLIP,
        text_config=text,
        projection_dim=32,
        hidden_size=32,
        image_token_index=tokenizer.image_token_id,
        vocab_size=len(tokenizer),
    )
    torch.manual_seed(0)
    images = _square("SiglipImageProcessor", "PaliGemmaProcessor", 28, image_seq_length=4)
    written(folder, PaliGemmaForConditionalGeneration(config), tokenizer, images)


def paligemma2(folder: Path) -> None:
    paligemma(folder, "gemma2")


def kosmos(folder: Path) -> None:
    """Its images are scaled to their short side and cut to a square."""
    from transformers import Kosmos2Processor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = words("<s>", "</s>", ("<pad>", "<unk>"), pad_token="<pad>", unk_token="<unk>")
    Kosmos2Processor(CLIPImageProcessorPil(), tokenizer)  # adds its tokens
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    text = {"vocab_size": len(tokenizer), "embed_dim": 32, "layers": 1, "ffn_dim": 64, "attention_heads": 2}
    text |= {"max_position_embeddings": 512, "bos_token_id": tokenizer.bos_token_id}
    text |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Kosmos2Config(vision_config=vision, text_config=text, latent_query_num=64)
    torch.manual_seed(0)
    crop = {"height": 28, "width": 28}
    images = _square("CLIPImageProcessor", "Kosmos2Processor", 28, crop_size=crop, do_center_crop=True)
    written(folder, Kosmos2ForConditionalGeneration(config), tokenizer, images | {"size": {"shortest_edge": 28}})


WRITERS = {
    "qwen2_vl": qwen2,
    "qwen2_5_vl": qwen2_5,
    "qwen3_vl": qwen3,
    "florence2": florence,
    "paligemma": paligemma,
    "paligemma2": paligemma2,
    "kosmos-2": kosmos,
}


def say(grounder: Any, text: str) -> None:
    """Make a grounder's model write this answer once, token by token, by an output that has `LOGIT` for it."""
    words, model = grounder.processor.tokenizer, grounder.model
    ids = [*words(text, add_special_tokens=False)["input_ids"], words.eos_token_id]
    if model.config.is_encoder_decoder:
        ids.insert(0, words.bos_token_id)  # which its settings of generation force
    speaks, left = getattr(model, "text_model", model), iter(ids)

    def instead(module: Any, args: Any, output: Any) -> Any:
        output.logits = torch.zeros_like(output.logits)
        if (following := next(left, None)) is None:
            handle.remove()
        else:
            output.logits[:, -1, following] = LOGIT
        if following == words.eos_token_id:
            handle.remove()
        return output

    handle = speaks.register_forward_hook(instead)
