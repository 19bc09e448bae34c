"""Brains in 8 and 4 bits: what is asked of transformers, what stays whole, and where it is refused."""

import sys
from types import SimpleNamespace

import pytest
import torch
from tiny_models import dtypes, tiny_trackgpt

import trackgpt
from trackgpt import hub
from trackgpt.errors import UsageError
from trackgpt.hub import load_model
from trackgpt.reasoners import brain_quantised
from trackgpt.reasoners.brain_quantised import kept_whole, quantisation, quantise, require_quantised


@pytest.fixture
def there(monkeypatch):
    """A machine that has bitsandbytes."""
    monkeypatch.setattr(brain_quantised, "find_spec", lambda name: SimpleNamespace(name=name))


@pytest.fixture
def absent(monkeypatch):
    monkeypatch.setattr(brain_quantised, "find_spec", lambda name: None)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_machine_without_a_gpu_is_told_what_to_choose_before_anything_is_loaded(there, dtype):
    with pytest.raises(UsageError, match=f"dtype {dtype}: needs a CUDA GPU, and the device is cpu; choose --dtype bf"):
        trackgpt.load("no-such-model", "cpu", dtype=dtype)


def test_a_machine_without_bitsandbytes_is_told_what_to_install(absent):
    with pytest.raises(UsageError, match=r"needs bitsandbytes; pip install 'trackgpt\[quantised\]'"):
        require_quantised("int4", "cuda:1")


def test_the_command_refuses_in_one_line_with_code_2(command, tiny, tmp_path):
    (tmp_path / "frames").mkdir()
    done = command("track", "frames", "-i", "it", "-m", tiny, "--device", "cpu", "--dtype", "int4", "-o", "run")
    assert done.code in (2, 3)
    assert len(done.err.splitlines()) == 1
    assert command("doctor", "-m", tiny, "--device", "cpu", "--dtype", "int4").code == 2


def test_onnxruntime_and_quantised_weights_do_not_go_together():
    pytest.importorskip("onnxruntime")
    with pytest.raises(UsageError, match="runs on a CPU, not quantised"):
        load_model("no-such-model", "cpu", backend="onnxruntime", dtype="int8")


@pytest.mark.parametrize("tower", ["clip", "conv"])
def test_only_the_language_model_is_quantised(tower):
    llava = tiny_trackgpt(tower).brain.llava
    kept = kept_whole(llava)
    assert "lm_head" in kept
    assert "model.multi_modal_projector.linear_1" in kept
    assert any("vision_tower" in name for name in kept) == (tower == "clip")
    assert not any("language_model" in name for name in kept)
    four, eight = quantisation(llava, "int4"), quantisation(llava, "int8")
    assert (four.load_in_4bit, four.bnb_4bit_quant_type, four.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert four.bnb_4bit_compute_dtype == torch.bfloat16
    assert (eight.load_in_8bit, eight.load_in_4bit) == (True, False)
    assert four.llm_int8_skip_modules == eight.llm_int8_skip_modules == kept


def test_a_loaded_brain_goes_to_the_gpu_through_transformers_and_the_rest_stays_as_it_is(monkeypatch):
    model = tiny_trackgpt("clip").to(torch.bfloat16)
    whole, phi, given = model.brain.llava, model.brain.projection, {}

    def from_pretrained(name, **options):
        given.update(options, name=name)
        return whole

    monkeypatch.setattr(type(whole), "from_pretrained", staticmethod(from_pretrained))
    quantise(model.brain, "int8", torch.device("cuda:1"))
    assert (given["name"], given["device_map"], given["dtype"]) == (None, {"": "cuda:1"}, torch.bfloat16)
    assert given["quantization_config"].load_in_8bit
    assert set(given["state_dict"]) == set(whole.state_dict())
    assert model.brain.projection is phi


def test_a_model_is_loaded_in_bfloat16_and_then_quantised(there, monkeypatch, tmp_path):
    tiny_trackgpt("clip").save_pretrained(tmp_path)
    asked = []
    monkeypatch.setattr(hub, "_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(brain_quantised, "quantise", lambda brain, dtype, device: asked.append((dtype, brain)))
    model = load_model(tmp_path, "cuda", dtype="int4")
    assert asked == [("int4", model.brain)]
    assert dtypes(model) == {torch.bfloat16}


def test_bitsandbytes_stores_as_many_bytes_as_are_planned():
    """Where it is installed; its kernels for CPUs store as those for GPUs do."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'trackgpt[quantised]'")
    from trackgpt.planning.memory_plan import matrix_bytes

    model = tiny_trackgpt("clip").to(torch.bfloat16)
    quantise(model.brain, "int4", torch.device("cpu"))
    weight = model.brain.llava.model.get_decoder().layers[0].mlp.up_proj.weight
    state = weight.quant_state
    assert weight.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes == matrix_bytes(96, 48, "int4")
    assert "bitsandbytes" in sys.modules
