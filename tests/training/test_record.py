"""What of a record is published: no secret, no markup of its own, and of a picture its pixels."""

import io
import shutil
import struct
import zlib

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from benchmarks.foreign_code import PLAIN, SECRETS, TOKEN, changed, entry
from tests.conftest import ROOT
from training.options import UsageError
from training.publishing.build import build
from training.publishing.png import only_pixels
from training.publishing.secrets import looks_secret

IN_A_FIELD = [name for name in SECRETS if "picture" not in name and "link" not in name and "component" not in name]


@pytest.mark.parametrize("name", IN_A_FIELD)
def test_what_looks_like_a_token_is_published_nowhere_and_repeated_in_no_message(name, tmp_path):
    folder = changed(ROOT / "checkpoints" / PLAIN, tmp_path / PLAIN, SECRETS[name])
    try:
        build(folder, tmp_path / "built")
    except UsageError as error:
        assert TOKEN not in str(error) and "\n" not in str(error) and not (tmp_path / "built").exists()
    else:  # a field that no run writes is left out
        assert not any(TOKEN.encode() in p.read_bytes() for p in (tmp_path / "built").rglob("*") if p.is_file())


def test_words_of_a_vocabulary_and_of_a_recipe_are_no_secrets():
    for text in ("pad_token", "eos_token_id=3", "tokens=600", "--context_length 64", "token by token", "hf_home"):
        assert not looks_secret(text), text
    for text in ("--hub_token abcdef", "password=abcdef123", "https://me:secret@example.org/data"):
        assert looks_secret(text), text


def test_markup_in_a_record_is_text_on_the_card(tmp_path):
    folder = changed(ROOT / "checkpoints" / PLAIN, tmp_path / PLAIN, lambda folder: None)
    entry("run.json", "dataset", "licence", value="<img src=x onerror=alert(1)> [free](https://example.org)")(folder)
    entry("run.json", "command", value="train --note '```' '<script>'")(folder)
    build(folder, tmp_path / "built", is_loaded=False)
    card = (tmp_path / "built" / "README.md").read_text()
    assert r"\<img src=x onerror=alert(1)\> \[free\]" in card
    inside = card[card.index("````") :].split("````")[1]  # of a fence that is longer than the one in the command
    assert "<script>" in inside


def test_a_run_that_lacks_a_field_or_holds_another_kind_is_one_line(tmp_path):
    for keys, value, said in (
        (("step",), "many", "step is 'many'; it must be an integer"),
        (("dataset",), [], r"dataset is \[\]; it must be an object"),
        (("device",), "cpu\nor so", r"device holds the character U\+000A"),
    ):
        folder = changed(ROOT / "checkpoints" / PLAIN, tmp_path / PLAIN, entry("run.json", *keys, value=value))
        with pytest.raises(UsageError, match=said):
            build(folder, tmp_path / "built")
        shutil.rmtree(folder)
    assert not (tmp_path / "built").exists()


# Pictures


def png(text: str | None = None) -> bytes:
    told, buffer = PngInfo(), io.BytesIO()
    if text:
        told.add_text("comment", text)
    Image.new("L", (5, 4), 9).save(buffer, "PNG", pnginfo=told)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def test_of_a_picture_only_the_pixels_are_kept():
    kept = only_pixels(png(TOKEN) + TOKEN.encode())
    assert kept == only_pixels(png()) and TOKEN.encode() not in kept
    assert Image.open(io.BytesIO(kept)).getpixel((4, 3)) == 9


def test_a_picture_that_unpacks_to_more_than_its_header_says_is_refused():
    header = struct.pack(">IIBBBBB", 5, 4, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n"
    for body, said in (
        (zlib.compress(bytes(10**6)), "not as many as its header says"),
        (b"no pixels", "damaged"),
    ):
        with pytest.raises(ValueError, match=said):
            only_pixels(start + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    huge = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="60000 x 60000"):
        only_pixels(start + chunk(b"IHDR", huge) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    for content in (b"", b"GIF89a", png()[:-5]):
        with pytest.raises(ValueError, match="no PNG"):
            only_pixels(content)
