"""Metrics against closed forms and known answers; the whole of an evaluation on a tiny run."""

import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import ROOT, run_here, run_module
from training import evaluate
from training.autoencoders import vae
from training.averages import mean_and_error
from training.classical import classifier
from training.data.images import DataOptions, load_data
from training.data.source import DataSource
from training.data.splits import ArraySplit
from training.measures import samples
from training.measures.classification import calibration
from training.measures.kept_rows import figures_on_kept_rows
from training.measures.likelihood import bits_per_dim
from training.measures.samples import in_dispute, parse_sweep
from training.options import UsageError


def test_a_uniform_model_of_bytes_has_eight_bits_per_dim():
    shape = (3, 4, 4)
    assert bits_per_dim(math.prod(shape) * math.log(256), shape) == pytest.approx(8)
    # twice as fine a unit doubles the density's volume: log 2 a dimension, one bit
    assert bits_per_dim(math.prod(shape) * math.log(512), shape) == pytest.approx(9)


def test_the_calibration_error_of_known_answers():
    labels = torch.zeros(100, dtype=torch.long)
    labels[80:] = 1
    sure = torch.tensor([[0.8, 0.2]]).repeat(100, 1)  # right 80 times in 100
    assert calibration(sure, labels)[0] == pytest.approx(0, abs=1e-6)
    boasting = torch.tensor([[1.0, 0.0]]).repeat(100, 1)
    error, rows = calibration(boasting, labels)
    assert error == pytest.approx(0.2) and rows == [(1.0, pytest.approx(0.8), 100)]


def test_a_mean_hides_no_nan():
    assert mean_and_error(torch.tensor([1.0, 2.0, 3.0]), "x") == (2.0, pytest.approx(1 / math.sqrt(3)))
    with pytest.raises(UsageError, match="x of test sample 1 is nan; 1 of 3 so"):
        mean_and_error(torch.tensor([1.0, float("nan"), 3.0]), "x")


def test_a_tiny_run_is_evaluated_and_the_same_again(tiny_run, portable):
    figures = []
    for run, source in ((run_module, tiny_run), (run_here, portable)):
        done = run("training.evaluate", source, "--importance_samples", "20")
        assert done.returncode == 0, done.stderr
        figures.append(json.loads(done.stdout.splitlines()[-1]))
        assert json.loads((source / "results.json").read_text()) == figures[-1]
        (source / "results.json").unlink()  # the runs are shared by other tests
    kept = ("nats", "nats_standard_error", "importance_weighted_nats", "test_images", "parameters", "convention")
    assert all(figures[0][key] == figures[1][key] for key in kept)
    assert figures[0]["nats"] > figures[0]["importance_weighted_nats"]  # a bound, and a tighter one
    assert figures[0]["nats"] < 64 * math.log(2)  # better than a coin for each pixel
    assert figures[0]["convention"].startswith("bound; dynamic binarisation, 3 draws")
    assert set(figures[0]["seconds_per_image"]) == {"1", "64"} and figures[0]["peak_memory_mb"] > 100


def test_a_classifier_is_evaluated_and_judges_samples(tiny_run, tmp_path):
    words = ("--output_dir", tmp_path / "judge", "--max_steps", "60", "--width", "8", "--feature_dim", "16",
             "--learning_rate", "0.01", "--lr_warmup_steps", "2")  # fmt: skip
    done = run_module("training.classical.classifier", *words)
    assert done.returncode == 0, done.stderr
    done = run_here("training.evaluate", tmp_path / "judge")
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0.5 < found["accuracy"] <= 1 and 0 <= found["calibration_error"] < 0.5
    assert sum(count for *_, count in found["calibration"]) == found["test_images"]
    done = run_here(
        "training.evaluate", tiny_run, "--extractor", tmp_path / "judge", "--importance_samples", "0", "--to", tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["frechet_distance"] > found["floor"]["frechet_distance"] > 0  # twelve steps teach little
    assert found["extractor"]["id"] == "judge" and len(found["extractor"]["sha256"]) == 64
    assert "importance_weighted_nats" not in found and not (tiny_run / "results.json").exists()


def test_bad_input_gets_one_line(tiny_run, tmp_path):
    for run, words, message in (
        (run_module, (tmp_path,), "not a finished run or checkpoint"),
        (run_here, ("nobody/nothing",), "neither a folder nor a repository on the Hub"),
        (run_here, (tiny_run, "--num_samples", "1"), "--num_samples is 1; it must be at least 7"),
        (
            run_here,
            (tiny_run, "--only", "text_speed"),
            "--only text_speed: the model's family does not owe it; it owes likelihood,",
        ),
        (run_here, (tiny_run, "--dataset", "moons"), "takes data of shape [1, 8, 8], moons has [2]"),
        (run_here, (tiny_run, "--extractor", tiny_run, "--importance_samples", "0"), "is no classifier"),
    ):
        done = run("training.evaluate", *words)
        assert done.returncode == 2, (words, done.stderr)
        assert message in done.stderr and "Traceback" not in done.stderr
        assert done.stderr.strip().count("\n") == 0


def test_a_set_too_small_for_a_test_split_trains_and_is_nothing_to_measure_on(tmp_path):
    for i in range(60):  # three images, twenty times each: equal ones are in one split
        folder = tmp_path / "few" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((8, 8), np.uint8)
        pixels[i % 3] = 255
        Image.fromarray(pixels).save(folder / f"{i}.png")
    source = load_data(DataOptions(dataset=str(tmp_path / "few")))
    assert not len(source.test) and not len(source.validation)
    words = ("--dataset", tmp_path / "few", "--batch_size", 8, "--max_steps", 4, "--lr_warmup_steps", 0, "--width", 8)
    for recipe in (vae, classifier):
        folder = tmp_path / recipe.__name__
        recipe.main([str(word) for word in (*words, "--output_dir", folder)])
        assert json.loads((folder / "run.json").read_text())["status"] == "finished"
        assert (folder / "samples.png").is_file()
        with pytest.raises(UsageError, match="its test split is empty, so there is nothing to measure on"):
            evaluate.main([str(folder)])
        assert not (folder / "results.json").exists()
    done = run_module("training.evaluate", folder)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr


class Drawing:
    """A pipeline of two classes of images, and a classifier of them; the class is the brightness."""

    calls, num_classes, device = {"sample", "features", "classify"}, 2, "cpu"
    data_spec, components = {"shape": [1, 4, 4]}, {}

    def __call__(self, batch_size, class_labels, generator, output_type):
        noise = torch.rand(batch_size, 1, 4, 4, generator=generator)
        return SimpleNamespace(images=noise * (torch.tensor(class_labels).view(-1, 1, 1, 1) + 1) / 2)

    def features(self, x):
        return x.flatten(1)[:, :5]

    def classify(self, x):
        bright = x.flatten(1).mean(1, keepdim=True) > 0.375
        return torch.cat([~bright, bright], 1).float()


def test_a_classifier_of_other_data_says_nothing_of_classes(monkeypatch):
    """Its features compare images all the same."""
    monkeypatch.setattr(samples, "load", lambda source, device, trust: Drawing())
    monkeypatch.setattr(samples, "record_of", lambda source: {"dataset": {"id": "their set"}})
    levels = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = ArraySplit({"x": levels})
    options = SimpleNamespace(num_samples=30, sweep_samples=20, sweep=[], extractor=["theirs"], trust=False)
    for dataset_id in ("their set", "my set"):
        source = DataSource("mine", dataset_id, rows, rows, rows, kind="image", shape=(1, 4, 4))
        found, pictures = samples.measure(Drawing(), source, options)
        assert {"frechet_distance", "coverage", "floor"} <= found.keys() and "nearest.png" in pictures
        assert ("class_accuracy" in found) == (dataset_id == "their set")


def test_two_judges_measure_the_same_samples_each_in_its_own_features(monkeypatch):
    class Blind(Drawing):
        def features(self, x):
            return x.flatten(1)[:, 5:8]

    class Warm(Drawing):
        def __call__(self, temperature=1, **arguments):
            return super().__call__(**arguments)

    monkeypatch.setattr(samples, "load", lambda source, device, trust: Blind() if source == "second" else Drawing())
    monkeypatch.setattr(
        samples, "record_of", lambda source: {"dataset": {"id": "my set" if source == "second" else "x"}}
    )
    levels = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = ArraySplit({"x": levels})
    source = DataSource(
        "mine", "my set", rows, rows, rows, kind="image", shape=(1, 4, 4), extractors=("first", "second")
    )
    options = SimpleNamespace(num_samples=30, sweep_samples=20, sweep=["temperature=1"], extractor=None, trust=False)
    found, _ = samples.measure(Warm(), source, options)
    for extractors, prefix in ((["first"], ""), (["second"], "second_")):
        options.extractor = extractors
        alone, _ = samples.measure(Warm(), source, options)
        for name in ("frechet_distance", "frechet_distance_interval", "precision", "coverage", "floor"):
            assert found[prefix + name] == alone[name], name
        low, high = alone["frechet_distance_interval"]
        assert 0 <= low < alone["frechet_distance"] < high
        assert found["sweeps"]["temperature"]["rows"][0][prefix + "coverage"] >= 0
    assert found["frechet_distance"] != found["second_frechet_distance"]
    assert "class_accuracy" not in found and found["second_class_accuracy"] >= 0  # the second knows this set's classes
    assert found["extractor"]["id"] == "first" and found["second_extractor"]["id"] == "second"
    for wrong in (["a", "b", "c"], ["a", "a"]):
        options.extractor = wrong
        with pytest.raises(UsageError, match=f"--extractor is {' '.join(wrong)}; it must be one classifier, or two"):
            samples.measure(Drawing(), source, options)


def test_an_order_is_in_dispute_where_both_judges_are_sure_of_the_opposite():
    def model(first, second, dataset="a set"):
        return {
            "dataset": dataset,
            "frechet_distance_interval": [first - 1, first + 1],
            "second_frechet_distance": second,
            "second_frechet_distance_interval": [second - 5, second + 5],
        }

    a = model(10, 100)
    assert in_dispute(a, model(20, 50)) and in_dispute(model(20, 50), a)
    assert not in_dispute(a, model(20, 120))  # one order
    assert not in_dispute(a, model(11.5, 50)) and not in_dispute(
        a, model(20, 92)
    )  # within the intervals of one of them
    assert not in_dispute(a, model(20, 50, "another set"))
    alone = model(20, 50)
    del alone["second_frechet_distance_interval"]
    assert not in_dispute(a, alone)


def test_a_model_that_cannot_read_the_kept_passage_has_no_figures_on_it():
    class Pipe:
        calls = frozenset({"score", "sample"})

        def score(self, text):
            if "," in text:
                raise ValueError("text holds ',', which is not in this model's vocabulary of 27 tokens")

    assert figures_on_kept_rows(Pipe(), {"name": "my book", "reader": "text"}) is None


def test_few_test_images_have_no_distances(monkeypatch):
    monkeypatch.setattr(samples, "load", lambda source, device, trust: Drawing())
    rows = ArraySplit({"x": torch.zeros(6, 1, 4, 4, dtype=torch.uint8)})
    source = DataSource("mine", "my set", rows, rows, rows, kind="image", shape=(1, 4, 4), extractors=("named",))
    options = SimpleNamespace(num_samples=30, sweep_samples=20, sweep=[], extractor=None, trust=False)
    assert samples.measure(Drawing(), source, options) == ({}, {})  # no one asked for them
    options.extractor = ["theirs"]
    with pytest.raises(UsageError, match="--extractor: the test split holds 6 images; distances need 7 at least"):
        samples.measure(Drawing(), source, options)


def test_the_leaderboard_is_that_of_the_records():
    done = run_module("training.leaderboard", "--check")
    assert done.returncode == 0, done.stdout
    text = (ROOT / "docs" / "measured.md").read_text()
    for file in ROOT.glob("checkpoints/*/run.json"):
        assert (file.parent / "results.json").is_file(), file.parent
        assert f"| `{file.parent.name}` |" in text


def test_a_sweep_names_an_argument_of_the_call_and_numbers():
    class Pipe:
        def __call__(self, batch_size=1, temperature=1.0):
            pass

    assert parse_sweep(Pipe(), "temperature=1,0.5") == ("temperature", [1, 0.5])
    with pytest.raises(UsageError, match="--sweep steps=5: Pipe has no argument 'steps'"):
        parse_sweep(Pipe(), "steps=5")
    with pytest.raises(UsageError, match="must be an argument and numbers"):
        parse_sweep(Pipe(), "temperature=hot")


@pytest.mark.parametrize("change", [{"reader": "../images"}, {"reader": "splits"}, {"measures": ["os"]}])
def test_names_of_modules_in_a_record_are_checked(change, tmp_path):
    """A run.json may come from anywhere: it names modules of this project, and nothing else is imported."""
    shutil.copytree(ROOT / "checkpoints" / "vae-digits", tmp_path / "model")
    file = tmp_path / "model" / "run.json"
    record = json.loads(file.read_text())
    record["dataset" if "reader" in change else "declaration"] |= change
    file.write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"run.json names .*(no such module|none of this name)"):
        evaluate.main([str(tmp_path / "model"), "--device", "cpu"])
