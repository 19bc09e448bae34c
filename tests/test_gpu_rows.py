"""The figures that need a GPU: here every part runs with tiny sizes on a CPU, and what is measured is a number."""

import json
import math

import pytest

from eval.__main__ import main
from eval.speed import gpu_models, gpu_rows
from trackgpt.errors import UsageError


def rows(tmp_path, *options):
    """The exit code of a run of tiny sizes, unless options say otherwise."""
    given = ["gpu-rows", "--size", "tiny", "--device", "cpu", "--out", tmp_path, *options]
    with pytest.raises(SystemExit) as left:
        main([str(option) for option in given])
    return int(left.value.code or 0)


def last_line(text):
    return dict(pair.split("=", 1) for pair in text.splitlines()[-1].split())


def figures(path):
    return json.loads(path.read_text())["figures"]


def test_encoder_brain_and_tracker_leave_a_file_each_with_numbers_and_conditions(tmp_path, capsys):
    assert rows(tmp_path, "--only", "encoder", "--only", "brain", "--only", "track") == 0
    assert last_line(capsys.readouterr().out) == {"parts": "3", "done": "3", "left": "none", "out": str(tmp_path)}
    encoder, brain, track = (
        figures(tmp_path / f"{name}.json") for name in ("encoder-tiny", "brain-tiny", "track-tiny-tiny")
    )
    assert encoder["tflop"] > 0
    assert all(math.isfinite(encoder[name]) for name in ("ms_1", "ms_2", "share_1", "share_2", "peak_tflop_s"))
    assert brain["verified_same"] is True
    assert all(brain[name] > 0 for name in ("plain_ms", "verified_ms", "forced_ms", "plain_over_verified"))
    assert all(track[name] > 0 for name in ("fps_online", "fps_batch_2", "first_mask_ms"))
    assert track["peak_bytes"] is None  # there is no GPU whose memory could be read
    kept = json.loads((tmp_path / "brain-tiny.json").read_text())
    assert {"load", "threads", "versions", "commit", "gpu", "size"} <= set(kept["conditions"])


def test_the_planned_bytes_are_those_of_the_weights():
    model = gpu_models.random_model("tiny", "tiny", "cpu")
    assert gpu_models.load_of(model.parameters()).frozen_bytes == sum(p.nbytes for p in model.parameters())


def test_a_second_run_keeps_what_is_measured_and_repeats_what_failed(tmp_path, monkeypatch, capsys):
    calls = []

    def works(at):
        calls.append("works")
        return {"value": 1.0}

    def fails(at):
        calls.append("fails")
        raise RuntimeError("CUDA out of memory\nand more")

    monkeypatch.setattr(gpu_rows, "parts_of", lambda size: {"works": works, "fails": fails})
    assert rows(tmp_path) == rows(tmp_path) == 0
    assert calls == ["works", "fails", "fails"]
    assert last_line(capsys.readouterr().out)["left"] == "fails"
    assert json.loads((tmp_path / "fails.json").read_text())["not_measured"] == "RuntimeError: CUDA out of memory"


def test_no_part_begins_after_the_time(tmp_path, capsys):
    assert rows(tmp_path, "--minutes", 0, "--only", "brain") == 0
    assert last_line(capsys.readouterr().out)["done"] == "0"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--size", "huge"), "choose from full, tiny"), (("--size", "full"), "needs a GPU"), (("--only", "x"), "no such")],
)
def test_what_cannot_be_measured_is_refused_in_words(tmp_path, capsys, options, said):
    assert rows(tmp_path, *options) == 2
    assert said in capsys.readouterr().err


def test_the_full_table_has_every_encoder_with_every_brain_attention_and_training():
    names = list(gpu_rows.parts_of(gpu_rows.SIZES["full"]))
    assert len(names) == 3 + 2 + 6 + 3 + 1 + 2
    assert {"encoder-h", "brain-13b", "track-13b-h", "attention-l", "train-7b-h-cached"} <= set(names)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
def test_the_decoder_is_measured_as_it_is_and_compiled(tmp_path):
    assert rows(tmp_path, "--only", "decoder") == 0
    assert set(figures(tmp_path / "decoder.json")) == {"ms_1", "compiled_ms_1"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
def test_attention_and_training_run_too_and_cached_features_are_read(tmp_path):
    assert rows(tmp_path, "--only", "attention", "--only", "train") == 0
    assert figures(tmp_path / "attention-tiny.json")["sdpa_ratio"] > 0
    for name in ("train-tiny-tiny", "train-tiny-tiny-cached"):
        assert figures(tmp_path / f"{name}.json")["samples_s"] > 0
    assert list((tmp_path / "training" / "features").rglob("*.safetensors"))


def test_a_program_that_fails_says_why(tmp_path):
    from eval.speed import gpu_training

    with pytest.raises(UsageError, match="no_such_module"):
        gpu_training.run_module("no_such_module", tmp_path)
