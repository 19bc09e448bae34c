"""A SAM 2 with memory, small and random, and made-up videos for it; neither weights nor torchvision are needed."""

import torch
from transformers import Sam2VideoConfig, Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

SIDE = 128


def tiny_sam2(model_class: type[Sam2VideoModel] = Sam2VideoModel, side: int = SIDE) -> Sam2VideoModel:
    """In evaluation mode, 4.8 M parameters. It says that its targets are there, and everything in it has an effect."""
    settings = Sam2VideoConfig().to_dict()
    settings.pop("transformers_version", None)
    vision = settings["vision_config"]
    vision["backbone_feature_sizes"] = [[side // 4] * 2, [side // 8] * 2, [side // 16] * 2]
    vision["backbone_channel_list"] = [64, 32, 16, 8]
    vision["backbone_config"].update(
        image_size=[side, side],
        hidden_size=8,
        blocks_per_stage=[1, 1, 2, 1],  # a block with global attention must not be the first of its stage
        global_attention_blocks=[3],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
    )
    settings["prompt_encoder_config"]["image_size"] = side
    settings["mask_decoder_config"]["mlp_dim"] = 64
    settings.update(
        image_size=side,
        memory_attention_rope_feat_sizes=[side // 16] * 2,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=64,
        enable_occlusion_spatial_embedding=True,
        enable_temporal_pos_encoding_for_object_pointers=True,
        multimask_output_for_tracking=True,
        multimask_output_in_sam=True,
    )
    torch.manual_seed(0)
    model = model_class(Sam2VideoConfig(**settings)).eval()
    with torch.no_grad():
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(5.0)  # random weights say that nothing is there
        for embedding in (
            model.memory_temporal_positional_encoding,
            model.no_memory_embedding,
            model.no_object_pointer,
            model.occlusion_spatial_embedding_parameter,
        ):
            embedding.normal_(0, 0.02)
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and name.startswith(("memory_", "mask_decoder.", "prompt_encoder.", "object_pointer")):
                weight.mul_(2)  # else what is remembered changes masks by less than roundings do
    return model


def video(count: int, seed: int = 1, side: int = SIDE) -> torch.Tensor:
    """Frames uint8 (t, 3, s, s)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    return (255 * torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")).to(torch.uint8)


def rectangle(low: int, high: int, side: int = SIDE) -> torch.Tensor:
    """A mask, float (s, s)."""
    mask = torch.zeros(side, side)
    mask[low:high, low : high + 10] = 1
    return mask


def session(side: int = SIDE) -> Sam2VideoInferenceSession:
    """An empty session of one target, for stock streaming."""
    made = Sam2VideoInferenceSession(video_height=side, video_width=side, dtype=torch.float32)
    made.obj_id_to_idx(1)
    made.obj_with_new_inputs = [1]
    return made
