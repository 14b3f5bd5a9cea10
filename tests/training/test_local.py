"""Data from anywhere: no file but those given is opened, and what is huge or damaged is one line before much is read."""

import gzip
import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from training.data import images, text
from training.data.batches import training_batches
from training.data.documents import TextOptions, load_documents
from training.data.images import DataOptions, load_data
from training.data.local import check_table, files_within
from training.data.text import load_text
from training.options import UsageError


def png(seed: int = 0) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)).save(out, "png")
    return out.getvalue()


def bomb(side: int) -> bytes:
    """The beginning of a PNG that claims to be of side x side pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def table(
    folder: Path, rows: dict[int, dict] | None = None, labels=None, count: int = 30, split: str = "train"
) -> Path:
    """A parquet file of images; `rows` replaces some of them."""
    folder.mkdir(exist_ok=True)
    stored = [(rows or {}).get(i, {"bytes": png(i), "path": None}) for i in range(count)]
    columns = {"image": pa.array(stored, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    if labels is not None:
        columns["label"] = labels
    pq.write_table(pa.table(columns), folder / f"{split}-0.parquet")
    return folder


def said(folder: Path, **options) -> str:
    with pytest.raises(UsageError) as error:
        load_data(DataOptions(str(folder), image_column="image", **options))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    for i, name in enumerate(["cat", "dog"] * 10):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{i}.png").write_bytes(png(i))
    return folder


# What is opened


def test_links_that_lead_out_of_a_folder_are_refused(pictures, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "0.png").write_bytes(png(99))
    (pictures / "cat" / "inside.png").symlink_to(pictures / "dog" / "1.png")
    (pictures / "again").symlink_to(pictures / "dog")  # a folder of the folder: its files are there already
    assert sum(len(s) for s in vars_of(load_data(DataOptions(str(pictures))))) == 21
    (pictures / "cat" / "out.png").symlink_to(secret / "0.png")
    assert "1 links lead out of it, like cat/out.png; put the files themselves there" in said(pictures)
    (pictures / "cat" / "out.png").unlink()
    (pictures / "owl").symlink_to(secret)
    assert "1 links lead out of it, like owl" in said(pictures)
    (tmp_path / "beside").symlink_to(pictures)  # a folder that is named by a link is the folder that was given
    assert "like owl" in said(tmp_path / "beside")
    (pictures / "owl").unlink()
    assert load_data(DataOptions(str(tmp_path / "beside"))).class_names == ["cat", "dog"]


def vars_of(source) -> list:
    return [source.train, source.validation, source.test]


def test_links_of_the_cache_of_the_hub_stay(tmp_path):
    """A snapshot is a folder of links to the files beside it."""
    table(tmp_path / "set")
    repository = tmp_path / "hub" / "datasets--user--set"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (tmp_path / "set" / "train-0.parquet").rename(repository / "blobs" / "f00")
    (snapshot / "train-0.parquet").symlink_to("../../blobs/f00")
    assert sum(len(s) for s in vars_of(load_data(DataOptions(str(snapshot), image_column="image")))) == 30
    (snapshot / "test-0.parquet").symlink_to("/etc/hostname")
    assert "1 links lead out of it" in said(snapshot)


def test_pipes_and_devices_are_not_opened(pictures, tmp_path):
    os.mkfifo(pictures / "cat" / "pipe.png")
    assert "cat/pipe.png is a pipe; take it out" in said(pictures)
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(UsageError, match="is no regular file; it must be one, or a folder"):
            load_documents(TextOptions(str(name)))


def test_hidden_files_and_links_to_nothing_are_left_out(pictures):
    (pictures / ".git").mkdir()
    (pictures / ".git" / "out").symlink_to("/etc")
    (pictures / ".DS_Store").symlink_to("/etc/hostname")
    (pictures / "gone.png").symlink_to(pictures / "nowhere.png")
    assert len(files_within(pictures, "--dataset")) == 20


def test_a_table_names_no_other_file(pictures, tmp_path):
    for path in (
        str(pictures / "cat" / "0.png"),
        "/etc/hostname",
        "https://localhost/x.png",
        "../x.png",
        "a\0b",
        "/dev/zero",
    ):
        folder = table(tmp_path / "set", {7: {"bytes": None, "path": path}})
        for options in ({}, {"max_memory_gb": 0.0}):
            assert "train-0.parquet, row 7: names " in said(folder, **options), path
    (tmp_path / "set" / "mine.png").write_bytes(png(5))
    folder = table(tmp_path / "set", {7: {"bytes": None, "path": str(tmp_path / "set" / "mine.png")}})
    assert sum(len(s) for s in vars_of(load_data(DataOptions(str(folder), image_column="image")))) == 30


def test_an_archive_among_images_is_not_unpacked(pictures):
    (pictures / "more.zip").write_bytes(b"PK\x03\x04")
    assert "holds the archive more.zip; unpack it, and take it out" in said(pictures)


def test_a_folder_of_text_reads_its_tables_and_not_what_its_readme_names(tmp_path):
    (tmp_path / "secret.csv").write_text("text\nsecret\n")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: ../secret.csv\n---\n")
    (folder / "rows.csv").write_text("text\n" + "".join(f"row {i}\n" for i in range(10)))
    assert all(t.startswith("row") for t in load_documents(TextOptions(str(folder))).train)
    with pytest.raises(UsageError, match=r"--subset other: .* holds no folder of this name"):
        load_documents(TextOptions(str(folder), subset="other"))


# What is decoded


def test_an_image_that_is_too_large_is_named_before_it_is_decoded(tmp_path):
    for side in (9_000, 30_000):
        for options in ({}, {"resolution": 8}, {"max_memory_gb": 0.0}):
            found = said(table(tmp_path / "set", {20: {"bytes": bomb(side), "path": None}}), **options)
            assert "train-0.parquet, row 20: is too large" in found and "at most 64 megapixels" in found


def test_a_damaged_image_is_named_by_file_and_row(tmp_path):
    folder = table(tmp_path / "set", {25: {"bytes": png()[:60], "path": "cut.png"}}, count=28)
    pq.write_table(pq.read_table(folder / "train-0.parquet").slice(20), folder / "train-1.parquet")

    def left_out() -> dict:
        return load_data(DataOptions(str(folder), image_column="image")).report.left_out["images that cannot be read"]

    damage = "OSError: image file is truncated"
    assert left_out() == [f"train-0.parquet, row 25: {damage}", f"train-1.parquet, row 5: {damage}"]
    pq.write_table(pq.read_table(folder / "train-0.parquet").slice(0, 20), folder / "train-0.parquet")
    assert left_out() == [f"train-1.parquet, row 5: {damage}"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_that_is_met_while_training_is_one_line_too(workers, tmp_path):
    rows = {i: {"bytes": png()[:60] + bytes([i % 256]), "path": None} for i in range(110, 200)}
    source = load_data(
        DataOptions(str(table(tmp_path / "set", rows, count=200)), image_column="image", max_memory_gb=0.0)
    )
    with pytest.raises(
        UsageError, match=r"^\S*train-0\.parquet, row 1\d\d: no image that can be read, [^\n]*$"
    ) as error:
        list(zip(training_batches(source.train, 64, 0, 0, 0, 1, workers), range(9), strict=False))
    assert "Traceback" not in str(error.value)
    stream = load_data(DataOptions(str(tmp_path / "set"), image_column="image", streaming=True))
    with pytest.raises(UsageError, match="a row of train: no image that can be read"):
        list(stream.train)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            pa.array([0.0] * 29 + [0.5]),
            "train-0.parquet, row 29 holds 0.5; a class must be a whole number, a text, true or false",
        ),
        (pa.array([[0]] * 30), "row 0 holds [0]"),
    ],
)
def test_a_class_that_is_none_is_named_by_file_and_row(labels, message, tmp_path):
    for options in ({}, {"max_memory_gb": 0.0}):
        found = said(table(tmp_path / "set", labels=labels), **options)
        assert found.startswith("--label_column label: ") and message in found


def test_classes_of_every_split_are_counted(tmp_path):
    table(tmp_path / "set", labels=pa.array([0, 1] * 15))
    table(tmp_path / "set", labels=pa.array([0, 4] * 15), split="test")
    source = load_data(DataOptions(str(tmp_path / "set"), image_column="image"))
    assert source.class_names == ["0", "1", "4"]
    assert source.test.columns["class_labels"].unique().tolist() == [0, 2]


# Tables, before a library reads them


def made(tmp_path: Path, name: str, content: bytes) -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


WIDE = ",".join(f"c{i}" for i in range(10**6)).encode()
TABLES = {
    "wide.csv": (WIDE + b"\n" + WIDE, "line 1 has 1000000 columns; it must have at most 10000"),
    "wider.csv": (b"text\n" + WIDE, "line 2 has 1000000 columns"),
    "long.csv": (b"text\n" + b"x" * (2**24 + 1), "line 2 is longer than 16 MB"),
    "zeros.csv": (b"text\na\0b\n", "line 2 holds a NUL byte"),
    "latin.csv": ("text\nété\n".encode("latin-1"), "byte 0xe9 in line 2 is not UTF-8"),
    "packed.csv": (gzip.compress(b"text\na\n"), "line 1"),
    "deep.jsonl": (b'{"text": "a"}\n{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "line 2 nests deeper than 60"),
    "deep.json": (b"[\n" * 100, "line 61 nests deeper than 60 levels"),
    "keys.jsonl": (json.dumps({f"k{i}": 1 for i in range(20_000)}).encode(), "line 1 has 20000 columns"),
    "empty.parquet": (b"", "no parquet file that can be read"),
    "text.parquet": (b"text", "it does not end like one"),
    "claims.parquet": (b"PAR1" + b"\xff\xff\xff\x7f" + b"PAR1", "its description takes 2147483647 bytes"),
    "odd.parquet": (b"PAR1" + b"x" * 20 + struct.pack("<I", 20) + b"PAR1", "no parquet file that can be read"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_made_to_harm_is_refused_before_it_is_read(name, tmp_path):
    content, message = TABLES[name]
    file = made(tmp_path, name, content)
    with pytest.raises(UsageError) as error:
        load_documents(TextOptions(str(file)))
    assert str(error.value).startswith(f"{file}: ") and message in str(error.value) and "\n" not in str(error.value)


def test_a_table_of_text_with_many_marks_is_read(tmp_path):
    marks = "[{," * 50_000 + '\\" : ' * 20_000
    for name, content in (
        ("a.jsonl", json.dumps({"text": marks}) + "\n" + json.dumps({"text": "a " * 9})),
        ("a.csv", 'text\n"' + marks.replace('"', "") + '"\nmore\n'),
    ):
        (tmp_path / name).write_text(content)
        assert check_table(tmp_path / name) is None
        assert len(load_documents(TextOptions(str(tmp_path / name))).train) == 2


def test_parquet_that_claims_more_than_it_holds_is_refused(tmp_path):
    zeros = pa.array(np.zeros(1_100_000, np.int8))
    pq.write_table(pa.table({"image": zeros, "label": zeros}), tmp_path / "train.parquet")
    assert (tmp_path / "train.parquet").stat().st_size < 100_000
    assert "train.parquet: claims 1100000 rows and" in said(tmp_path)
    pq.write_table(pa.table({f"c{i}": [0] for i in range(10_001)}), tmp_path / "train.parquet")
    assert "train.parquet: 10001 columns; it must have at most 10000" in said(tmp_path)


def test_a_column_of_text_holds_text(tmp_path):
    pq.write_table(pa.table({"text": list(range(1, 300))}), tmp_path / "train-0.parquet")
    with pytest.raises(UsageError, match="--text_column text: row 0 of train holds 1; it must be text"):
        load_documents(TextOptions(str(tmp_path)))
    with pytest.raises(UsageError, match="--text_column text: a row holds 1; it must be text"):
        load_text(TextOptions(str(tmp_path), streaming=True))


def test_an_archive_is_not_taken_for_streamed_text(tmp_path):
    file = made(tmp_path, "book.txt", gzip.compress(b"some text\n" * 100))
    with pytest.raises(UsageError, match=r"book\.txt: .*line 1"):
        load_text(TextOptions(str(file), streaming=True))


@pytest.mark.parametrize(
    ("reader", "options"), [(images, {"resolution": "8"}), (text, {"subset": 3, "text_column": []})]
)
def test_options_of_a_record_are_checked_before_data_are_read(reader, options):
    with pytest.raises(UsageError, match=r"^--(resolution|subset|text_column) is "):
        reader.held_out("digits" if reader is images else "python_docs", None, options, True)
