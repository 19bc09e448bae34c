"""What a run leaves: a model folder that loads, its card, and that of a model with adapters."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_boxes import written_tracker
from tiny_models import frame, tiny_trackgpt
from tiny_propagation import tiny_propagation
from tiny_runs import CPU, Line, plan, record, run, run_join, tiny_join

from trackgpt.config import LoraConfig
from trackgpt.errors import ModelError, OutputError
from trackgpt.hub import ASSETS, load_box_network, load_model, load_reported, load_tuned, merge
from trackgpt.precision import round_frozen
from trackgpt.reasoners.lora import add_lora, merge_lora
from trackgpt.reasoners.vlm_policy import VlmPolicy
from trackgpt.systems.trackgpt_tuned import save_tuned, tuned_names
from train import ship
from train.__main__ import run as train_config
from train.assemble import Origin, assemble, carries_lora, freeze, origin
from train.brain_folder import write_brain
from train.checkpoints import replace_folder
from train.config import TrainConfig
from train.engine import start_engine
from train.model_folder import card, export_model, exported_step
from train.stages import STAGES


@pytest.fixture
def base(tmp_path):
    """A whole model whose configuration asks for adapters."""
    folder = tmp_path / "base"
    tiny_trackgpt("clip", "sam_vit", lora=LoraConfig(rank=2)).save_pretrained(folder)
    return folder


def tuned(base, seed=0):
    """That model with adapters, rows, phi and decoder moved away from where they began."""
    model = assemble(str(base), "", False, 0)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
def outputs(model):
    answer = model.brain.reason(torch.from_numpy(frame(0, 56, 56)).permute(2, 0, 1), "the red car", forced="<TK>, <PO>")
    features = model.segmenter.encode(torch.from_numpy(frame(1, 64, 64)).permute(2, 0, 1)[None])
    decoded = model.segmenter.decode(features, answer.referring, None, answer.purport)
    return torch.cat([answer.referring.flatten(), answer.purport.flatten(), decoded.logits.flatten(), decoded.score])


# Adapters


def test_tuned_weights_are_adapters_rows_phi_and_decoder_and_nothing_that_is_frozen(base, tmp_path):
    model = tuned(base)
    save_tuned(model, tmp_path / "small", str(base))
    stored = load_file(tmp_path / "small/tuned.safetensors")
    parts = {part: sum(part in name for name in stored) for part in ("lora_", "trainable_tokens_delta", "projection")}
    assert parts["lora_"] == 8  # two matrices beside q and v of two layers
    assert parts["trainable_tokens_delta"] == 2
    assert parts["projection"] >= 4
    assert [n for n in stored if "base_layer" in n or "vision_tower" in n or "image_encoder" in n] == []
    assert set(stored) == tuned_names(model)
    assert sum(v.numel() for v in stored.values()) < 0.3 * sum(p.numel() for p in model.parameters())


def test_tuned_weights_load_unmerged_merged_and_as_a_model_with_the_same_outputs(base, tmp_path):
    model = tuned(base)
    expected = outputs(model)
    plain = outputs(load_reported(base)[0])
    assert (expected - plain).abs().max() > 0.1
    save_tuned(model, tmp_path / "small", str(base))
    unmerged = load_tuned(tmp_path / "small")
    assert carries_lora(unmerged)
    assert torch.equal(outputs(unmerged), expected)
    merge(tmp_path / "small", "", tmp_path / "whole")
    whole, _ = load_reported(tmp_path / "whole")
    assert not carries_lora(whole)
    assert (outputs(whole) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(outputs(load_model(tmp_path / "small", "cpu")), outputs(whole.fold()))


def test_the_frozen_models_may_have_moved(base, tmp_path):
    save_tuned(tuned(base), tmp_path / "small", str(base))
    base.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="MD01"):
        load_tuned(tmp_path / "small")
    merge(tmp_path / "small", tmp_path / "moved", tmp_path / "whole")
    assert load_reported(tmp_path / "whole")[0].config.brain.lora.rank == 2


def test_other_frozen_models_and_damaged_files_are_refused(base, tmp_path):
    save_tuned(tuned(base), tmp_path / "small", str(base))
    tiny_trackgpt("conv", width=64, lora=LoraConfig(rank=2)).save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="MD02: .*do not fit the frozen models; name those it was tuned on"):
        load_tuned(tmp_path / "small", tmp_path / "other")
    file = tmp_path / "small/tuned.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ModelError, match="MD02: .*tuned.safetensors: not a whole safetensors file"):
        load_tuned(tmp_path / "small")


def test_the_next_stage_goes_on_from_a_small_form_and_keeps_what_it_no_longer_trains(base, tmp_path):
    first = tuned(base)
    first.brain.llava.model.multi_modal_projector.requires_grad_(True)  # a stage that also tunes the projector
    with torch.no_grad():
        first.brain.llava.model.multi_modal_projector.linear_1.bias.add_(1)
    origin(first, str(base), "", False).save(first, tmp_path / "first")
    second = assemble(str(tmp_path / "first"), "", False, 0)
    freeze(second, ["brain"])
    came_from = origin(second, str(tmp_path / "first"), "", False)
    assert came_from.base == str(base)
    came_from.save(second, tmp_path / "second")
    third = load_tuned(tmp_path / "second")
    assert torch.equal(outputs(third), outputs(first))


def test_a_perception_from_elsewhere_travels_in_the_small_form(base, tmp_path):
    tiny_trackgpt("clip", "sam_vit", seed=5).save_pretrained(tmp_path / "other")
    model = assemble(str(base), str(tmp_path / "other"), False, 0)
    origin(model, str(base), str(tmp_path / "other"), False).save(model, tmp_path / "small")
    assert torch.equal(outputs(load_tuned(tmp_path / "small")), outputs(model.eval()))


def test_rounding_what_autocast_rounds_anyway_changes_no_number(base):
    model, rounded = (assemble(str(base), "", False, 0).eval() for _ in range(2))
    round_frozen(rounded)
    halves = [p for p in rounded.parameters() if p.dtype == torch.bfloat16]
    assert sum(p.numel() for p in halves) > 0.5 * sum(p.numel() for p in rounded.parameters())
    assert all(not p.requires_grad for p in halves)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(outputs(rounded), outputs(model))


# The folder


def test_an_exported_model_has_a_card_that_says_where_it_comes_from(tmp_path):
    run_join(tmp_path / "run", CPU, batch=2, steps=2)
    folder = tmp_path / "run/model"
    assert exported_step(folder) == 2
    text = (folder / "README.md").read_text()
    for words in (
        "stage join, step 2 of 2",
        "Seed 0; 2 samples per step on 1 process",
        "[9, 3, 3, 1]",
        "2.13.0",
        "abc",
    ):
        assert words in text, words
    assert "teacher-forced" in text
    assert json.loads((folder / "training.json").read_text())["step"] == 2
    assert sorted(path.name for path in folder.parent.iterdir() if "model" in path.name) == ["model"]


def test_the_card_of_a_small_form_says_that_it_is_one():
    assert "adapters and decoder, without" in card(record(), adapters=True)
    assert "every weight, in" in card(record(), adapters=False)


def test_a_full_disk_leaves_the_exported_model_as_it_was(tmp_path, monkeypatch):
    join = tiny_join()
    engine = start_engine(join, plan(), CPU, bf16=False)
    export_model(join.model, Origin(""), engine, tmp_path / "model", record(), CPU)
    before = (tmp_path / "model/model.safetensors").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(join.model, "save_pretrained", full)
    with pytest.raises(OutputError, match="the model of step 4 cannot be written: .*No space left") as error:
        export_model(join.model, Origin(""), engine, tmp_path / "model", record(), CPU)
    assert error.value.exit_code == 6
    assert (tmp_path / "model/model.safetensors").read_bytes() == before


def test_a_folder_is_put_in_another_ones_place_whole(tmp_path):
    for name in ("new", "place"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    replace_folder(tmp_path / "new", tmp_path / "place")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["place", "place/new"]


def test_a_run_that_was_killed_before_its_export_exports_when_started_again(tmp_path):
    steps = []
    run(Line(), tmp_path)
    run(Line(), tmp_path, export=lambda step, engine: steps.append(step))
    assert steps == [4]


# The command


def test_the_command_trains_resumes_and_exports_a_model_with_adapters(base, tmp_path, monkeypatch):
    monkeypatch.setitem(STAGES, "tiny", TinyStage)
    settings = {"stage": "tiny", "out": str(tmp_path / "out"), "brain": str(base), "previews": False}
    train_config(TrainConfig(**settings, plan=plan(steps=2)))
    first = outputs(load_tuned(tmp_path / "out/model"))
    train_config(TrainConfig(**settings, plan=plan(steps=4)))
    assert exported_step(tmp_path / "out/model") == 4
    assert not torch.equal(outputs(load_tuned(tmp_path / "out/model")), first)
    assert {"curves.png", "stage.json", "train.jsonl"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_merged_and_unmerged_adapters_are_told_apart(base):
    model = assemble(str(base), "", False, 0)
    assert carries_lora(model)
    merge_lora(model.brain)
    assert not carries_lora(model)
    assert add_lora(model.brain, LoraConfig(rank=1)) != []


class TinyStage(Line):
    """Moves everything that learns a little; samples are those of `Line`."""

    def __init__(self, model, shape, device):
        super().__init__()
        self.model = model

    def modules(self):
        return [self.model]

    def losses(self, samples):
        total = sum((p * torch.randn_like(p)).sum() for p in self.model.parameters() if p.requires_grad)
        return {"error": total}, {}


# `trackgpt merge`


def test_merging_by_command_writes_the_model_that_the_function_writes(base, tmp_path, command):
    save_tuned(tuned(base), tmp_path / "small", str(base))
    done = command("merge", tmp_path / "small", tmp_path / "whole")
    assert done.code == 0, done.err
    assert done.last.endswith(f"dtype=float32 out={tmp_path / 'whole'}")
    assert done.err.splitlines() == [
        f"trackgpt: 1/2 reading {tmp_path / 'small'} and the frozen models, {base}",
        f"trackgpt: 2/2 writing {tmp_path / 'whole'}",
    ]
    merge(tmp_path / "small", "", tmp_path / "same")
    written, wanted = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "same"))
    assert all(torch.equal(value, wanted[name]) for name, value in written.items())


def test_a_merged_model_may_be_stored_in_half_the_bytes(base, tmp_path, command):
    save_tuned(tuned(base), tmp_path / "small", str(base))
    sizes = []
    for dtype in ("float32", "bfloat16"):
        assert command("merge", tmp_path / "small", tmp_path / dtype, "--dtype", dtype).code == 0
        sizes.append(sum(v.nbytes for v in load_file(tmp_path / dtype / "model.safetensors").values()))
    assert sizes[0] == 2 * sizes[1]


def test_a_merge_that_cannot_be_is_one_line_and_an_exit_code(base, tmp_path, command):
    save_tuned(tuned(base), tmp_path / "small", str(base))
    small, whole = tmp_path / "small", tmp_path / "whole"
    whole.mkdir()
    (whole / "mine.txt").write_text("precious")
    for code, said, arguments in (
        (2, "no adapter, it has no tuned.json", (base, whole)),
        (2, "--dtype: `float16` is none of float32, bfloat16", (small, whole, "--dtype", "float16")),
        (2, "cannot take the place of its adapter", (small, small, "--overwrite")),
        (4, "MD01: gone: not a model on this machine", (small, tmp_path / "new", "--base", "gone")),
        (6, "OUT01: " + f"{whole}: exists and is not empty; needs --overwrite", (small, whole)),
    ):
        done = command("merge", *arguments)
        assert (done.code, done.out) == (code, "")
        assert said in done.err
        assert "Traceback" not in done.err
    for _ in range(2):
        assert command("merge", small, whole, "--overwrite").code == 0
    assert (whole / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("out", "line"),
    [
        ("base", "OUT01: base: holds "),
        ("link", "OUT01: link: holds "),
        ("other", "OUT01: other: holds a model that is no whole TrackGPT; choose another folder"),
        ("llava", "OUT01: llava: holds a model that is no whole TrackGPT; choose another folder"),
        ("weights", "OUT01: weights: holds model.safetensors but no config.json, so it is no whole TrackGPT"),
    ],
)
def test_a_merge_replaces_neither_what_it_reads_nor_a_model_of_another_kind(
    base, tmp_path, command, monkeypatch, out, line
):
    monkeypatch.chdir(tmp_path)
    for name in ("small", "other"):
        save_tuned(tuned(base), tmp_path / name, str(base))
    (tmp_path / "link").symlink_to(base)
    for name, file in (("llava", "config.json"), ("llava", "model.safetensors"), ("weights", "model.safetensors")):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / file).write_text('{"model_type": "llava"}')
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = command("merge", "small", out, "--overwrite")
    assert (done.code, done.out) == (6, "")
    assert line in done.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# `python -m train.ship`


def test_a_shipped_model_is_replaced_only_when_asked_for_and_only_by_one_that_fits(tmp_path, monkeypatch):
    tiny_trackgpt(seed=0).save_pretrained(tmp_path / "new")
    tiny_trackgpt(seed=1).save_pretrained(tmp_path / "assets/nano")
    (tmp_path / "assets/nano/example.jpg").write_bytes(b"a picture")
    before = {path: path.read_bytes() for path in (tmp_path / "assets").rglob("*") if path.is_file()}
    for limit, overwrite, said in ((ship.MOST_BYTES, False, "needs --overwrite"), (100, True, "bytes of weights")):
        monkeypatch.setattr(ship, "MOST_BYTES", limit)
        with pytest.raises(OutputError, match=said):
            ship.ship(tmp_path / "new", tmp_path / "assets/nano", overwrite)
        assert {path: path.read_bytes() for path in (tmp_path / "assets").rglob("*") if path.is_file()} == before
    monkeypatch.undo()
    count, size = ship.ship(tmp_path / "new", tmp_path / "assets/nano", overwrite=True)
    stored = load_file(tmp_path / "assets/nano/model.safetensors")
    wanted = load_file(tmp_path / "new/model.safetensors")
    assert all(torch.equal(stored[name], value.bfloat16()) for name, value in wanted.items())
    assert (count, size) == (
        sum(parameter.numel() for parameter in tiny_trackgpt().parameters()),
        (tmp_path / "assets/nano/model.safetensors").stat().st_size,
    )
    assert (tmp_path / "assets/nano/example.jpg").read_bytes() == b"a picture"
    with pytest.raises(OutputError, match="which is read"):
        ship.ship(tmp_path / "assets/nano", tmp_path / "assets/nano", overwrite=True)


def test_nano_memory_ships_where_such_a_model_lies_and_never_over_another_one(tmp_path):
    model = tiny_propagation()
    model.save_pretrained(tmp_path / "trained")
    count, size = ship.ship(tmp_path / "trained", tmp_path / "out")
    assert count == sum(p.numel() for p in model.parameters())
    assert size == (tmp_path / "out/model.safetensors").stat().st_size < 16 * 2**20
    with pytest.raises(OutputError, match="overwrite"):
        ship.ship(tmp_path / "trained", tmp_path / "out")
    ship.ship(tmp_path / "trained", tmp_path / "out", overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text("{}")
    with pytest.raises(OutputError, match="holds something else"):
        ship.ship(tmp_path / "trained", tmp_path / "other", overwrite=True)


def test_a_policy_ships_with_the_files_by_which_it_is_asked_and_not_with_how_it_was_trained(tmp_path):
    write_brain("nano", tmp_path / "trained")
    (tmp_path / "trained/training.json").write_text('{"data": "/somewhere"}')
    count, size = ship.ship(tmp_path / "trained", tmp_path / "out")
    assert ship.kind_of(tmp_path / "out").name == "policy-nano"
    assert count < 6e6
    assert size == (tmp_path / "out/model.safetensors").stat().st_size < 12 * 2**20
    policy, was = (VlmPolicy.from_pretrained(tmp_path / name) for name in ("out", "trained"))
    assert policy.template == was.template == "{words}{known}"
    for mine, theirs in zip(policy.model.parameters(), was.model.parameters(), strict=True):
        assert torch.equal(mine, theirs.bfloat16().float())
    assert not (tmp_path / "out/training.json").exists()
    with pytest.raises(OutputError, match="holds something else"):
        ship.ship(tmp_path / "trained", ASSETS / "nano", overwrite=True)


def test_a_box_tracker_ships_with_its_word_pieces(tmp_path):
    written_tracker(tmp_path / "trained")
    count, _ = ship.ship(tmp_path / "trained", tmp_path / "out")
    assert ship.kind_of(tmp_path / "out").name == "box-nano"
    made = load_box_network(tmp_path / "out")
    assert count == sum(p.numel() for p in made.parameters())
    assert made.tokenizer.encode("the dog") == load_box_network(tmp_path / "trained").tokenizer.encode("the dog")
