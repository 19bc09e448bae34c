"""Our segmenter against the PyPI package segment-anything: the same weights, read from its files, the same numbers.

A random SAM of 93 thousand weights is built from that package's own classes and saved as its `.pth` files are.
"""

import copy
import functools
import importlib.util
import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trackgpt import version
from trackgpt.config import DecoderConfig, EncoderConfig, PerceptionConfig
from trackgpt.conversion import sam_check
from trackgpt.conversion.sam_check import TOLERANCE, compare, import_segment_anything, refuse_differences
from trackgpt.errors import ModelError
from trackgpt.perception.encoders import Features
from trackgpt.perception.mask_decoder import Decoded
from trackgpt.perception.sam_weights import load_into, load_sam, sam_config, to_segmenter_keys
from trackgpt.perception.segmenter import Segmenter

C, HEADS, SIDE, GRID = 32, 4, 64, 4

import_segment_anything()

from segment_anything import sam_model_registry  # noqa: E402
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer  # noqa: E402


def build_sam(iou_head_depth: int = 3, window: int = 3) -> Sam:
    """A random SAM whose biases, norms and positions are no longer what they start as, with logits of order 1."""
    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        img_size=SIDE,
        embed_dim=24,
        depth=3,
        num_heads=3,
        out_chans=C,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=window,
        global_attn_indexes=(1,),
    )
    decoder = MaskDecoder(
        transformer_dim=C,
        transformer=TwoWayTransformer(depth=2, embedding_dim=C, mlp_dim=64, num_heads=HEADS),
        iou_head_depth=iou_head_depth,
        iou_head_hidden_dim=20,
    )
    sam = Sam(encoder, PromptEncoder(C, (GRID, GRID), (SIDE, SIDE), 16), decoder).eval()
    with torch.no_grad():
        for name, weight in sam.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                weight.normal_(0, 0.5)
            elif weight.dim() == 1:
                weight.add_(0.1 * torch.randn_like(weight))
        for head in decoder.output_hypernetworks_mlps:
            head.layers[2].weight.mul_(20)
        decoder.iou_prediction_head.layers[-1].weight.mul_(20)
    return sam


@pytest.fixture(scope="module")
def sam() -> Sam:
    return build_sam()


@pytest.fixture(scope="module")
def pth(sam: Sam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SAM in a file like the published ones."""
    path = tmp_path_factory.mktemp("sam") / "sam_vit_tiny.pth"
    torch.save(sam.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def ours(pth: Path) -> Segmenter:
    return filled(pth)


def filled(path: Path) -> Segmenter:
    segmenter = Segmenter(sam_config(load_sam(path), decoder_heads=HEADS)).eval()
    load_into(segmenter, path)
    return segmenter


def at_96(config: PerceptionConfig) -> PerceptionConfig:
    """The same model for images of 96 pixels."""
    encoder = replace(config.encoder, sam={**config.encoder.sam, "image_size": 96})
    return replace(config, encoder=encoder, image_side=96)


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def theirs(sam: Sam, embedding: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """All mask logits and IoUs, (n, 4, 16, 16) and (n, 4), of SAM's own decoder for prompt tokens (n, p, c)."""
    _, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
    with torch.no_grad():
        return sam.mask_decoder.predict_masks(embedding, sam.prompt_encoder.get_dense_pe(), prompts, dense)


def purport_decoder(ours: Segmenter, embedding: Tensor, prompts: Tensor, purport: Tensor | None = None) -> Decoded:
    """Our decoder for the same prompt tokens, without an online query."""
    rows = Features(embedding).of(torch.zeros(len(prompts), dtype=torch.long))
    dense = ours.no_mask_embed.weight.view(1, -1, 1, 1)
    with torch.no_grad():
        return ours.mask_decoder(rows, ours.positions(*embedding.shape[-2:]), dense, prompts, None, purport)


def apart(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


# The oracle


def test_the_oracle_is_imported_and_leaves_no_torchvision_behind():
    from transformers.utils import is_torchvision_available

    assert not [name for name in sys.modules if name.startswith("torchvision")]
    assert is_torchvision_available() == (importlib.util.find_spec("torchvision") is not None)
    assert import_segment_anything().SamPredictor


def test_the_oracle_has_logits_and_scores_that_differences_can_be_seen_in(sam):
    logits, score = theirs(sam, random(1, C, GRID, GRID), random(5, 1, C))
    assert sum(weight.numel() for weight in sam.parameters()) < 100_000
    assert logits.std() > 0.5
    assert score.std() > 0.01


# The same numbers


def test_the_image_embedding_is_sams(sam, ours):
    pixels = random(2, 3, SIDE, SIDE)
    with torch.no_grad():
        embedding = sam.image_encoder(pixels)
        assert apart(ours.image_encoder(pixels).embedding, embedding) <= 1e-5
    assert embedding.std() > 0.5


def test_bytes_are_normalised_as_sam_does_before_its_encoder(sam, ours):
    frame = torch.randint(0, 256, (1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embedding = sam.image_encoder(sam.preprocess(frame[0].float())[None])
        assert apart(ours.encode(frame.to(torch.uint8)).embedding, embedding) <= 1e-5


def test_positions_and_the_dense_prompt_are_sams(sam, ours):
    _, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
    assert apart(ours.positions(GRID, GRID), sam.prompt_encoder.get_dense_pe()) <= 1e-6
    assert torch.equal(ours.no_mask_embed.weight.view(1, -1, 1, 1).expand(-1, -1, GRID, GRID), dense)


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_masks_and_scores_are_sams_for_the_same_prompt_tokens(sam, ours, tokens):
    embedding, prompts = random(1, C, GRID, GRID), random(4, tokens, C, seed=2)
    logits, score = theirs(sam, embedding, prompts)
    decoded = purport_decoder(ours, embedding, prompts, torch.ones(4, C))
    assert apart(decoded.logits, logits[:, 0]) <= 1e-5
    assert apart(decoded.score, score[:, 0]) <= 1e-5


def test_a_purport_query_of_ones_is_sams_decoder_to_the_last_bit(ours):
    embedding, prompts = random(1, C, GRID, GRID), random(3, 1, C, seed=2)
    ones, none = (purport_decoder(ours, embedding, prompts, q) for q in (torch.ones(3, C), None))
    assert torch.equal(ones.logits, none.logits)
    assert torch.equal(ones.score, none.score)


def test_another_purport_query_is_no_longer_sams_decoder(sam, ours):
    embedding, prompts = random(1, C, GRID, GRID), random(3, 1, C, seed=2)
    logits, score = theirs(sam, embedding, prompts)
    decoded = purport_decoder(ours, embedding, prompts, random(3, C, seed=3))
    assert apart(decoded.logits, logits[:, 0]) > 0.01
    assert apart(decoded.score, score[:, 0]) > 0.01


def test_flat_tokens_are_sams_too_where_the_epsilon_of_a_normalisation_shows(sam):
    """The prompt tokens' variance is near the epsilon: with transformers' 1e-6 for SAM's 1e-5 masks differ visibly."""
    quiet = copy.deepcopy(sam)
    with torch.no_grad():
        for token in (quiet.mask_decoder.iou_token.weight, quiet.mask_decoder.mask_tokens.weight):
            token.mul_(0.001)
        first = quiet.mask_decoder.transformer.layers[0].self_attn.out_proj
        first.weight.mul_(0.01)
        first.bias.mul_(0.01)
    state, _ = to_segmenter_keys(quiet.state_dict())
    segmenter = Segmenter(sam_config(quiet.state_dict(), decoder_heads=HEADS)).eval()
    segmenter.load_state_dict(state, strict=False)
    embedding, prompts = random(1, C, GRID, GRID), random(3, 1, C, seed=2)
    logits, score = theirs(quiet, embedding, prompts)
    decoded = purport_decoder(segmenter, embedding, prompts)
    assert apart(decoded.logits, logits[:, 0]) <= 1e-5
    assert apart(decoded.score, score[:, 0]) <= 1e-5
    for norm in (m for m in segmenter.mask_decoder.transformer.layers.modules() if isinstance(m, nn.LayerNorm)):
        norm.eps = 1e-6
    assert apart(purport_decoder(segmenter, embedding, prompts).logits, logits[:, 0]) > 1e-3


def test_a_frame_becomes_sams_mask_from_end_to_end(sam, pth):
    """Bytes in, logits out, through `encode` and `decode`, with the queries a track has."""
    config = sam_config(load_sam(pth), decoder_heads=HEADS)
    segmenter = Segmenter(replace(config, decoder=replace(config.decoder, propagate=False))).eval()
    load_into(segmenter, pth)
    frame = torch.randint(0, 256, (1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    referring = random(2, C, seed=5)
    with torch.no_grad():
        rows = segmenter.encode(frame).of(torch.zeros(2, dtype=torch.long))
        decoded = segmenter.decode(rows, referring, None, torch.ones(2, C))
        embedding = sam.image_encoder(sam.preprocess(frame[0].float())[None])
    logits, score = theirs(sam, embedding, referring[:, None])
    assert apart(decoded.logits, logits[:, 0]) <= 2e-5
    assert apart(decoded.score, score[:, 0]) <= 1e-5


def test_all_mask_tokens_are_loaded_and_the_first_mask_is_used(sam, ours):
    embedding, prompts = random(1, C, GRID, GRID), random(2, 1, C, seed=2)
    assert torch.equal(ours.mask_decoder.mask_tokens.weight, sam.mask_decoder.mask_tokens.weight)
    for index, head in enumerate(sam.mask_decoder.output_hypernetworks_mlps):
        mine = ours.mask_decoder.output_hypernetworks_mlps[index]
        for layer, same in zip(head.layers, (mine.proj_in, mine.layers[0], mine.proj_out)):
            assert torch.equal(same.weight, layer.weight)
            assert torch.equal(same.bias, layer.bias)
    logits, score = theirs(sam, embedding, prompts)
    decoded = purport_decoder(ours, embedding, prompts)
    assert [apart(decoded.logits, logits[:, index]) <= 1e-5 for index in range(4)] == [True, False, False, False]
    assert [apart(decoded.score, score[:, index]) <= 1e-5 for index in range(4)] == [True, False, False, False]


def test_an_image_of_another_side_is_encoded_as_sam_does_it(sam, pth):
    """SAM interpolates its relative positions while it runs, ours are resampled at load; both see 96 instead of 64."""
    segmenter = Segmenter(at_96(sam_config(load_sam(pth), decoder_heads=HEADS))).eval()
    report = load_into(segmenter, pth)
    layer = "image_encoder.vision_encoder.layers.1.attn."
    assert report.reshaped == (f"{layer}rel_pos_h", f"{layer}rel_pos_w", "image_encoder.vision_encoder.pos_embed")
    larger, pixels = copy.deepcopy(sam.image_encoder), random(1, 3, 96, 96)
    larger.pos_embed = segmenter.image_encoder.vision_encoder.pos_embed
    with torch.no_grad():
        assert apart(segmenter.image_encoder(pixels).embedding, larger(pixels)) <= 1e-5


def test_absolute_positions_keep_their_place_in_the_image_when_they_are_resampled(sam, tmp_path):
    """A table that holds its own x, in cells, gives the x of the new cells: the third of six lies at 7/6 of four."""
    ramp = torch.arange(4.0).expand(4, 4).reshape(1, 4, 4, 1).repeat(1, 1, 1, 24)
    torch.save(sam.state_dict() | {"image_encoder.pos_embed": ramp}, tmp_path / "sam.pth")
    segmenter = Segmenter(at_96(sam_config(sam.state_dict(), decoder_heads=HEADS)))
    load_into(segmenter, tmp_path / "sam.pth")
    resampled = segmenter.image_encoder.vision_encoder.pos_embed[0, :, 2:4, 0]
    assert torch.allclose(resampled, torch.tensor([7 / 6, 11 / 6]).expand(6, 2), atol=1e-5)


def test_windows_keep_their_relative_positions_when_the_image_grows(tmp_path):
    """Even where a window is as large as the old grid, so that its table has the length of a global one."""
    sam = build_sam(window=GRID)
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    config = at_96(sam_config(sam.state_dict(), decoder_heads=HEADS))
    vit = {**config.encoder.sam, "window_size": GRID, "global_attn_indexes": [1]}
    segmenter = Segmenter(replace(config, encoder=replace(config.encoder, sam=vit)))
    report = load_into(segmenter, tmp_path / "sam.pth")
    assert {name.split(".")[3] for name in report.reshaped if ".layers." in name} == {"1"}
    windowed = segmenter.image_encoder.vision_encoder.layers[0].attn.rel_pos_w
    assert torch.equal(windowed, sam.image_encoder.blocks[0].attn.rel_pos_w)


# The file and its report


def test_the_report_names_every_weight_once(sam, pth, ours):
    report = load_into(ours, pth)
    assert set(report.loaded) | set(report.new) == set(ours.state_dict())
    assert not set(report.loaded) & set(report.new)
    assert report.reshaped == ()
    layers = [f"mask_decoder.adapter.{part}" for part in ("proj_in", "layers.0", "proj_out")]
    adapter = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert set(report.new) == {"mask_decoder.first_online.weight"} | adapter
    assert all(name.startswith("prompt_encoder.") for name in report.skipped)
    assert len(report.loaded) + len(report.skipped) == len(sam.state_dict())
    assert str(report) == "173 loaded, 7 new, 15 skipped, 0 reshaped"


def test_renaming_copies_nothing(sam):
    state = sam.state_dict()
    renamed, _ = to_segmenter_keys(state)
    kernel = "image_encoder.patch_embed.proj.weight"
    assert renamed["image_encoder.vision_encoder.patch_embed.projection.weight"].data_ptr() == state[kernel].data_ptr()


def test_weights_that_sam_has_not_keep_their_values_and_the_vit_stays_frozen(pth):
    segmenter = Segmenter(sam_config(load_sam(pth), decoder_heads=HEADS))
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    report = load_into(segmenter, pth)
    after = segmenter.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in report.new)
    assert not torch.equal(after["no_mask_embed.weight"], before["no_mask_embed.weight"])
    assert not any(weight.requires_grad for weight in segmenter.image_encoder.parameters())


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_an_iou_head_of_any_depth_loads(tmp_path, depth):
    sam = build_sam(iou_head_depth=depth)
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    segmenter = filled(tmp_path / "sam.pth")
    embedding, prompts = random(1, C, GRID, GRID), random(2, 1, C)
    assert apart(purport_decoder(segmenter, embedding, prompts).score, theirs(sam, embedding, prompts)[1][:, 0]) <= 1e-5


def test_half_precision_files_fill_a_single_precision_segmenter(sam, tmp_path):
    torch.save({name: value.half() for name, value in sam.state_dict().items()}, tmp_path / "half.pth")
    segmenter = filled(tmp_path / "half.pth")
    assert {value.dtype for value in segmenter.state_dict().values()} == {torch.float32}
    assert apart(segmenter.no_mask_embed.weight, sam.prompt_encoder.no_mask_embed.weight) <= 1e-3


def hugging_face_folder(folder: Path, **options: object) -> nn.Module:
    """A random SamModel of transformers, saved as the hub has it."""
    from transformers import SamConfig, SamModel

    vision = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "output_channels": C}
    vision |= {"image_size": SIDE, "window_size": 3, "global_attn_indexes": [1], "num_pos_feats": C // 2}
    prompt = {"hidden_size": C, "image_size": SIDE}
    decoder = {"hidden_size": C, "mlp_dim": 64, "num_attention_heads": HEADS, "iou_head_hidden_dim": 20}
    torch.manual_seed(3)
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)).eval()
    model.save_pretrained(folder, **options)
    return model


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "100KB"}], ids=["one file", "shards"])
def test_a_hugging_face_folder_gives_the_same_weights(tmp_path, options):
    model = hugging_face_folder(tmp_path, **options)
    assert (tmp_path / "model.safetensors").exists() == (not options)
    segmenter = filled(tmp_path)
    pixels = random(1, 3, SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(segmenter.image_encoder(pixels).embedding, model.get_image_embeddings(pixels))
        assert apart(segmenter.positions(GRID, GRID), model.get_image_wide_positional_embeddings()) <= 1e-6
    mine, their = segmenter.mask_decoder.state_dict(), model.mask_decoder.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in their.items())
    assert torch.equal(segmenter.no_mask_embed.weight, model.prompt_encoder.no_mask_embed.weight)


def test_a_safetensors_file_with_original_names_loads_as_well(sam, tmp_path, ours):
    save_file(sam.state_dict(), tmp_path / "sam.safetensors")
    mine, same = ours.state_dict(), filled(tmp_path / "sam.safetensors").state_dict()
    report = to_segmenter_keys(sam.state_dict())[1]
    assert all(torch.equal(mine[name], same[name]) for name in report.loaded)


# The check of a converted file


def test_a_converted_file_is_checked_against_the_original_implementation(pth, tmp_path, command):
    done = command("convert", "sam", pth, tmp_path / "hf", "--check")
    assert done.code == 0
    assert done.out.splitlines()[0].startswith("loaded=")
    found = {name: float(value) for name, value in done.values().items()}
    assert list(found) == ["embedding_difference", "masks_difference", "scores_difference"]
    assert max(found.values()) <= 1e-5


@pytest.mark.parametrize(
    ("weight", "moved"),
    [
        ("mask_decoder.iou_prediction_head.proj_out.bias", ["scores"]),
        ("mask_decoder.upscale_conv2.bias", ["masks"]),
        ("vision_encoder.neck.layer_norm2.bias", ["embedding", "masks", "scores"]),
    ],
)
def test_a_folder_that_computes_something_else_fails_the_check(pth, tmp_path, command, weight, moved):
    command("convert", "sam", pth, tmp_path / "hf")
    tensors = load_file(tmp_path / "hf/model.safetensors")
    save_file(tensors | {weight: tensors[weight] + 0.5}, tmp_path / "hf/model.safetensors")
    found = compare(pth, tmp_path / "hf")
    assert [name for name, value in found.items() if value > TOLERANCE] == moved
    with pytest.raises(ModelError, match=f"MD02: .*hf: differs from segment-anything .*: {moved[0]} by "):
        refuse_differences(found, tmp_path / "hf")


def test_the_command_fails_with_one_line_after_its_numbers(pth, tmp_path, command, monkeypatch):
    monkeypatch.setattr(sam_check, "TOLERANCE", -1.0)
    done = command("convert", "sam", pth, tmp_path / "hf", "--check")
    assert (done.code, done.err.count("MD02")) == (4, 1)
    assert list(done.values()) == ["embedding_difference", "masks_difference", "scores_difference"]


def test_a_difference_that_is_no_number_fails_the_check():
    with pytest.raises(ModelError, match="masks by nan, 0.001 allowed"):
        refuse_differences({"embedding": 0.0, "masks": float("nan")}, Path("hf"))


def test_without_segment_anything_nothing_is_converted_before_it_is_asked_for(pth, tmp_path, command, monkeypatch):
    monkeypatch.setattr(version, "find_spec", lambda name: None)
    done = command("convert", "sam", pth, tmp_path / "hf", "--check")
    assert done.code == 2
    assert "segment_anything: not installed; pip install 'trackgpt[check]'" in done.err
    assert not (tmp_path / "hf").exists()


# The sizes


def test_the_sizes_of_a_small_sam_are_read_off_its_weights(sam):
    assert sam_config(sam.state_dict(), decoder_heads=HEADS) == PerceptionConfig(
        encoder=EncoderConfig(
            kind="sam_vit",
            sam={
                "hidden_size": 24,
                "num_hidden_layers": 3,
                "num_attention_heads": 3,
                "mlp_dim": 96,
                "image_size": SIDE,
                "patch_size": 16,
                "window_size": 3,
                "global_attn_indexes": [1],
                "output_channels": C,
                "num_pos_feats": C // 2,
            },
        ),
        decoder=DecoderConfig(hidden_size=C, mlp_dim=64, layers=2, heads=HEADS, iou_head_hidden=20),
        image_side=SIDE,
    )


@pytest.mark.parametrize(
    ("name", "hidden", "layers", "heads", "everywhere"),
    [
        ("vit_b", 768, 12, 12, [2, 5, 8, 11]),
        ("vit_l", 1024, 24, 16, [5, 11, 17, 23]),
        ("vit_h", 1280, 32, 16, [7, 15, 23, 31]),
    ],
)
def test_every_weight_of_the_published_sams_has_its_place(name, hidden, layers, heads, everywhere):
    """Names and shapes of the full models, without their memory."""
    with torch.device("meta"):
        state = sam_model_registry[name]().state_dict()
        config = sam_config(state)
        wanted = {name: value.shape for name, value in Segmenter(config).state_dict().items()}
    sam = config.encoder.sam
    assert (sam["hidden_size"], sam["num_hidden_layers"], sam["num_attention_heads"]) == (hidden, layers, heads)
    assert (sam["global_attn_indexes"], sam["window_size"], sam["image_size"]) == (everywhere, 14, 1024)
    assert config.decoder == DecoderConfig()
    assert config.image_side == 1024
    found = {name: value.shape for name, value in to_segmenter_keys(state)[0].items()}
    new = {name for name in wanted if name.startswith(("mask_decoder.first_online.", "mask_decoder.adapter."))}
    assert found == {name: shape for name, shape in wanted.items() if name not in new}


def test_a_sam_whose_window_is_its_whole_grid_computes_the_same(tmp_path):
    sam, pixels = build_sam(window=GRID), random(1, 3, SIDE, SIDE)
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    with torch.no_grad():
        assert apart(filled(tmp_path / "sam.pth").image_encoder(pixels).embedding, sam.image_encoder(pixels)) <= 1e-5


# What is wrong, in words


def complaint(call: functools.partial) -> str:
    """The one line of the ModelError a call raises."""
    with pytest.raises(ModelError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Hostile:
    """A pickle of this object would write a file when it is read by plain pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "sam.pth"
    torch.save({"image_encoder.x": Hostile(mark)}, path)
    assert complaint(functools.partial(load_sam, path)).startswith(f"MD02: {path}: not a whole file of plain weights")
    path.write_bytes(pickle.dumps(Hostile(mark)))
    assert complaint(functools.partial(load_sam, path)).startswith("MD02")
    assert not mark.exists()


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(pth, tmp_path, share):
    data = pth.read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: int(share * len(data))])
    said = complaint(functools.partial(load_sam, tmp_path / "cut.pth"))
    assert said.startswith(f"MD02: {tmp_path / 'cut.pth'}: not a whole file of plain weights")
    assert said.endswith("fetch it again")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.zeros(1)], "found a list, wanted a dictionary of named tensors"),
        ({}, "wanted a dictionary of named tensors"),
        ({"model": {"a": torch.zeros(1)}, "step": 3}, "wanted tensors alone, but these are none: model, step"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, said):
    torch.save(content, tmp_path / "sam.pth")
    assert said in complaint(functools.partial(load_sam, tmp_path / "sam.pth"))


def test_a_missing_file_and_an_empty_folder_are_md01(tmp_path):
    assert complaint(functools.partial(load_sam, tmp_path / "no.pth")).startswith("MD01")
    assert "neither model.safetensors nor" in complaint(functools.partial(load_sam, tmp_path))


def test_damaged_folders_are_refused(tmp_path):
    index, weights = tmp_path / "model.safetensors.index.json", tmp_path / "model.safetensors"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    assert "shards that are not there: one.safetensors" in complaint(functools.partial(load_sam, tmp_path))
    index.write_text("{")
    assert "not an index of shards" in complaint(functools.partial(load_sam, tmp_path))
    weights.write_bytes(b"\x00" * 20)
    assert "not a whole safetensors file" in complaint(functools.partial(load_sam, tmp_path))


def test_weights_of_another_model_are_refused_with_some_of_their_names(sam, tmp_path, ours):
    torch.save({"layer1.0.conv1.weight": torch.zeros(2), "fc.weight": torch.zeros(2)}, tmp_path / "resnet.pth")
    said = complaint(functools.partial(load_into, ours, tmp_path / "resnet.pth"))
    assert said.startswith(f"MD02: {tmp_path / 'resnet.pth'}: not a SAM: wanted weights named image_encoder.*")
    assert "found fc.weight, layer1.0.conv1.weight" in said
    extended = sam.state_dict() | {"memory_attention.layers.0.weight": torch.zeros(2)}
    said = complaint(functools.partial(to_segmenter_keys, extended))
    assert said == "MD02: not a SAM: it has weights no SAM has: memory_attention.layers.0.weight"
    said = complaint(functools.partial(to_segmenter_keys, {}))
    assert said.endswith("found none")


def without(state: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name not in names}


def test_a_sam_that_does_not_fit_is_refused_with_names_and_shapes_and_nothing_is_changed(sam, tmp_path):
    ours = Segmenter(sam_config(sam.state_dict(), decoder_heads=HEADS))
    state = without(sam.state_dict(), "mask_decoder.iou_token.weight")
    state["mask_decoder.hf_token.weight"] = torch.zeros(1, C)
    state["image_encoder.blocks.0.attn.rel_pos_h"] = torch.zeros(9, 8)
    torch.save(state, tmp_path / "sam.pth")
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    said = complaint(functools.partial(load_into, ours, tmp_path / "sam.pth"))
    assert said == (
        f"MD02: {tmp_path / 'sam.pth'}: does not fit this segmenter: "
        "weights missing 1: mask_decoder.iou_token.weight; weights unknown 1: mask_decoder.hf_token.weight; "
        "shapes that differ 1: image_encoder.vision_encoder.layers.0.attn.rel_pos_h is (9, 8), wanted (5, 8); "
        "build the segmenter from sam_config(load_sam(path))"
    )
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


def test_a_larger_sam_does_not_fit_a_smaller_one_and_only_three_names_are_given(pth):
    config = sam_config(load_sam(pth), decoder_heads=HEADS)
    small = replace(config, encoder=replace(config.encoder, sam={**config.encoder.sam, "num_hidden_layers": 2}))
    said = complaint(functools.partial(load_into, Segmenter(small), pth))
    assert "weights unknown 14: image_encoder.vision_encoder.layers.2.attn.proj.bias, " in said
    assert " and 11 more; build" in said


def test_a_convolutional_segmenter_takes_no_sam(pth):
    config = PerceptionConfig(EncoderConfig("conv", channels=[4] * 4, blocks=[1] * 4), DecoderConfig(hidden_size=C))
    said = complaint(functools.partial(load_into, Segmenter(config), pth))
    assert said.endswith("SAM's weights need the encoder kind sam_vit, this segmenter's is conv")


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("mask_decoder.mask_tokens.weight", "mask_decoder.mask_tokens.weight"),
        ("image_encoder.pos_embed", "image_encoder.vision_encoder.pos_embed"),
        ("image_encoder.blocks.2.attn.rel_pos_h", "image_encoder.vision_encoder.layers.2.attn.rel_pos_h"),
    ],
)
def test_sizes_cannot_be_read_off_half_a_sam(sam, lost, named):
    said = complaint(functools.partial(sam_config, without(sam.state_dict(), lost)))
    assert said == f"MD02: not a whole SAM: it lacks {named}"
