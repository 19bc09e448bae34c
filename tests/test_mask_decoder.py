"""The purport mask decoder: what each query does, how targets share a frame, what trains (paper Eq. 2 and 3)."""

from dataclasses import replace

import pytest
import torch
from tiny_models import TINY_VIT
from torch import Tensor, nn

from trackgpt.config import DecoderConfig, EncoderConfig, PerceptionConfig
from trackgpt.perception.encoders import Features
from trackgpt.perception.mask_decoder import Decoded, Enlargement, PixelMap, PurportMaskDecoder
from trackgpt.perception.segmenter import Segmenter

C = TINY_VIT["output_channels"]
DECODER = DecoderConfig(hidden_size=C, mlp_dim=48, layers=2, heads=4, iou_head_hidden=24)
SAM = PerceptionConfig(EncoderConfig("sam_vit", TINY_VIT), DECODER, image_side=64)
CONV = PerceptionConfig(
    EncoderConfig("conv", channels=[6, 8, 12, 16], blocks=[1, 1, 1, 1]), replace(DECODER, skips=True), image_side=64
)

LARGE = replace(SAM, decoder=replace(DECODER, layers=3, mlp_dim=32))


def segmenter(config: PerceptionConfig = CONV, seed: int = 0) -> Segmenter:
    """Random weights, the mask head scaled up so that logits are of order 1 and differences in them mean something."""
    torch.manual_seed(seed)
    made = Segmenter(config).eval()
    with torch.no_grad():
        made.mask_decoder.output_hypernetworks_mlps[0].proj_out.weight.mul_(20)
    return made


def frame(seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=generator)


def queries(n: int, seed: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Q_R, Q_t and Q_p of n targets, (n, c) each."""
    generator = torch.Generator().manual_seed(seed)
    referring, online, purport = torch.randn(3, n, C, generator=generator)
    return referring, online, purport


def decode(model: Segmenter, referring: Tensor, online: Tensor | None, purport: Tensor | None) -> Decoded:
    with torch.no_grad():
        rows = model.encode(frame()).of(torch.zeros(len(referring), dtype=torch.long))
        return model.decode(rows, referring, online, purport)


def apart(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


# Shapes and parts


@pytest.mark.parametrize("config", [SAM, CONV], ids=["sam_vit", "conv"])
def test_each_target_has_a_mask_a_score_and_a_query_for_the_next_frame(config):
    decoded = decode(segmenter(config), *queries(3))
    assert decoded.logits.shape == (3, 16, 16)
    assert decoded.score.shape == (3,)
    assert decoded.online.shape == (3, C)


def test_the_adapter_has_three_linear_layers():
    adapter = segmenter().mask_decoder.adapter
    layers = [module for module in adapter.modules() if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(C, C)] * 3


def test_the_next_query_is_the_adapter_of_the_online_querys_output():
    model = segmenter()
    seen = {}
    model.mask_decoder.transformer.register_forward_hook(lambda _m, _a, out: seen.update(tokens=out[0]))
    referring, online, purport = queries(2)
    decoded = decode(model, referring, online, purport)
    assert seen["tokens"].shape == (2, 1, 1 + 4 + 1 + 1, C)  # IoU, masks, Q_R, Q_t
    with torch.no_grad():
        assert torch.equal(decoded.online, model.mask_decoder.adapter(seen["tokens"][:, 0, 6]))


def test_tokens_stand_in_the_order_iou_times_purport_masks_referring_online():
    model = segmenter()
    seen = {}
    model.mask_decoder.transformer.register_forward_pre_hook(
        lambda _m, _a, named: seen.update(tokens=named["point_embeddings"]), with_kwargs=True
    )
    referring, online, purport = queries(2)
    decode(model, referring, online, purport)
    tokens, decoder = seen["tokens"][:, 0], model.mask_decoder
    assert torch.equal(tokens[:, 0], decoder.iou_token.weight * purport)
    assert torch.equal(tokens[:, 1:5], decoder.mask_tokens.weight.expand(2, -1, -1))
    assert torch.equal(tokens[:, 5], referring)
    assert torch.equal(tokens[:, 6], online)


def test_parameters_keep_the_names_that_saved_models_have():
    names = set(segmenter().state_dict())
    assert {name.split(".")[0] for name in names} == {
        "image_encoder",
        "mask_decoder",
        "shared_image_embedding",
        "no_mask_embed",
    }
    added = {"first_online.weight"}
    added |= {f"adapter.{part}.{kind}" for part in ("proj_in", "layers.0", "proj_out") for kind in ("weight", "bias")}
    added |= {f"fine{stride}.{kind}" for stride in (4, 8) for kind in ("weight", "bias")}
    assert {f"mask_decoder.{name}" for name in added} <= names


def test_skips_without_fine_maps_are_refused():
    with pytest.raises(ValueError, match="stride-4 and stride-8"):
        PurportMaskDecoder(replace(DECODER, skips=True))


def test_the_epsilon_of_the_normalisations_is_sams_beside_its_vit_and_transformers_beside_convolutions():
    for config, epsilon in ((SAM, 1e-5), (CONV, 1e-6)):
        layers = segmenter(config).mask_decoder.transformer.layers
        norms = [module for module in layers.modules() if isinstance(module, nn.LayerNorm)]
        assert len(norms) == 8
        assert {norm.eps for norm in norms} == {epsilon}


# Q_p, the purport query


def test_a_purport_query_of_ones_is_none_at_all():
    referring, online, _ = queries(3)
    model = segmenter()
    ones, none = decode(model, referring, online, torch.ones(3, C)), decode(model, referring, online, None)
    assert torch.equal(ones.logits, none.logits)
    assert torch.equal(ones.score, none.score)
    assert torch.equal(ones.online, none.online)


def test_a_purport_query_of_zeros_takes_the_iou_token_away_and_changes_score_next_query_and_masks():
    """The IoU token is a key and a value for all other tokens and for the image, so masks and Q_{t+1} move too."""
    referring, online, _ = queries(3)
    model = segmenter()
    none, zeros = decode(model, referring, online, None), decode(model, referring, online, torch.zeros(3, C))
    assert apart(none.score, zeros.score) > 1e-3
    assert apart(none.online, zeros.online) > 1e-3
    assert apart(none.logits, zeros.logits) > 0.05 * none.logits.std()
    with torch.no_grad():
        model.mask_decoder.iou_token.weight.normal_()
    assert torch.equal(decode(model, referring, online, torch.zeros(3, C)).logits, zeros.logits)


def test_the_purport_query_reaches_the_mask_through_attention_between_tokens_alone():
    """With tokens deaf to each other and the image deaf to tokens, Q_p moves the score and nothing else."""
    model = segmenter()
    with torch.no_grad():
        for layer in model.mask_decoder.transformer.layers:
            layer.self_attn.out_proj.weight.zero_()
            layer.cross_attn_image_to_token.out_proj.weight.zero_()
    referring, online, purport = queries(3)
    one, other = decode(model, referring, online, purport), decode(model, referring, online, -purport)
    assert apart(one.score, other.score) > 1e-5
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.online, other.online)


# Q_R and Q_t, the referring and the online query


def test_another_referring_query_gives_another_mask():
    referring, online, purport = queries(1)
    model = segmenter()
    one, other = decode(model, referring, online, purport), decode(model, -referring, online, purport)
    assert apart(one.logits, other.logits) > 0.05 * one.logits.std()


def test_another_online_query_gives_another_mask_score_and_next_query():
    referring, online, purport = queries(1)
    model = segmenter()
    one, other = decode(model, referring, online, purport), decode(model, referring, -online, purport)
    assert apart(one.logits, other.logits) > 0.05 * one.logits.std()
    assert apart(one.score, other.score) > 1e-3
    assert apart(one.online, other.online) > 1e-3


def test_a_track_starts_from_the_learned_embedding():
    referring, _, purport = queries(2)
    model = segmenter()
    start = model.mask_decoder.first_query(2)
    assert torch.equal(start, model.mask_decoder.first_online.weight.repeat(2, 1))
    first, same = decode(model, referring, None, purport), decode(model, referring, start, purport)
    assert torch.equal(first.logits, same.logits)
    assert torch.equal(first.online, same.online)


def test_without_propagation_the_online_query_is_never_looked_at():
    model = segmenter(replace(CONV, decoder=replace(CONV.decoder, propagate=False)))
    referring, online, purport = queries(2)
    one, other = decode(model, referring, online, purport), decode(model, referring, None, purport)
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.score, other.score)


# Several targets, several frames


@pytest.mark.parametrize("config", [SAM, CONV], ids=["sam_vit", "conv"])
def test_five_targets_in_one_call_are_the_same_five_one_by_one(config):
    model, (referring, online, purport) = segmenter(config), queries(5)
    together = decode(model, referring, online, purport)
    rows = [slice(i, i + 1) for i in range(5)]
    alone = [decode(model, referring[row], online[row], purport[row]) for row in rows]
    assert apart(together.logits, torch.cat([one.logits for one in alone])) <= 1e-6 * together.logits.abs().max()
    assert apart(together.score, torch.cat([one.score for one in alone])) <= 1e-6
    assert apart(together.online, torch.cat([one.online for one in alone])) <= 1e-6
    assert apart(together.logits[0], together.logits[1]) > 0.05


def test_each_row_is_decoded_from_its_own_frame():
    model, (referring, online, purport) = segmenter(), queries(1)
    with torch.no_grad():
        features = model.encode(torch.cat([frame(1), frame(7)]))
        swapped = features.of(torch.tensor([1, 0]))
        two = (referring.expand(2, -1), online.expand(2, -1), purport.expand(2, -1))
        one, other = model.decode(features, *two), model.decode(swapped, *two)
    assert apart(one.logits, other.logits.flip(0)) <= 1e-6 * one.logits.abs().max()
    assert apart(one.logits[0], one.logits[1]) > 0.05


def test_fine_maps_take_part_where_skips_are_on():
    model, (referring, online, purport) = segmenter(), queries(1)
    with torch.no_grad():
        features = model.encode(frame())
        coarse = Features(features.embedding)
        for number in (0, 1):
            one_gone = tuple(m * 0 if i == number else m for i, m in enumerate(features.fine))
            changed = model.decode(replace(features, fine=one_gone), referring, online, purport)
            assert apart(changed.logits, model.decode(features, referring, online, purport).logits) > 1e-3
        assert model.decode(coarse, referring, online, purport).logits.shape == (1, 16, 16)


@pytest.mark.parametrize("kernel", [2, 3])
def test_a_matrix_product_is_the_transposed_convolution_whose_kernels_do_not_overlap(kernel):
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(8, 5, kernel, stride=kernel)
    maps = torch.randn(2, 8, 3, 4)
    with torch.no_grad():
        found = Enlargement.of(layer)(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        assert found.shape == (2, 5, 3 * kernel, 4 * kernel)
        assert apart(found, layer(maps)) < 1e-6


def test_a_pixelwise_layer_reads_a_frame_that_several_targets_share_once():
    torch.manual_seed(0)
    layer, maps = nn.Conv2d(8, 5, 1), torch.randn(1, 8, 3, 4)
    with torch.no_grad():
        wanted = layer(maps).permute(0, 2, 3, 1)
        mine = PixelMap(8, 5, 1)
        mine.load_state_dict(layer.state_dict())
        shared, apiece = mine(maps.expand(3, -1, -1, -1)), mine(maps.repeat(3, 1, 1, 1))
    assert shared.shape == (1, 3, 4, 5)
    assert apart(shared, wanted) < 1e-6
    assert apart(apiece, wanted.expand(3, -1, -1, -1)) < 1e-6


def test_the_image_grid_has_a_position_for_any_shape_and_x_comes_before_y():
    model = segmenter()
    with torch.no_grad():
        model.shared_image_embedding.positional_embedding.copy_(
            torch.stack([torch.ones(C // 2), torch.zeros(C // 2)]) / 8
        )
        positions = model.positions(3, 5)
    assert positions.shape == (1, C, 3, 5)
    assert torch.equal(positions[..., 0, :], positions[..., 2, :])  # weights of y are zero
    x = (torch.arange(5) + 0.5) / 5
    wanted = torch.sin(2 * torch.pi * (2 * x - 1) / 8)
    assert torch.allclose(positions[0, 0, 0], wanted, atol=1e-6)


def test_a_folded_segmenter_keeps_the_positions_of_its_own_grid_and_computes_those_of_others():
    model, names = segmenter(), set(segmenter().state_dict())
    wanted = {shape: model.positions(*shape) for shape in ((4, 4), (3, 5))}
    model.fold()
    assert model.positions(4, 4) is model.positions(4, 4)
    for shape, positions in wanted.items():
        assert torch.equal(model.positions(*shape), positions)
    assert set(model.state_dict()) == names


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("shared", [True, False], ids=["one frame", "frames of their own"])
@pytest.mark.parametrize("config", [SAM, CONV, LARGE], ids=["sam_vit", "conv", "three layers"])
def test_a_folded_decoder_computes_the_same_for_targets_of_one_frame_or_of_several(config, rows, shared):
    model, plain = segmenter(config), segmenter(config)
    model.fold()
    c = config.decoder.hidden_size
    referring, online, purport = torch.randn(3, rows, c, generator=torch.Generator().manual_seed(rows))
    with torch.no_grad():
        features = model.encode(frame()) if shared else model.encode(torch.cat([frame(k) for k in range(rows)]))
        features = features.repeated(rows) if shared else features
        for before in (None, online):
            ours, theirs = (each.decode(features, referring, before, purport) for each in (model, plain))
            for a, b in ((ours.logits, theirs.logits), (ours.score, theirs.score), (ours.online, theirs.online)):
                assert a.shape == b.shape
                assert apart(a, b) <= 1e-5 * b.abs().max().item()


def test_a_folded_decoder_takes_a_grid_of_another_shape_too():
    model, plain = segmenter(), segmenter()
    model.fold()
    wide = torch.cat([frame(1), frame(2)], dim=3)
    referring, online, purport = queries(2)
    with torch.no_grad():
        features = model.encode(wide).repeated(2)
        ours, theirs = (each.decode(features, referring, online, purport) for each in (model, plain))
    assert ours.logits.shape == (2, 16, 32)
    assert apart(ours.logits, theirs.logits) <= 1e-6


def test_positions_kept_by_a_folded_segmenter_take_its_type():
    model = segmenter()
    model.fold()
    assert model.to(torch.bfloat16).positions(4, 4).dtype == torch.bfloat16


# What trains


def gradients(config: PerceptionConfig) -> tuple[Segmenter, set[str], tuple[Tensor, ...]]:
    """The names that get a gradient from a mask, a score and the next query, and the three queries."""
    model = segmenter(config)
    asked = tuple(query.requires_grad_() for query in queries(2))
    referring, online, purport = asked
    features = model.encode(frame()).of(torch.zeros(2, dtype=torch.long))
    decoded = model.decode(features, referring, online, purport)
    first = model.decode(features, referring, None, purport)
    (decoded.logits.square().mean() + decoded.score.sum() + decoded.online.sum() + first.score.sum()).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    return model, reached, asked


def test_gradients_reach_the_decoder_and_all_queries_but_not_sams_vit():
    model, reached, asked = gradients(SAM)
    assert [name for name, p in model.named_parameters() if not p.requires_grad and name in reached] == []
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name in model.state_dict() if name.startswith(("image_encoder.", "shared_image_"))}
    # Extra mask tokens are there so that SAM's weights load; their heads are never asked.
    unused = {name for name, _ in model.named_parameters() if ".output_hypernetworks_mlps." in name} - {
        name for name, _ in model.named_parameters() if ".output_hypernetworks_mlps.0." in name
    }
    constant = {name for name, _ in model.named_parameters() if name.endswith(".k_proj.bias")}  # softmax cancels it
    assert {name for name, _ in model.named_parameters()} - frozen - unused - constant <= reached
    assert all(query.grad.abs().sum() > 0 for query in asked)


def test_gradients_reach_the_convolutional_encoder_too():
    model, reached, _ = gradients(CONV)
    wanted = {name for name, _ in model.named_parameters() if name.startswith("image_encoder.")}
    assert wanted <= reached
    assert {"mask_decoder.fine4.weight", "mask_decoder.fine8.weight", "no_mask_embed.weight"} <= reached


def test_gradients_flow_from_one_frame_to_the_one_before():
    model, (referring, _, purport) = segmenter(SAM), queries(1)
    features = model.encode(frame())
    first = model.decode(features, referring, None, purport)
    model.decode(features, referring, first.online, purport).logits.square().mean().backward()
    assert model.mask_decoder.adapter.proj_in.weight.grad.abs().sum() > 0
    assert model.mask_decoder.first_online.weight.grad.abs().sum() > 0
