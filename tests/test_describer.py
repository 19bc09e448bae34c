"""Descriptions: the prompt and its parser, the released records, a tiny VLM, an endpoint, and network errors."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import tiny_vlms

from trackgpt.errors import InputError, UsageError
from trackgpt.reasoners.describer import (
    MOST_LETTERS,
    EndpointDescriber,
    ParsedDescription,
    TemplateDescriber,
    VlmDescriber,
    drawn_or_not,
    parse,
    question,
    record_of,
    with_box,
)

GOOD = "<think>It has turned.</think><d>yes</d><answer>the red car, seen from behind</answer>"
FRAME = np.zeros((56, 84, 3), np.uint8)
BOX = (20.0, 10.0, 50.0, 40.0)


def test_an_answer_of_the_form_asked_for_is_read_strictly():
    assert parse(GOOD) == ParsedDescription(True, "the red car, seen from behind", "It has turned.", True, True)
    said = parse(" <think>Same.</think>\n<d>no</d>\n<answer>the red car</answer>\n")
    assert said == ParsedDescription(False, "", "Same.", True, True)
    assert parse("<think>Shall I say <d>no</d>?</think><d>yes</d><answer>a car</answer>").strict


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("Sure! " + GOOD, "the red car, seen from behind"),
        (GOOD + " Done.", "the red car, seen from behind"),
        (GOOD.replace("</answer>", ""), "the red car, seen from behind"),
        (GOOD.removeprefix("<think>It has turned.</think>"), "the red car, seen from behind"),
        ("<think>So <answer>x</answer>.</think><d>yes</d><answer>a car</answer>", "a car"),
        (GOOD.replace("<d>yes</d>", " <d> YES </d> "), "the red car, seen from behind"),
        ("<think>a</think><d>no</d><answer>b</answer><d>yes</d><answer>a car</answer>", "a car"),
    ],
)
def test_what_models_get_wrong_is_repaired(answer, words):
    said = parse(answer)
    assert (said.update, said.words, said.readable) == (True, words, True)
    assert said.strict == ("YES" in answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "the red car",
        "<think>It has turned and",
        "<think>a</think><d>maybe</d><answer>b</answer>",
        "<think>a</think><answer>b</answer><d>yes</d>",
        "<d>yes</d>" * 10_000,
        "<think>" * 10_000,
    ],
)
def test_what_cannot_be_read_is_no(answer):
    said = parse(answer)
    assert (said.update, said.words, said.readable) == (False, "", False)


@pytest.mark.parametrize("words", ["", "   ", "<b>", "x" * (MOST_LETTERS + 1), "word " * 2_000])
def test_an_empty_or_endless_description_changes_nothing(words):
    assert not parse(f"<think>a</think><d>yes</d><answer>{words}</answer>").update


def test_markup_in_a_description_is_taken_out():
    assert parse("<d>yes</d><answer>the <|im_end|> red\n car</answer>").words == "the red car"


def test_the_prompt_shows_the_form_that_its_parser_reads_strictly():
    asked = question("the red car", drawn=True)
    form = asked.splitlines()[-1]
    assert parse(form.replace("yes if the description must change, else no", "yes")).strict
    assert "the red car" in asked
    assert "red box" in asked
    assert "red box" not in question("the red car", drawn=False)


def test_all_997_released_records_are_read_and_the_3_malformed_ones_are_named(shared):
    read, odd = [], []
    for file in sorted((shared / "data/tnllt/sft").glob("*.json")):
        for number, row in enumerate(json.loads(file.read_text())):
            _, said = record_of(row, f"{file.name}:{number}")
            read.append(said)
            if not said.strict:
                odd.append(f"{file.stem.removeprefix('sft_dataset_')}:{number}")
    assert len(read) == 997
    assert all(said.readable for said in read)
    assert odd == ["GOT-10k:161", "TNLLT:28", "lasot:130"]  # two repeat a tag in the thought, one ends without a tag
    assert sum(said.update for said in read) == 700


def test_a_record_of_another_form_is_refused_by_name():
    with pytest.raises(InputError, match="rows.json:7: wanted `input`"):
        record_of({"input": "the red car", "output": GOOD}, "rows.json:7")


def test_a_box_is_drawn_around_the_target_and_not_on_it():
    drawn = with_box(FRAME, BOX)
    assert not FRAME.any()
    assert drawn[:, 18:20].any()
    assert not drawn[11:39, 21:49].any()


def test_the_template_describer_leaves_all_words_as_they_are():
    said = TemplateDescriber().describe(FRAME, BOX, FRAME, "the red car", BOX)
    assert (said.parsed.update, said.parsed.readable, said.answer) == (False, True, "")


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm")
    tiny_vlms.qwen2_5(folder)
    return VlmDescriber.from_pretrained(folder)


def test_a_vision_language_model_sees_two_frames_and_is_read(vlm, monkeypatch):
    seen = []
    ask = vlm.vlm.ask
    monkeypatch.setattr(vlm.vlm, "ask", lambda images, *a, **k: (seen.extend(images), ask(images, *a, **k))[1])
    for describer in (vlm, drawn_or_not(vlm, False)):
        tiny_vlms.say(vlm.vlm, GOOD)
        said = describer.describe(FRAME, BOX, FRAME + 1, "the red car", BOX)
        assert said.parsed.words == "the red car, seen from behind"
        assert said.answer == GOOD
    assert [bool(image.max() > 1) for image in seen] == [True, False, False, False]


# --- endpoints ---


@contextmanager
def endpoint(status: int, body: bytes):
    """An endpoint on this machine; gives its address and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            asked.append((self.path, self.headers["Authorization"], json.loads(self.rfile.read(length))))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answering(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def test_an_endpoint_is_asked_with_two_pictures_and_read(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with endpoint(200, answering(GOOD)) as (url, asked):
        said = EndpointDescriber(f"{url}#qwen").describe(FRAME, BOX, FRAME, "the red car", BOX)
    assert said.parsed.words == "the red car, seen from behind"
    ((path, key, body),) = asked
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer secret", "qwen")
    *pictures, text = body["messages"][0]["content"]
    assert [part["image_url"]["url"][:23] for part in pictures] == ["data:image/jpeg;base64,"] * 2
    assert text["text"] == question("the red car", drawn=True)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b'{"error": "no key"}', "refused with status 401"),
        (200, b"<html>", "the answer is no JSON"),
        (200, b'{"choices": []}', "without choices"),
        (200, b'{"choices": [{"message": {"content": null}}]}', "NoneType instead of text"),
    ],
)
def test_an_endpoint_that_fails_says_so_in_one_line(status, body, said):
    with endpoint(status, body) as (url, _), pytest.raises(InputError, match=said) as refused:
        EndpointDescriber(url).describe(FRAME, BOX, FRAME, "the red car", BOX)
    assert "\n" not in str(refused.value)


def test_an_endpoint_that_is_not_there_is_one_line():
    with endpoint(200, b"") as (url, _):
        pass
    with pytest.raises(InputError, match="is the endpoint running") as refused:
        EndpointDescriber(url, seconds=2).describe(FRAME, BOX, FRAME, "the red car", BOX)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("url", ["ftp://host/v1", "http://", "localhost://"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(UsageError, match="wanted an endpoint"):
        EndpointDescriber(url)
