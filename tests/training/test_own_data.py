"""Data of one's own: pictures as they are, classes as they are called, and nothing left out without a word."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.conftest import run_here
from training.data.documents import TextOptions, load_documents
from training.data.images import DataOptions, held_out, load_data
from training.data.local import by_split
from training.data.text import load_text
from training.options import UsageError


def encoded(array: np.ndarray, kind: str = "png", **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind, **options)
    return out.getvalue()


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (8, 8), dtype=np.uint8)


def folder_of(place: Path, **classes: int) -> Path:
    """A folder of gray pictures, so many of each class."""
    for number, (name, count) in enumerate(classes.items()):
        (place / name).mkdir(parents=True)
        for i in range(count):
            (place / name / f"{i:03}.png").write_bytes(encoded(noise(1000 * number + i)))
    return place


def all_of(source) -> tuple[torch.Tensor, torch.Tensor | None]:
    parts = [split.columns for split in (source.train, source.validation, source.test)]
    labels = torch.cat([p["class_labels"] for p in parts]) if "class_labels" in parts[0] else None
    return torch.cat([p["x"] for p in parts]), labels


# Pictures


def test_sixteen_bits_keep_their_whole_range(tmp_path):
    for i in range(40):
        ramp = (np.add.outer(np.arange(16), np.arange(16)) * 2000 + i).astype(np.uint16)
        (tmp_path / f"{i}.png").write_bytes(encoded(ramp))
    x, _ = all_of(load_data(DataOptions(str(tmp_path))))
    expected = torch.from_numpy(np.add.outer(np.arange(16), np.arange(16)) * 2000 / 257)
    assert ((x[:, 0].double() - expected).abs() < 0.7).all() and x.max() == 234  # 60039 of 65535


def test_floating_point_from_0_to_1_becomes_levels_and_anything_else_is_named(tmp_path):
    for i in range(40):
        values = np.full((8, 8), i / 39, np.float32)
        values[0, 0] = 1
        (tmp_path / f"{i:02}.tif").write_bytes(encoded(values, "tiff"))
    x, _ = all_of(load_data(DataOptions(str(tmp_path))))
    assert sorted(x[:, 0, 4, 4].tolist()) == [round(255 * i / 39) for i in range(40)] and (x[:, 0, 0, 0] == 255).all()
    (tmp_path / "deep.tif").write_bytes(encoded(np.full((8, 8), 300, np.float32), "tiff"))
    (name,) = load_data(DataOptions(str(tmp_path))).report.left_out["images that cannot be read"]
    assert name == "deep.tif: ValueError: floating-point pixels from 300 to 300; they must lie in [0, 1]"


def test_what_is_transparent_is_laid_on_white_and_exif_turns(tmp_path):
    picture = np.zeros((6, 8, 4), np.uint8)
    picture[..., 0] = 255
    picture[0, :, 3] = 255  # an opaque red row; beneath it red that is not seen
    for i in range(40):
        picture[1, 0] = (i, 0, 0, 255)
        (tmp_path / f"{i}.png").write_bytes(encoded(picture))
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter to the right
    for i in range(3):
        (tmp_path / f"t{i}.png").write_bytes(encoded(noise(i, 8, 6, 3), exif=turned))
    source = load_data(DataOptions(str(tmp_path)))
    x, _ = all_of(source)
    assert source.shape == (3, 6, 8) and len(x) == 43
    red = x[(x[:, 0, 0] == 255).all(1) & (x[:, 1, 0] == 0).all(1)]
    assert len(red) == 40 and (red[:, :, 2:] == 255).all()
    assert any(
        torch.equal(row, torch.from_numpy(np.rot90(noise(0, 8, 6, 3), -1).transpose(2, 0, 1).copy())) for row in x
    )


def test_one_coloured_class_among_gray_ones_stays_coloured(tmp_path):
    folder_of(tmp_path, a_gray=110)
    (tmp_path / "b_colour").mkdir()
    for i in range(60):
        picture = np.repeat(noise(i)[..., None] // 3, 3, 2)
        picture[..., i % 3] = 255
        (tmp_path / "b_colour" / f"{i}.png").write_bytes(encoded(picture))
    for options in ({}, {"max_memory_gb": 0.0}):
        source = load_data(DataOptions(str(tmp_path), **options))
        assert source.shape == (3, 8, 8) and source.class_names == ["a_gray", "b_colour"]
        assert source.report.found == ["170 images, in colour, 110 of them gray", "2 classes: a_gray 110, b_colour 60"]
    stream = load_data(DataOptions(str(tmp_path), streaming=True))
    with pytest.raises(UsageError, match="a row of train is in colour, and the first rows are gray; without --stream"):
        list(stream.train)


def test_dark_pictures_are_said_to_be_dark(tmp_path):
    for i in range(40):
        (tmp_path / f"{i}.png").write_bytes(encoded(noise(i).astype(np.uint16) * 16))  # 12 bits in 16
    (warning,) = [w for w in load_data(DataOptions(str(tmp_path))).report.warnings if "brighter" in w]
    assert warning.startswith("no pixel of train is brighter than level 16 of 255: 16-bit images are scaled")


# Classes


@pytest.mark.parametrize("odd", ["train", "crash test", "test", "val-1"])
def test_a_class_may_be_called_like_a_split(odd, tmp_path):
    source = load_data(DataOptions(str(folder_of(tmp_path, **{"bus": 40, odd: 40, "tram": 40}))))
    assert source.class_names == sorted(["bus", odd, "tram"])
    assert all_of(source)[1].bincount().tolist() == [40, 40, 40]
    assert source.report.found[1] == "3 classes: " + ", ".join(f"{name} 40" for name in source.class_names)


def test_folders_that_are_all_splits_are_splits_and_hold_the_classes(tmp_path):
    for split, count in (("train", 40), ("Test", 7)):
        folder_of(tmp_path / split, bus=count, train=count)
    source = load_data(DataOptions(str(tmp_path)))
    assert source.class_names == ["bus", "train"] and len(source.test) == 14
    assert len(source.train) + len(source.validation) == 80
    folder_of(tmp_path, extra=2)
    with pytest.raises(UsageError, match="Test/ holds folders, like a split, and extra/ lies beside it"):
        load_data(DataOptions(str(tmp_path)))


def test_pictures_beside_class_folders_make_no_classes_and_say_so(tmp_path):
    folder_of(tmp_path, bus=40, tram=40)
    (tmp_path / "loose.png").write_bytes(encoded(noise(5)))
    source = load_data(DataOptions(str(tmp_path)))
    assert source.class_names == [] and sum(source.rows.values()) == 81
    assert source.report.warnings == ["1 images lie beside the folders bus, tram, like loose.png: no classes are made"]


def parquet_of(folder: Path, labels: pa.Array) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [{"bytes": encoded(noise(i)), "path": None} for i in range(len(labels))]
    images = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": images, "label": labels}), folder / "train.parquet")
    return folder


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (pa.array([1, 2, 3] * 20), ["1", "2", "3"]),
        (pa.array([10**9, 5, -1] * 20), ["-1", "5", "1000000000"]),
        (pa.array(["b", "a", "c d"] * 20), ["a", "b", "c d"]),
        (pa.array(["10", "9", "0"] * 20), ["0", "9", "10"]),
        (pa.array([True, False, True] * 20), ["false", "true"]),
        (pa.array([1.0, 2.0, 2.0] * 20), ["1", "2"]),
    ],
)
def test_labels_of_any_kind_become_numbers_from_0_and_keep_their_names(labels, names, tmp_path):
    folder = parquet_of(tmp_path / "set", labels)
    for options in ({}, {"max_memory_gb": 0.0}):
        source = load_data(DataOptions(str(folder), image_column="image", **options))
        assert source.class_names == names and source.spec("binary")["num_classes"] == len(names)
    _, found = all_of(load_data(DataOptions(str(folder), image_column="image")))
    stored = [str(value).lower().removesuffix(".0") for value in labels.to_pylist()]
    assert found.bincount().tolist() == [stored.count(name) for name in names]


def test_a_row_without_a_class_is_left_out_by_name(tmp_path):
    folder = parquet_of(tmp_path / "set", pa.array(["a", "b", None, "a"] * 20))
    for options in ({}, {"max_memory_gb": 0.0}):
        source = load_data(DataOptions(str(folder), image_column="image", **options))
        assert source.class_names == ["a", "b"] and sum(source.rows.values()) == 60
        left_out = source.report.left_out["rows whose label is empty"]
        assert left_out[:2] == ["train.parquet, row 2", "train.parquet, row 6"] and len(left_out) == 20


def test_labels_from_1_train_and_are_found_again(tmp_path):
    folder = parquet_of(tmp_path / "set", pa.array([i % 3 + 1 for i in range(90)]))
    done = run_here(
        "training.autoencoders.vae", "--dataset", folder, "--image_column", "image", "--conditional", "true",
        "--batch_size", "8", "--max_steps", "2", "--lr_warmup_steps", "0", "--output_dir", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["model"]["data_spec"]["num_classes"] == 3 and record["dataset"]["class_names"] == ["1", "2", "3"]
    assert "data: 3 classes: 1 30, 2 30, 3 30" in done.stderr
    source = held_out(str(folder), None, record["options"], True)  # by the same column
    assert source.fingerprint == record["dataset"]["fingerprint"]


# What is left out


def test_a_folder_of_pictures_says_what_it_leaves_out(tmp_path):
    folder_of(tmp_path, bus=40, tram=40)
    (tmp_path / "bus" / "CAPITAL.PNG").write_bytes(encoded(noise(77)))
    (tmp_path / "bus" / "._001.png").write_bytes(b"of a Mac")
    (tmp_path / "notes.rst").write_text("notes")
    (tmp_path / "tram" / "broken.png").write_bytes(encoded(noise(78))[:60])
    (tmp_path / "tram" / "a[1].png").write_bytes(encoded(noise(79)))
    source = load_data(DataOptions(str(tmp_path)))
    assert source.report.found == ["82 images, gray", "2 classes: bus 41, tram 41"]
    assert source.report.left_out == {
        "hidden files and folders": ["bus/._001.png"],
        "files that are no images": ["notes.rst"],
        "images that cannot be read": ["tram/broken.png: OSError: image file is truncated"],
    }
    assert source.describe()["left_out"][1] == {"why": "files that are no images", "count": 1, "names": ["notes.rst"]}
    assert "data: left out, files that are no images: 1 (notes.rst)" in source.report.lines()


def test_splits_are_told_by_whole_words(tmp_path):
    def split(*names: str) -> dict:
        found = by_split([tmp_path / name for name in names], tmp_path)
        return {key: [path.name for path in paths] for key, paths in found.items()}

    assert split("Test Pilot.txt", "test-drive.txt", "training day.txt") == {
        "train": ["Test Pilot.txt", "test-drive.txt", "training day.txt"]
    }
    assert split("test-data.txt", "train-data.txt", "val_x.txt") == {
        "test": ["test-data.txt"], "train": ["train-data.txt"], "validation": ["val_x.txt"],
    }  # fmt: skip
    assert split("a.txt", "test.txt", "TEST-00001-of-2.txt", "valid2.txt") == {
        "train": ["a.txt"], "test": ["test.txt", "TEST-00001-of-2.txt"], "validation": ["valid2.txt"],
    }  # fmt: skip
    assert split("plain/train/0.txt", "plain/test/0.txt") == {"train": ["0.txt"], "test": ["0.txt"]}
    assert split("docs/guide/a.txt", "docs/test/b.txt") == {"train": ["a.txt", "b.txt"]}


def test_a_folder_of_text_says_what_it_leaves_out(tmp_path):
    for name in ("A.TXT", "Test Pilot.txt", "test.md", "._A.TXT", "b.rst", "README.md", "License-plates of Ohio.txt"):
        (tmp_path / name).write_text(f"{name} holds words.\n" * 40)
    documents = load_documents(TextOptions(str(tmp_path)))
    assert sorted(text.partition(" holds")[0] for text in documents.train) == ["A.TXT", "Test Pilot.txt"]
    assert [text.partition(" holds")[0] for text in documents.test] == ["test.md"]
    assert documents.report.left_out == {
        "hidden files and folders": ["._A.TXT"],
        "files that are not .parquet or .json or .jsonl or .csv or .txt or .md": ["b.rst"],
        "files about the corpus": ["License-plates of Ohio.txt", "README.md"],
    }


def test_tables_of_text_are_read_as_spreadsheets_write_them(tmp_path):
    lines = ["\ufefftext;label", *(f"the words of {i};{i}" for i in range(5)), ";5", "", "more; words;6"]
    (tmp_path / "a.csv").write_text("\r\n".join(lines[:-1]), encoding="utf-8")
    documents = load_documents(TextOptions(str(tmp_path / "a.csv")))
    assert len(documents.train) == 5
    assert documents.report.left_out == {"rows whose text is empty": ["row 5 of train"]}
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "b.jsonl").write_text('{"text": "not read"}\n')
    (tmp_path / "c.CSV").write_text("text;label\nthe words of 9;9\n")
    report = load_documents(TextOptions(str(tmp_path))).report
    assert report.left_out["files beside the tables"] == ["notes.txt"]
    assert report.left_out["tables beside those of csv"] == ["b.jsonl"]


@pytest.mark.parametrize("value", [["some words"], 5, 0, False, {"a": 1}, []])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_text_that_is_none_is_named(value, streaming, tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": value}) + "\n" for _ in range(150)))
    with pytest.raises(UsageError, match=r"--text_column text: (row 0 of train|a row) holds .*; it must be text"):
        load_text(TextOptions(str(tmp_path / "a.jsonl"), streaming=streaming))


def test_characters_of_held_out_text_are_in_the_vocabulary_and_a_stream_has_a_letter_for_the_others(tmp_path):
    (tmp_path / "book.txt").write_text("abab " * 500 + "xyz")
    options = {"dataset": str(tmp_path / "book.txt"), "tokenizer": "characters", "context_length": 8}
    source = load_text(TextOptions(**options))
    assert set(source.tokenizer.get_vocab()) == {*"ab xyz", "<|endoftext|>"}
    assert source.tokenizer.decode(source.test.tokens[-3:]) == "xyz"
    with pytest.raises(Exception, match="UNK"):  # what no text of the corpus holds is an error
        source.tokenizer("q")
    streamed = load_text(TextOptions(**options, streaming=True))
    assert streamed.tokenizer.decode(streamed.tokenizer("abq")["input_ids"]) == "ab\ufffd"
    assert "any other is read as \ufffd" in streamed.report.found[-1]


# Small and odd sets


def test_splits_that_are_empty_are_warned_of_before_the_work(tmp_path):
    for i in range(60):  # three different pictures, none of them held out
        (tmp_path / "set" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        picture = np.zeros((8, 8), np.uint8)
        picture[i % 3] = 255
        (tmp_path / "set" / "ab"[i % 2] / f"{i}.png").write_bytes(encoded(picture))
    for recipe in ("training.autoencoders.vae", "training.classical.classifier"):
        run = tmp_path / recipe
        done = run_here(
            recipe, "--dataset", tmp_path / "set", "--batch_size", "8", "--max_steps", "2", "--lr_warmup_steps", "0",
            "--output_dir", run,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stderr.index("warning: the test split is empty") < done.stderr.index("finished 2 steps")
        record = json.loads((run / "run.json").read_text())
        said = [warning["message"].partition(":")[0] for warning in record["warnings"]]
        assert said == ["the validation split is empty", "the test split is empty"]
        assert record["dataset"]["rows"] == {"train": 60, "validation": 0, "test": 0}
        assert record["dataset"]["found"][0] == "60 images, gray; 57 are copies of others"
    done = run_here("training.evaluate", run)
    assert done.returncode == 2 and "its test split is empty, so there is nothing to measure on" in done.stderr


def test_a_class_that_is_wholly_held_out_is_named(tmp_path):
    folder_of(tmp_path, common=60)
    (tmp_path / "rare").mkdir()
    held = load_data(DataOptions(str(tmp_path))).test.columns["x"][0, 0].numpy()
    for file in list((tmp_path / "common").iterdir()):
        if np.array_equal(np.asarray(Image.open(file)), held):
            file.rename(tmp_path / "rare" / file.name)
    assert "no row of the class rare is in the training split" in load_data(DataOptions(str(tmp_path))).report.warnings


@pytest.mark.parametrize(
    ("recipe", "words", "message"),
    [
        ("density", ("--pca_dim", "20"), r"--pca_dim is 20; with \d training rows it must be at most \d, and 0 takes"),
        ("density", ("--pca_dim", "0", "--num_components", "10"), "num_components is 10, but x holds . points"),
        ("clustering", ("--pca_dim", "8"), "--pca_dim is 8; with . training rows it must be at most ., and 0"),
        ("clustering", ("--num_clusters", "10"), "--num_clusters is 10, but there are only . different points"),
        ("clustering", ("--num_clusters", "10", "--method", "agglomerative"), "there are only . different points"),
        ("nmf", ("--num_components", "10"), "--num_components is 10; it must be at most . for these data"),
    ],
)
def test_a_handful_of_rows_is_refused_before_the_fit(recipe, words, message, tmp_path):
    for i in range(9):
        (tmp_path / f"{i}.png").write_bytes(encoded(noise(i)))
        (tmp_path / f"again{i}.png").write_bytes(encoded(noise(0)))
    done = run_here(f"training.classical.{recipe}", "--dataset", tmp_path, "--max_samples", "9", *words, "--output_dir", tmp_path / "run")  # fmt: skip
    assert done.returncode == 2 and re.search(message, done.stderr), done.stderr
    assert not (tmp_path / "run").exists()


def test_an_exact_density_of_few_rows_is_one(tmp_path):
    """One direction fewer than the rows span: what the components leave out has some variance, seen in the rows."""
    from pipelines.classical.pipeline_density import DensityPipeline

    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes(encoded(noise(i)))
    rows = load_data(DataOptions(str(tmp_path))).rows["train"]
    words = [
        "--dataset",
        tmp_path,
        "--num_components",
        "1",
        "--output_dir",
        tmp_path / "run",
        "--covariance_type",
        "diag",
    ]
    assert run_here("training.classical.density", *words, "--pca_dim", rows - 1).returncode == 2
    assert run_here("training.classical.density", *words, "--pca_dim", rows - 2).returncode == 0
    pipe = DensityPipeline.from_pretrained(tmp_path / "run")
    assert (pipe.log_prob((torch.rand(4, 1, 8, 8) * 255).round() / 255) > -10_000).all()


# Going on


@pytest.mark.parametrize("recipe", ["autoencoders.vae", "classical.density"])
def test_a_run_goes_on_with_its_own_data_alone(recipe, tmp_path):
    folder = folder_of(tmp_path / "set", a=40, b=40)
    steps = ("--batch_size", "8", "--max_steps", "2", "--lr_warmup_steps", "0") if "vae" in recipe else ("--pca_dim", "2", "--num_components", "2")  # fmt: skip

    def run(*more):
        return run_here(f"training.{recipe}", "--dataset", folder, *steps, "--output_dir", tmp_path / "run", *more)

    assert run().returncode == 0
    folder.rename(tmp_path / "moved")  # the same data at another place are the same
    (tmp_path / "moved").rename(folder)
    assert run("--resume", "true").returncode == 0
    (folder / "a" / "new.png").write_bytes(encoded(noise(99_999)))
    done = run("--resume", "true")
    assert done.returncode == 2
    assert "--resume: " in done.stderr and "is not as it was" in done.stderr and "put the data back" in done.stderr
    (folder / "a" / "new.png").unlink()
    (folder / "a" / "000.png").rename(folder / "b" / "other.png")  # of another class
    assert run("--resume", "true").returncode == 2


def test_text_and_ratings_have_a_fingerprint_too(tmp_path):
    (tmp_path / "book.txt").write_text("some words to read\n\n" * 99)
    one = load_text(TextOptions(str(tmp_path / "book.txt"), context_length=8)).fingerprint
    (tmp_path / "other.txt").write_text("some words to read\n\n" * 99)
    assert load_text(TextOptions(str(tmp_path / "other.txt"), context_length=8)).fingerprint == one
    (tmp_path / "book.txt").write_text("some words to read\n\n" * 100)
    assert load_text(TextOptions(str(tmp_path / "book.txt"), context_length=8)).fingerprint != one


def test_figures_of_few_rows_and_of_other_classes_are_warned_of(tmp_path, capsys):
    from training.evaluate import warnings

    source = load_data(DataOptions(str(folder_of(tmp_path, cat=40, dog=40))))
    few, classes = warnings(source, ["bus", "tram"])
    assert few.startswith(f"{tmp_path} holds {source.rows['test']} rows to measure on")
    assert "are cat, dog, the model's bus, tram" in classes
    assert len(list(warnings(source, ["cat", "dog"]))) == 1
