"""A short form of the campaign of mutated inputs, and that the campaign finds what it is for."""

import time

import fuzz
import pytest

from trackgpt.errors import InputError


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    work = tmp_path_factory.mktemp("fuzz")
    return fuzz.log_targets(work) | fuzz.settings_targets() | fuzz.text_targets() | fuzz.result_targets(work)


def test_no_mutated_input_does_anything_but_be_taken_or_refused_in_a_line(targets):
    tallies = fuzz.campaign(targets, 1500, seed=1)
    assert [fault for tally in tallies.values() for fault in tally.faults] == []
    assert sum(tally.refused for tally in tallies.values()) > 500
    assert sum(tally.taken for tally in tallies.values()) > 200


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda text: text.index("zebra"), "ValueError: substring not found"),
        (lambda text: time.sleep(60), "TooLongError: more than 0.2 s"),
        (lambda text: [].append(1 / 0), "ZeroDivisionError: division by zero"),
        (lambda text: (_ for _ in ()).throw(InputError("two\nlines")), "a refusal of 2 lines"),
    ],
)
def test_a_fault_is_found_kept_and_can_be_tried_again(damage, found, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "LIMIT", 0.2)

    def take(path):
        result = damage(path.read_text("latin-1"))
        return list(result) if hasattr(result, "__next__") else result

    target = fuzz.Target([b"hello"], take)
    tally = fuzz.campaign({"planted": target}, 2, seed=3, keep=tmp_path)["planted"]
    assert len(tally.faults) == 2
    assert tally.faults[1].startswith(f"--only planted --seed 3 --first 1 --inputs 1: {found}")
    assert (tmp_path / "planted-3-1").read_bytes() == fuzz.input_of("planted", target, 3, 1)


def test_inputs_are_a_function_of_target_seed_and_number():
    target = fuzz.Target([b'{"a": [1, 2, 3]}' * 20], len)
    made = [fuzz.input_of("x", target, 0, number) for number in range(50)]
    assert made == [fuzz.input_of("x", target, 0, number) for number in range(50)]
    assert len(set(made)) > 40
    assert made != [fuzz.input_of("x", target, 1, number) for number in range(50)]
