"""Data: splits that never leak, the same batches for the same seed, one place that prepares."""

import functools
import operator

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Picture

from training.data import pixels
from training.data.batches import batches_in_order, check_batch_size, training_batches
from training.data.images import DataOptions, held_out, load_data
from training.data.known import KNOWN, extractors_of
from training.data.source import DataSource, rows_to_show, to_network
from training.data.splits import ArraySplit, LazySplit, StreamSplit, content_fraction
from training.data.toys import TOYS
from training.options import UsageError

BINARY = {"support": "binary", "shape": [1, 8, 8], "range": [0, 1], "dequantization": "none"}


def pictures(count: int, size=(8, 8), mode: str = "L", seed: int = 0) -> list[Picture.Image]:
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    return [Picture.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


@pytest.fixture
def parquet(tmp_path):
    """A folder like a Hub set's: train and test parquet with the columns of CIFAR-10."""
    features = Features({"img": Image(), "label": ClassLabel(names=["cat", "dog", "owl"])})
    folder = tmp_path / "set"
    folder.mkdir()
    for name, count, seed in (("train", 300, 1), ("test", 40, 2)):
        rows = {"img": pictures(count, mode="RGB", seed=seed), "label": [i % 3 for i in range(count)]}
        Dataset.from_dict(rows, features=features).to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def image_folder(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / "animals" / label).mkdir(parents=True)
        for i, picture in enumerate(pictures(60, seed=len(label) + ord(label[0]))):
            picture.save(tmp_path / "animals" / label / f"{i:03}.png")
    return tmp_path / "animals"


def rows_of(split) -> set[bytes]:
    return {row.numpy().tobytes() for batch in batches_in_order(split, 64) for row in batch["x"]}


def assert_disjoint(source):
    parts = [rows_of(s) for s in (source.train, source.validation, source.test)]
    assert all(parts)
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]


def test_digits_are_embedded_and_their_splits_share_no_image():
    source = load_data(DataOptions())
    assert source.shape == (1, 8, 8) and len(source.class_names) == 10
    assert sum(len(s) for s in (source.train, source.validation, source.test)) == 1797
    assert_disjoint(source)
    batch = source.train.__getitems__([3, 1])
    assert batch["x"].dtype == torch.uint8 and batch["x"].max() > 200 and batch["class_labels"].dtype == torch.int64


def test_parquet_keeps_its_test_split_and_gives_validation_from_training(parquet):
    source = load_data(DataOptions(dataset="cifar10", data_dir=str(parquet)))
    assert source.dataset_id == KNOWN["cifar10"].hub_id and source.shape == (3, 8, 8)
    assert source.class_names == ["cat", "dog", "owl"]
    assert len(source.test) == 40 and len(source.train) + len(source.validation) == 300
    assert_disjoint(source)


def test_memory_mapped_streamed_and_in_memory_rows_are_the_same_split_alike(parquet):
    memory = load_data(DataOptions(dataset="cifar10", data_dir=str(parquet)))
    lazy = load_data(DataOptions(dataset="cifar10", data_dir=str(parquet), max_memory_gb=0))
    stream = load_data(DataOptions(dataset="cifar10", data_dir=str(parquet), streaming=True))
    assert isinstance(memory.train, ArraySplit) and isinstance(lazy.train, LazySplit)
    assert isinstance(stream.train, StreamSplit)
    assert rows_of(lazy.train) == rows_of(memory.train) and rows_of(lazy.test) == rows_of(memory.test)
    for source in (lazy, stream):
        batch, expected = next(batches_in_order(source.test, 16)), next(batches_in_order(memory.test, 16))
        assert batch.keys() == expected.keys() == {"x", "class_labels"}
        assert all(torch.equal(batch[name], expected[name]) for name in batch)
    streamed = rows_of(stream.train), rows_of(stream.validation)
    assert streamed == (rows_of(memory.train), rows_of(memory.validation))


def test_a_set_with_only_a_test_split_trains_on_none_of_its_test_rows(parquet):
    (parquet / "train-00000-of-00001.parquet").unlink()
    source = load_data(DataOptions(dataset="cifar10", data_dir=str(parquet)))
    assert rows_of(source.train) and rows_of(source.test) and not rows_of(source.train) & rows_of(source.test)


def test_splits_are_told_by_folders_too(parquet):
    for name in ("train", "test"):
        (parquet / name).mkdir()
        (parquet / f"{name}-00000-of-00001.parquet").rename(parquet / name / "0000.parquet")
    source = load_data(DataOptions(dataset="cifar10", data_dir=str(parquet)))
    assert len(source.test) == 40 and len(source.train) + len(source.validation) == 300


def test_damaged_files_are_one_line(parquet, image_folder):
    file = parquet / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UsageError, match=r"train-00000-of-00001\.parquet: no parquet file .*it may be cut short"):
        load_data(DataOptions(dataset="cifar10", data_dir=str(parquet)))
    for picture in image_folder.rglob("*.png"):
        picture.write_bytes(b"not a picture")
    with pytest.raises(UsageError, match=r"no row that can be used .*cannot be read: cat/000\.png: Unidentified"):
        load_data(DataOptions(dataset=str(image_folder)))


def test_decoded_once(parquet, monkeypatch):
    options = DataOptions(dataset="cifar10", data_dir=str(parquet))
    first = load_data(options)
    calls = []
    decode = pixels.Stored._decoded
    monkeypatch.setattr(pixels.Stored, "_decoded", lambda *given: calls.append(1) or decode(*given))
    second = load_data(options)
    assert torch.equal(first.train.columns["x"], second.train.columns["x"]) and not calls


def test_streams_are_split_by_process(parquet):
    stream = load_data(DataOptions(dataset="cifar10", data_dir=str(parquet), streaming=True)).train
    shares = [rows_of(stream.share(rank, 2)) for rank in range(2)]
    assert not shares[0] & shares[1] and shares[0] | shares[1] == rows_of(stream)


def test_a_folder_of_images_by_class(image_folder):
    source = load_data(DataOptions(dataset=str(image_folder)))
    assert source.class_names == ["cat", "dog"] and source.shape == (1, 8, 8)
    assert_disjoint(source)
    smaller = load_data(DataOptions(dataset=str(image_folder), resolution=4))
    assert smaller.shape == (1, 4, 4)
    assert [len(s) for s in (smaller.train, smaller.test)] == [len(s) for s in (source.train, source.test)]


def test_equal_images_never_lie_on_both_sides(image_folder):
    for i in range(60):  # every cat once more among the dogs, under another name
        (image_folder / "dog" / f"copy{i:03}.png").write_bytes((image_folder / "cat" / f"{i:03}.png").read_bytes())
    assert_disjoint(load_data(DataOptions(dataset=str(image_folder))))


def test_images_of_mixed_sizes_need_a_resolution(image_folder):
    pictures(1, size=(10, 7))[0].save(image_folder / "cat" / "odd.png")
    with pytest.raises(UsageError, match=r"images of mixed sizes, .* give --resolution"):
        load_data(DataOptions(dataset=str(image_folder)))
    assert load_data(DataOptions(dataset=str(image_folder), resolution=6)).shape == (1, 6, 6)


@pytest.mark.parametrize("dataset", ["mnits", "no/such/place/at all"])
def test_an_unknown_name_is_refused(dataset):
    with pytest.raises(UsageError, match=f"--dataset {dataset}: not known; it must be one of digits, mnist"):
        load_data(DataOptions(dataset=dataset))


def test_a_hub_set_that_cannot_be_reached_is_one_line():
    with pytest.raises(UsageError, match="--dataset nobody/nothing: cannot be read from the Hub") as error:
        load_data(DataOptions(dataset="nobody/nothing"))
    assert "\n" not in str(error.value)


def test_folders_without_images_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no pictures here")
    with pytest.raises(UsageError, match="holds no images and no parquet files"):
        load_data(DataOptions(dataset=str(tmp_path)))
    with pytest.raises(UsageError, match="there is no such folder"):
        load_data(DataOptions(dataset="mnist", data_dir=str(tmp_path / "missing")))


def test_a_column_that_is_not_there_is_named(parquet):
    with pytest.raises(UsageError, match="--label_column colour: the set has the columns img, label"):
        load_data(DataOptions(dataset="cifar10", data_dir=str(parquet), label_column="colour"))


# Batches


def numbered(count: int) -> ArraySplit:
    return ArraySplit({"x": torch.arange(count).view(count, 1).float(), "class_labels": torch.arange(count)})


def take(iterator, count: int) -> list[list[int]]:
    return [next(iterator)["class_labels"].tolist() for _ in range(count)]


def test_batches_go_on_where_they_were():
    whole = take(training_batches(numbered(50), 8, seed=3, first=0, rank=0, world=1), 20)
    assert take(training_batches(numbered(50), 8, seed=3, first=13, rank=0, world=1), 7) == whole[13:]
    assert take(training_batches(numbered(50), 8, seed=4, first=0, rank=0, world=1), 20) != whole


def test_an_epoch_shows_each_row_at_most_once_and_epochs_differ():
    order = take(training_batches(numbered(48), 8, seed=0, first=0, rank=0, world=1), 12)
    first, second = functools.reduce(operator.iadd, order[:6], []), functools.reduce(operator.iadd, order[6:], [])
    assert sorted(first) == sorted(second) == list(range(48)) and first != second


def test_processes_share_each_batch():
    alone = take(training_batches(numbered(50), 8, seed=1, first=0, rank=0, world=1), 9)
    halves = [take(training_batches(numbered(50), 4, seed=1, first=0, rank=rank, world=2), 9) for rank in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == alone


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(UsageError, match="--batch_size is 1000000000; it must be at most 50"):
        check_batch_size(numbered(50), 10**9, world=1)


# Preparing


def test_dynamic_binarisation_has_the_gray_level_as_its_mean():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(4_000, 1, 1, 1)
    x = to_network(levels, {**BINARY, "shape": [1, 16, 16]}, torch.Generator().manual_seed(0))
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert x[:, 0, 0, 0].sum() == 0 and x[:, 0, -1, -1].sum() == 4_000  # 0 and 255 are certain
    torch.testing.assert_close(x.mean(0).flatten(), torch.arange(256) / 255, atol=0.04, rtol=0)


def test_levels_scale_to_the_range_exactly():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    spec = {"support": "8-bit", "shape": [1, 16, 16], "range": [-1, 1], "dequantization": "none"}
    x = to_network(levels, spec)
    assert x.min() == -1 and x.max() == 1
    assert torch.equal(((x + 1) / 2 * 255).round().to(torch.uint8), levels)


def test_uniform_dequantisation_stays_within_its_bin():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(500, 1, 1, 1)
    spec = {"support": "8-bit", "shape": [1, 16, 16], "range": [-1, 1], "dequantization": "uniform"}
    x = to_network(levels, spec, torch.Generator().manual_seed(0))
    pixels = (x + 1) / 2 * 256
    assert torch.equal(pixels.floor().clamp(0, 255).to(torch.uint8), levels)
    torch.testing.assert_close((pixels - levels).mean(), torch.tensor(0.5), atol=0.01, rtol=0)


def test_padding_puts_the_image_in_the_middle():
    x = to_network(torch.full((1, 1, 4, 4), 255, dtype=torch.uint8), {**BINARY, "shape": [1, 8, 8]})
    assert x.sum() == 16 and x[0, 0, 2:6, 2:6].sum() == 16
    with pytest.raises(ValueError, match="do not fit"):
        to_network(torch.zeros(1, 1, 9, 9, dtype=torch.uint8), BINARY)


def image_source(**changes) -> DataSource:
    levels = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    rows = ArraySplit({"x": levels, "class_labels": torch.arange(4), "caption_ids": torch.arange(8).view(4, 2)})
    given = {"kind": "image", "shape": (1, 8, 8), "class_names": ["a", "b", "c", "d"], **changes}
    return DataSource("mine", "my set", rows, rows, rows, **given)


def test_a_prepared_batch_keeps_what_is_not_x():
    """Classes and captions go to the loss as they are stored; x goes to the range of the data spec."""
    source = image_source()
    spec = source.spec("8-bit", (-1, 1))
    batch = source.test.__getitems__([0, 3])
    prepared = source.prepare(batch, spec)
    assert prepared.keys() == {"x", "class_labels", "caption_ids"} and batch["x"].dtype == torch.uint8
    assert all(torch.equal(prepared[name], batch[name]) for name in ("class_labels", "caption_ids"))
    torch.testing.assert_close(prepared["x"], batch["x"].float() / 127.5 - 1)
    assert source.describe() == {
        "name": "mine", "id": "my set", "licence": None, "reader": "images", "held_out": "test images",
        "rows": {"train": 4, "validation": 4, "test": 4}, "class_names": ["a", "b", "c", "d"], "fingerprint": None,
        "found": [], "left_out": [], "language": None, "url": None,
    }  # fmt: skip


def test_images_go_to_a_pipeline_as_levels_in_0_to_1_and_binary_ones_as_draws():
    source = image_source()
    batch = source.test.__getitems__(range(4))
    x = source.as_input(batch)
    assert x.dtype == torch.float32 and x.shape == (4, 1, 8, 8) and (x.min(), x.max()) == (0, 1)
    assert torch.equal((x * 255).round().to(torch.uint8), batch["x"])
    assert torch.equal(source.as_input(batch, source.spec("8-bit", (-1, 1), "uniform")), x)  # whatever a network sees
    binary = source.spec("binary", (0, 1))
    ones = [source.as_input(batch, binary, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert set(ones[0].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(ones[0], ones[1]) and not torch.equal(ones[0], ones[2])
    assert torch.equal(ones[0], source.prepare(batch, binary, torch.Generator().manual_seed(0))["x"])


def test_vectors_go_to_networks_and_pipelines_as_they_are():
    points = torch.tensor([[-3.5, 2.0], [0.25, 7.0]], dtype=torch.float64)
    rows = ArraySplit({"x": points, "class_labels": None})
    source = DataSource("p", "p", rows, rows, rows, kind="vector", shape=(2,))
    batch, spec = source.test.__getitems__([0, 1]), source.spec("8-bit", (-1, 1), "uniform")
    assert spec["support"] == "real" and spec["range"] is None and source.held_out == "test points"
    assert batch.keys() == {"x"}  # no classes, no column of them
    for x in (source.as_input(batch, spec), source.prepare(batch, spec)["x"]):
        assert x.dtype == torch.float32 and torch.equal(x, points.float())


def test_rows_to_show_come_from_the_first_split_that_has_any():
    source, empty = image_source(), ArraySplit({"x": torch.empty(0, 1, 8, 8, dtype=torch.uint8)})
    assert len(rows_to_show(source, 3)["x"]) == 3
    source.test = source.validation = empty
    assert torch.equal(rows_to_show(source, 10)["class_labels"], torch.arange(4))
    source.train = empty
    with pytest.raises(UsageError, match="--dataset mine: holds no row"):
        rows_to_show(source, 3)


def test_an_empty_test_split_is_nothing_to_measure_on(tmp_path):
    (tmp_path / "few").mkdir()
    file = tmp_path / "few" / "0.png"
    for picture in pictures(50):
        picture.save(file)
        if content_fraction(file.read_bytes()) > 0.5:  # it is for training
            break
    (tmp_path / "few" / "1.png").write_bytes(file.read_bytes())  # equal images are in one split
    source = load_data(DataOptions(dataset=str(tmp_path / "few")))
    assert [len(split) for split in (source.train, source.validation, source.test)] == [2, 0, 0]
    with pytest.raises(UsageError, match="its test split is empty, so there is nothing to measure on"):
        held_out(str(tmp_path / "few"), None, {}, True)


def test_images_of_the_shape_of_a_known_set_have_its_extractor(image_folder):
    assert KNOWN["mnist"].extractors == KNOWN["fashion_mnist"].extractors != ()
    assert load_data(DataOptions(dataset=str(image_folder), resolution=28)).extractors == KNOWN["mnist"].extractors
    assert load_data(DataOptions(dataset=str(image_folder))).extractors == extractors_of((3, 28, 28)) == ()


# Two-dimensional sets


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_points_in_the_plane(name):
    source = load_data(DataOptions(dataset=name))
    batch = next(batches_in_order(source.train, 20_000))
    x, labels = batch["x"], batch.get("class_labels")
    assert x.shape == (20_000, 2) and x.abs().max() < 3 and x.isfinite().all()
    assert source.kind == "vector" and source.spec("binary")["support"] == "real"
    if labels is not None:
        assert set(labels.tolist()) == set(range(len(source.class_names)))
    assert x.std(0).min() > 0.4  # none is thin in either direction


def test_the_modes_of_ring_and_grid_are_where_they_belong():
    for name, radius in (("ring", 2.0), ("grid", None)):
        batch = next(batches_in_order(load_data(DataOptions(dataset=name)).train, 20_000))
        x, labels = batch["x"], batch["class_labels"]
        centres = torch.stack([x[labels == c].mean(0) for c in labels.unique()])
        if radius:
            torch.testing.assert_close(centres.norm(dim=1), torch.full((8,), radius), atol=0.02, rtol=0)
        else:
            torch.testing.assert_close(centres, centres.round(), atol=0.02, rtol=0)


def test_the_checkerboard_fills_black_squares_only():
    x = next(batches_in_order(load_data(DataOptions(dataset="checkerboard")).train, 20_000))["x"]
    square = x.floor().long()
    assert ((square.sum(1) % 2) == 0).all()
