"""Data of one's own: pictures as they are, classes as they are called, and nothing left out without a word."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.conftest import run_here
from training.data.images import DataOptions, held_out, load_data
from training.data.local import by_split
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
