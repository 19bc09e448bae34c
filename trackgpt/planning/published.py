"""Dimensions of well-known models, so that their memory can be planned without their files.

They are those of the config.json each name has on its hub; a test holds the number of parameters they make against the
published one.
"""

from __future__ import annotations

from typing import Any

_CLIP_L_336 = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}


def _llava_15(width: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    """LLaVA 1.5: a Vicuna behind CLIP ViT-L at 336 pixels; 62 rows of the embedding are spare."""
    text = {
        "model_type": "llama",
        "vocab_size": 32064,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": 4096,
    }
    return {
        "model_type": "llava",
        "vision_config": _CLIP_L_336,
        "text_config": text,
        "image_token_index": 32000,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
    }


def _qwen25(width: int, inner: int, layers: int, heads: int, words: int, tied: bool) -> dict[str, Any]:
    """Qwen2.5-VL."""
    text = {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 2 if width == 2048 else 4,
        "max_position_embeddings": 128000,
        "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
        "tie_word_embeddings": tied,
    }
    vision = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": width,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }
    return {"model_type": "qwen2_5_vl", "vision_config": vision, "text_config": text, "tie_word_embeddings": tied}


BRAINS: dict[str, dict[str, Any]] = {
    "llava-hf/llava-1.5-7b-hf": _llava_15(4096, 11008, 32, 32),
    "llava-hf/llava-1.5-13b-hf": _llava_15(5120, 13824, 40, 40),
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen25(2048, 11008, 36, 16, 151936, True),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen25(3584, 18944, 28, 28, 152064, False),
}
"""transformers' configuration as a dictionary, by hub name."""


def _vit(width: int, layers: int, heads: int, whole: list[int]) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "mlp_dim": 4 * width,
        "global_attn_indexes": whole,
    }


ENCODERS: dict[str, dict[str, Any]] = {
    "facebook/sam-vit-base": _vit(768, 12, 12, [2, 5, 8, 11]),
    "facebook/sam-vit-large": _vit(1024, 24, 16, [5, 11, 17, 23]),
    "facebook/sam-vit-huge": _vit(1280, 32, 16, [7, 15, 23, 31]),
}
"""`SamVisionConfig` as a dictionary, by hub name; the decoder of all is `DecoderConfig`'s default."""
