"""The mask propagation network: its memory against arithmetic by hand, its hints, and its folder."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny_propagation import tiny_propagation

from trackgpt.config import MaskPropagationConfig
from trackgpt.errors import ModelError, UsageError
from trackgpt.perception.mask_propagation import (
    MaskPropagation,
    Reference,
    Shown,
    bumps,
    filled,
    is_nano_memory,
)

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(n, side, seed):
    """Keys (n, 16, side, side) of length 1."""
    return F.normalize(draw(n, 16, side, side, seed=seed), dim=1)


def reference(n, side, seed, place=(0.0, 0.0, 1.0, 1.0)):
    on = torch.sigmoid(2 * draw(n, 1, side, side, seed=seed + 1))
    return Reference(unit(n, side, seed), on, 1 - on, draw(n, 16, side, side, seed=seed + 2), place)


def seen(model, n=2, seed=0):
    """All that the decoder takes, of n random windows."""
    with torch.no_grad():
        maps = model.encode(draw(n, 3, 64, 64, seed=seed))
    shown = Shown(*(draw(n, 1, 16, 16, seed=seed + k) for k in range(1, 5)))
    return maps, shown, draw(n, 6, 8, 8, seed=seed + 5), draw(n, 32, 8, 8, seed=seed + 6)


@pytest.fixture(scope="module")
def model():
    return tiny_propagation()


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


# What is remembered


def middles(side, place):
    """x and y of the middles of a window's cells, row by row, float64 (side * side, 2)."""
    x, y, width, height = place
    at = [(x + (j + 0.5) / side * width, y + (i + 0.5) / side * height) for i in range(side) for j in range(side)]
    return np.array(at)


def by_hand(model, key, references, which):
    """`recall` as a softmax over likeness x sharpness - squared distance / reach, and one cell as like as `unlike`."""
    sharpness, reach = model.sharpness[which].exp().item(), model.reach[which].exp().item()
    side = key.shape[-1]
    carried, read = [], []
    for row in range(len(key)):
        query = key[row].flatten(1).T.double().numpy()
        scores, values = [], []
        for one in references:
            keys = one.key[row].flatten(1).double().numpy()
            apart = middles(side, (0, 0, 1, 1))[:, None] - middles(side, one.place)[None]
            scores.append(sharpness * query @ keys - (apart**2).sum(2) / reach)
            parts = one.on[row], one.off[row], torch.zeros_like(one.on[row]), one.value[row]
            values.append(torch.cat(parts).flatten(1).T.double().numpy())
        scores.append(np.full((side * side, 1), sharpness * model.unlike[which].item()))
        values.append(np.array([[0.0, 0.0, 1.0] + [0.0] * 16]))
        weights = np.exp(np.concatenate(scores, 1))
        found = (weights / weights.sum(1, keepdims=True)) @ np.concatenate(values)
        on, off, none = np.log(found[:, :3] + 1e-4).T
        carried.append((np.stack([on - off, on - none, off - none]) / 4).reshape(3, side, side))
        read.append(found[:, 3:].T.reshape(16, side, side))
    return np.stack(carried), np.stack(read)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "references",
    [
        [reference(2, 5, 10)],
        [reference(2, 5, 10), reference(2, 5, 20)],
        [reference(2, 5, 10, place=(0.25, -0.5, 2.0, 0.75))],
        [reference(2, 5, 10), reference(2, 5, 20, place=(-0.125, 0.25, 0.5, 1.5)), reference(2, 5, 30)],
    ],
    ids=["one", "two", "of another window", "three"],
)
def test_recall_is_a_softmax_over_likeness_and_distance(model, references, which):
    key = unit(2, 5, 1)
    with torch.no_grad():
        carried, read = model.recall(key, references, which)
    wanted = by_hand(model, key, references, which)
    np.testing.assert_allclose(carried, wanted[0], atol=2e-4)
    np.testing.assert_allclose(read, wanted[1], atol=2e-5)


def test_masks_are_carried_to_where_the_same_key_is_and_nowhere_else(model):
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    keys = torch.eye(16)  # of cell k: 1 in channel k
    on = (torch.arange(16) < 5).float().view(1, 1, 4, 4)
    old = Reference(keys.view(1, 16, 4, 4), on, 1 - on, torch.zeros(1, 16, 4, 4))
    with torch.no_grad():
        carried, _ = model.recall(keys[:, order].reshape(1, 16, 4, 4), [old], 1)
        nowhere, _ = model.recall(-keys.view(1, 16, 4, 4), [old], 1)
    assert torch.equal(carried[0, 0].flatten() > 0, order < 5)
    assert (carried[0, 0].abs() > 1).all()
    assert (nowhere[0, 1:] < -1).all()  # neither of the target nor of the rest


def test_of_two_equal_cells_the_nearer_one_counts_and_more_so_on_the_last_frame(model):
    key = torch.ones(1, 16, 4, 4) / 4
    on = torch.zeros(1, 1, 4, 4)
    on[..., 0, 0] = 1
    odds = []
    for which in (0, 1):
        with torch.no_grad():
            carried, _ = model.recall(key, [Reference(key, on, 1 - on, torch.zeros(1, 16, 4, 4))], which)
        assert int(carried[0, 0].argmax()) == 0
        odds.append(float(carried[0, 0, 0, 0]))
    assert odds[0] > odds[1]


def test_the_same_place_of_the_frame_is_near_whichever_window_shows_it(model):
    key = torch.ones(1, 16, 4, 4) / 4
    on = torch.zeros(1, 1, 4, 4)
    on[..., 1, 1] = 1
    old = Reference(key, on, 1 - on, torch.zeros(1, 16, 4, 4), (0.5, 0.25, 1.0, 1.0))
    with torch.no_grad():
        carried, _ = model.recall(key, [old], 0)
    assert divmod(int(carried[0, 0].argmax()), 4) == (2, 3)  # two columns to the right and one row down


def test_rows_do_not_influence_each_other(model):
    maps, shown, carried, read = seen(model, 3)
    others = seen(model, 3, seed=50)
    key, old = unit(3, 8, 1), reference(3, 8, 10)
    with torch.no_grad():
        whole = model.decode(maps, shown, carried, read), *model.recall(key, [old], 0)
        for row in range(3):
            index = torch.tensor([row])
            alone = Shown(*(getattr(shown, each.name)[index] for each in fields(shown)))
            single = model.decode(maps.of(index), alone, carried[index], read[index])
            for name in ("logits", "coarse", "iou", "presence"):
                torch.testing.assert_close(getattr(single, name), getattr(whole[0], name)[index], atol=1e-4, rtol=1e-4)
            part = Reference(*(getattr(old, name)[index] for name in ("key", "on", "off", "value")))
            for one, many in zip(model.recall(key[index], [part], 0), whole[1:], strict=True):
                torch.testing.assert_close(one, many[index], atol=1e-4, rtol=1e-4)
        first = [torch.cat([b[:1], a[1:]]) for a, b in zip((carried, read), others[2:], strict=True)]
        changed = model.decode(maps, shown, *first)
    assert torch.equal(changed.logits[1:], whole[0].logits[1:])
    assert not torch.equal(changed.logits[:1], whole[0].logits[:1])


def test_everything_that_is_known_of_the_target_changes_its_mask(model):
    maps, shown, carried, read = seen(model)
    blank = torch.zeros_like(shown.last)
    with torch.no_grad():
        logits = model.decode(maps, shown, carried, read).logits
        for name in ("last", "box", "on", "off"):
            assert not torch.equal(model.decode(maps, replace(shown, **{name: blank}), carried, read).logits, logits)
        assert not torch.equal(model.decode(maps, shown, 0 * carried, read).logits, logits)
        assert not torch.equal(model.decode(maps, shown, carried, 0 * read).logits, logits)
    assert logits.shape == (2, 1, 32, 32)


def test_what_is_remembered_has_the_size_of_a_cell_and_depends_on_the_mask(model):
    maps, *_ = seen(model)
    on = torch.sigmoid(draw(2, 1, 8, 8))
    with torch.no_grad():
        one, other = model.remember(maps, on, 1 - on), model.remember(maps, 1 - on, on)
    assert one.value.shape == (2, 16, 8, 8)
    assert torch.equal(one.key, maps.key)
    torch.testing.assert_close(maps.key.norm(dim=1), torch.ones(2, 8, 8))
    assert not torch.equal(one.value, other.value)


# What is shown


def test_a_bump_is_1_at_its_point_and_falls_by_its_radius():
    made = bumps(torch.tensor([[[0.25, 0.65]]]), 50)[0, 0]  # cells of 0.02: column 12, row 32
    assert made.shape == (50, 50)
    assert divmod(int(made.argmax()), 50) == (32, 12)
    assert made[32, 12] == pytest.approx(1)
    for row, column, apart in ((32, 15, 0.06), (29, 12, 0.06), (35, 16, 0.1), (32, 13, 0.02)):
        assert made[row, column] == pytest.approx(np.exp(-(apart**2) / (2 * 0.03**2)), rel=1e-3)


def test_several_bumps_are_the_highest_of_them_and_no_point_is_none():
    points = torch.tensor([[[0.25, 0.25], [0.75, 0.75]], [[0.25, 0.25], [torch.nan, torch.nan]]])
    both, one = bumps(points, 16)
    alone = [bumps(points[:1, k : k + 1], 16)[0] for k in (0, 1)]
    assert torch.equal(both, torch.maximum(*alone))
    assert torch.equal(one, alone[0])
    assert torch.equal(bumps(torch.full((2, 1, 2), torch.nan), 16), torch.zeros(2, 1, 16, 16))
    assert torch.equal(bumps(torch.zeros(3, 0, 2), 16), torch.zeros(3, 1, 16, 16))


def test_a_box_is_filled_up_to_its_edges_and_no_box_is_empty():
    boxes = torch.tensor([[0.25, 0.5, 0.75, 1.0], [torch.nan] * 4, [-1.0, -1.0, 2.0, 2.0]])
    one, none, everything = filled(boxes, 8)[:, 0]
    wanted = torch.zeros(8, 8)
    wanted[4:8, 2:6] = 1
    assert torch.equal(one, wanted)
    assert not none.any()
    assert everything.all()


# The folder


def test_a_saved_model_computes_the_same_bits(model, folder):
    again = MaskPropagation.from_pretrained(folder)
    assert again.config == model.config
    assert not again.training
    inputs = seen(model)
    with torch.no_grad():
        assert torch.equal(again.decode(*inputs).logits, model.decode(*inputs).logits)
        assert torch.equal(again.encode(draw(1, 3, 64, 64)).key, model.encode(draw(1, 3, 64, 64)).key)
    assert is_nano_memory(folder)
    assert not is_nano_memory(folder.parent)


def test_weights_may_be_stored_in_16_bits_and_are_read_as_32(model, tmp_path):
    model.save_pretrained(tmp_path, torch.bfloat16)
    stored = load_file(tmp_path / "model.safetensors")
    again = MaskPropagation.from_pretrained(tmp_path).state_dict()
    assert {value.dtype for value in stored.values()} == {torch.bfloat16, torch.int64}
    assert sum(v.numel() for v in stored.values() if v.dtype == torch.int64) == 4  # batches seen, of 4 units
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            assert again[name].dtype == torch.float32
            assert torch.equal(again[name], value.bfloat16().float())


def test_a_folded_model_computes_the_same_and_is_not_saved(model, tmp_path):
    model.save_pretrained(tmp_path)
    folded = MaskPropagation.from_pretrained(tmp_path)
    folded.fold()
    pixels = draw(1, 3, 64, 64)
    with torch.no_grad():
        for name in ("two", "four", "eight", "sixteen", "seen", "key"):
            one, other = (getattr(each.encode(pixels), name) for each in (model, folded))
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
        hints = seen(model, 1)[1:]
        one, other = (each.decode(each.encode(pixels), *hints).logits for each in (model, folded))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    with pytest.raises(ModelError, match="folded for inference; save it before"):
        folded.save_pretrained(tmp_path / "folded")
    assert not (tmp_path / "folded").exists()


def without(weights):
    del weights["unlike"]


def with_another(weights):
    weights["likeness"] = torch.zeros(2)


def reshaped(weights):
    weights["reach"] = torch.zeros(3)


def not_a_number(weights):
    weights["reach"][1] = torch.nan


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without, "the model lacks 1 weights: unlike"),
        (with_another, "the model does not know 1 weights: likeness"),
        (reshaped, "the model differs in shape for 1 weights: reach"),
        (not_a_number, "the weight reach has values that are NaN"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, change, said):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match=f"MD02: .*model.safetensors: {said}"):
        MaskPropagation.from_pretrained(folder)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"kind": "trackgpt"}',
        '{"widths": 3}',
        '{"width": "32"}',
        '{"width": 0}',
        '{"channels": [8, 8, 16]}',
        '{"channels": [8, 8, 16, 16, 16]}',
        '{"key": 60000, "value": 60000, "width": 60000}',
        '{"blocks": [1, 1, 1, 1000000]}',
    ],
)
def test_a_damaged_configuration_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match="MD02: "):
        MaskPropagation.from_pretrained(folder)


@pytest.mark.parametrize("side", [40, 24, 100])
def test_a_side_that_is_no_multiple_of_16_is_refused(folder, side):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "side": side}))
    with pytest.raises(ModelError, match=f"MD02: .*config.json: side {side}: wanted a multiple of 16"):
        MaskPropagation.from_pretrained(folder)
    with pytest.raises(UsageError, match=f"side {side}: wanted a multiple of 16"):
        MaskPropagation(MaskPropagationConfig(side=side))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_missing_or_a_git_lfs_pointer_is_named(folder, name):
    (folder / name).write_bytes(LFS)
    with pytest.raises(ModelError, match=f"MD01: .*{name}: a Git LFS pointer"):
        MaskPropagation.from_pretrained(folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"MD01: .*{name} is missing"):
        MaskPropagation.from_pretrained(folder)


def test_half_a_file_of_weights_is_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ModelError, match="MD02: "):
        MaskPropagation.from_pretrained(folder)
