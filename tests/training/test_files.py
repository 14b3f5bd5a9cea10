"""Files: JSON from anywhere is an object that can be worked with, or one line."""

import json
import os

import pytest

from tests.conftest import ROOT
from training.files import MOST_DEPTH, parse_json, read_json
from training.options import UsageError

DEEP = 100_000
DAMAGED = {
    "empty": (b"", "Expecting value"),
    "cut": (b'{"a": [1, 2', "Expecting"),
    "two": (b'{"a": 1} {"b": 2}', "Extra data"),
    "mark": (b'\xef\xbb\xbf{"a": 1}', "Unexpected UTF-8 BOM"),
    "utf-16": ('{"a": 1}'.encode("utf-16"), "can't decode"),
    "latin-1": ('{"a": "é"}'.encode("latin-1"), "can't decode"),
    "half a character": (b'{"a": ["\\ud800"]}', "surrogates not allowed"),
    "half a character as a key": (b'{"a": {"\\udfff": 1}}', "surrogates not allowed"),
    "list": (b'[{"a": 1}]', "it holds a list; it must be an object"),
    "text": (b'"a"', "it holds a text"),
    "null": (b"null", "it holds null"),
    "nan": (b'{"a": NaN}', "it holds NaN; numbers must be finite"),
    "infinity": (b'{"a": [-Infinity]}', "it holds -Infinity"),
    "overflow": (b'{"a": 1e999}', "it holds 1e999"),
    "huge integer": (b'{"a": ' + b"9" * 200 + b"}", "an integer of 200 digits"),
    "endless integer": (b'{"a": ' + b"9" * 100_000 + b"}", "an integer of 100000 digits"),
    "twice": (b'{"a": {"b": 1, "c": 2, "b": 3}}', "it names 'b' twice"),
    "deep lists": (b'{"a": ' + b"[" * DEEP + b"]" * DEEP + b"}", f"it nests deeper than {MOST_DEPTH} levels"),
    "deep objects": (b'{"a": ' * DEEP + b"1" + b"}" * DEEP, f"it nests deeper than {MOST_DEPTH} levels"),
    "a little too deep": (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", f"it nests deeper than {MOST_DEPTH} levels"),
    "zeros": (b"\0" * 1000, "Expecting value"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_json_is_one_line_that_names_the_file(name, tmp_path):
    content, reason = DAMAGED[name]
    file = tmp_path / "run.json"
    file.write_bytes(content)
    with pytest.raises(UsageError) as error:
        read_json(file, "record of a run")
    said = str(error.value)
    assert said.startswith(f"{file}: no record of a run: ") and reason in said and "\n" not in said and len(said) < 500


def test_what_is_no_file_or_too_large_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with open(tmp_path / "large", "wb") as file:
        file.truncate(10**11)  # a hole: nothing lies on the disk, and nothing of it may be read into memory
    for name, reason in (
        ("pipe", "no regular file"), ("folder", "no regular file"), ("none", "no such file"), ("large", "larger than 8 MB"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=reason):
            read_json(tmp_path / name)


def test_what_is_whole_is_read(tmp_path):
    content = {"a": [1, 2.5, None, True, {"b": "é 漢 😀"}], "most": 10**30, "": {}}
    (tmp_path / "x.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_json(tmp_path / "x.json") == parse_json(json.dumps(content, ensure_ascii=False)) == content
    assert parse_json('{"a": -Infinity}', finite=False) == {"a": -float("inf")}
    for file in ROOT.glob("checkpoints/**/*.json"):
        assert read_json(file, finite=file.name != "scheduler_config.json") == json.loads(file.read_text())
