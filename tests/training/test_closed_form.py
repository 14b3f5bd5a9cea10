"""The loop of what is fitted at once, and its three recipes: folder, record, log, resuming, publishing, one-line errors."""

import json
import math

import pytest
import torch

from pipelines.classical.modeling_agglomerative import AgglomerativeModel
from pipelines.classical.modeling_gaussian_mixture import GaussianMixtureModel
from pipelines.classical.modeling_kde import KDEModel
from pipelines.classical.modeling_kmeans import KMeansModel
from pipelines.classical.modeling_nmf import NMFModel
from pipelines.classical.pipeline_clustering import ClusteringPipeline
from pipelines.classical.pipeline_density import DensityPipeline
from pipelines.classical.pipeline_nmf import NMFPipeline
from tests.conftest import run_here, run_module
from training.classical.clustering import main as clustering
from training.classical.density import DECLARATION
from training.classical.density import main as density
from training.classical.nmf import main as nmf
from training.data.images import DataOptions, load_data
from training.data.source import to_network
from training.evaluate import main as evaluate
from training.loops.closed_form import FitOptions, fit, training_rows, validation_figure
from training.loops.run import Run
from training.options import Stopped, UsageError
from training.publishing.build import build

RECIPES = {
    "mixture": (density, ["--num_components", "3"], DensityPipeline, "exact"),
    "mixture by class": (density, ["--num_components", "1", "--conditional", "true"], DensityPipeline, "exact"),
    "kde": (density, ["--density", "kde", "--num_points", "300"], DensityPipeline, "exact"),
    "kde of points": (density, ["--density", "kde", "--dataset", "moons", "--pca_dim", "0"], DensityPipeline, "exact"),
    "pca": (density, ["--density", "none"], DensityPipeline, "none"),
    "kmeans": (clustering, [], ClusteringPipeline, "none"),
    "kmeans of points": (clustering, ["--dataset", "ring", "--num_clusters", "8"], ClusteringPipeline, "none"),
    "agglomerative": (clustering, ["--method", "agglomerative", "--pca_dim", "10"], ClusteringPipeline, "none"),
    "nmf": (nmf, ["--num_components", "6", "--max_iter", "1000"], NMFPipeline, "none"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_leaves_the_folder_of_a_run(name, tmp_path):
    main, words, pipeline, likelihood = RECIPES[name]
    folder = tmp_path / "run"
    main([*words, "--max_samples", "1000", "--output_dir", str(folder)])
    pipe = pipeline.from_pretrained(folder)
    assert pipe.likelihood == likelihood
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished" and record["parameters"] > 0 and record["model"]
    assert record["parameters"] == sum(
        p.numel() for m in pipe.components.values() if m is not None for p in m.parameters()
    )
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["validation"] == pytest.approx(
        validation_figure(pipe, load_data(options_of(record)))["validation"], rel=1e-4
    )
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="holds a finished run"):
        main([*words, "--max_samples", "1000", "--output_dir", str(folder)])
    before = (folder / "run.json").read_bytes()
    main([*words, "--max_samples", "1000", "--output_dir", str(folder), "--resume", "true"])
    assert (folder / "run.json").read_bytes() == before  # there was nothing left to do


def options_of(record: dict) -> DataOptions:
    return DataOptions(record["options"]["dataset"])


def test_a_fit_is_published_and_measured_like_a_trained_model(tmp_path):
    """The portable folder's own code runs it."""
    run, portable = tmp_path / "run", tmp_path / "portable"
    done = run_here("training.classical.density", "--num_components", "3", "--output_dir", run)
    assert done.returncode == 0, done.stderr
    evaluate([str(run)])
    results = json.loads((run / "results.json").read_text())
    assert results["likelihood"] == "exact" and "uniform dequantisation" in results["convention"]
    assert results["bits_per_dim"] == pytest.approx(results["nats"] / (64 * math.log(2)), rel=1e-3)
    assert results["reconstruction_error"] > 0 and results["seconds_per_image"]["64"] > 0
    build(run, portable)
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(portable, trust_remote_code=True)
    assert type(pipe).__module__.startswith("diffusers_modules") and len(pipe(4).images) == 4
    card = (portable / "README.md").read_text()
    assert "mean squared error of reconstructions" in card and "steps on [scikit-learn digits](" in card


@pytest.mark.parametrize(("main", "words"), [(clustering, []), (nmf, ["--num_components", "4"])])
def test_what_cannot_draw_is_measured_by_what_it_can(main, words, tmp_path, capsys):
    main([*words, "--output_dir", str(tmp_path / "run")])
    evaluate([str(tmp_path / "run")])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["likelihood"] == "none" and results["reconstruction_error"] > 0
    assert not {"nats", "frechet_distance", "seconds_per_image"} & results.keys()
    build(tmp_path / "run", tmp_path / "portable")
    assert "pipe.reconstruct(images)" in (tmp_path / "portable" / "README.md").read_text()


def test_rows_come_by_the_batch_with_the_same_noise_each_time():
    source = load_data(DataOptions())
    spec = source.spec("8-bit", (0, 1), "uniform")
    one, two = (list(training_rows(source, spec, FitOptions(max_samples=1_050))) for _ in range(2))
    assert [len(batch["x"]) for batch in one] == [1_000, 50]
    assert all(torch.equal(a["x"], b["x"]) for a, b in zip(one, two, strict=True))
    x = torch.cat([batch["x"] for batch in one])
    place = x * 256 - source.train.columns["x"][:1_050].flatten(1).float()  # within each level
    assert place.min() >= -1e-4 and place.max() <= 1 + 1e-4 and place.mean().item() == pytest.approx(0.5, abs=0.01)
    other = next(training_rows(source, spec, FitOptions(seed=1)))["x"]
    assert not torch.equal(other[:1_000], one[0]["x"])


def test_kmeans_is_as_good_as_lloyds_best(tmp_path):
    clustering(["--num_clusters", "5", "--output_dir", str(tmp_path / "run")])
    pipe = ClusteringPipeline.from_pretrained(tmp_path / "run")
    source = load_data(DataOptions())
    x = to_network(source.train.columns["x"], source.spec("8-bit", (0, 1)))
    *_, last = KMeansModel.lloyd_steps(x.flatten(1), 5, centres=pipe.centres(output_type="pt").flatten(1))
    fitted = pipe.reconstruction_error(x).sum().item() * 64
    assert fitted == pytest.approx(last.inertia, rel=1e-3)  # its iterations find nothing more to gain
    assert int(pipe.clustering.counts.sum()) == len(x) and (pipe.clustering.counts.diff() <= 0).all()


def test_a_tree_of_the_recipe_is_the_models_own(tmp_path):
    words = ["--method", "agglomerative", "--max_samples", "80", "--num_clusters", "4", "--linkage", "average"]
    clustering([*words, "--output_dir", str(tmp_path / "run")])
    tree = ClusteringPipeline.from_pretrained(tmp_path / "run").clustering
    own = AgglomerativeModel.fit(tree.points, "average")
    torch.testing.assert_close(tree.heights, own.heights, rtol=1e-4, atol=1e-5)
    same = tree.cut(4)[:, None] == tree.cut(4)[None]
    assert torch.equal(same, own.cut(4)[:, None] == own.cut(4)[None])


def test_of_several_numbers_bic_takes_the_lowest(tmp_path):
    folder = tmp_path / "run"
    words = ["--dataset", "ring", "--pca_dim", "0", "--num_components", "2", "8", "20", "--max_samples", "1000"]
    density([*words, "--output_dir", str(folder)])
    tried = [line for line in map(json.loads, (folder / "log.jsonl").read_text().splitlines()) if "bic" in line]
    assert [line["num_components"] for line in tried] == [2, 8, 20]
    best = min(tried, key=lambda line: line["bic"])
    assert DensityPipeline.from_pretrained(folder).density.config.num_components == best["num_components"] == 8


def test_ratings_are_filled_in_from_a_table(tmp_path):
    file, folder = tmp_path / "ratings.csv", tmp_path / "run"
    file.write_text("who,tea,milk,beer,wine\na,5,5,1,\nb,5,,1,1\nc,1,1,5,5\nd,1,,5,4\ne,,5,1,1\n")
    nmf(["--ratings", str(file), "--num_components", "2", "--penalty", "0.01", "--output_dir", str(folder)])
    pipe = NMFPipeline.from_pretrained(folder)
    nan = math.nan
    assert pipe.nmf.config.item_names == ["tea", "milk", "beer", "wine"]
    assert pipe.recommend([5, nan, nan, 1], 1).names == ["milk"]
    assert pipe.recommend([1, nan, nan, 5], 1).names == ["beer"]
    losses = [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("who,a,b\nx,1,-2\n", "x holds -2; a non-negative factorisation needs entries of at least 0"),
        ("who,a,b\nx,1\n", "line 2 has 2 cells; it must have 3"),
        ("who,a,b\nx,1,good\n", "line 2, b: 'good' is no number; a cell holds one, or nothing"),
        ("who,a,b\nx,1,\0\n", "line 2 holds a NUL byte"),
        ("who," + ",".join(map(str, range(100_001))) + "\n", "line 1 has more than 100000 cells"),
        ("who,a\n" + "x" * 2**24 + ",1\n", "line 2 is longer than 16 MB"),
        ("\n", "its first line has 0 cells; it must name columns"),
        ("who,a,b\n", "holds no ratings; it needs a line of names"),
        ("who,a,b\nx,,\n", "holds no ratings; it needs a line of names"),
        ("who,a,,b\nx,1,2,3\n", "column 3 of its first line has no name"),
        ("\n\nwho,a,b\n\nx,1,2\n,,\nz,1,x\n", "line 7, b: 'x' is no number"),
        ('who,a,b\n"two\nlines",1,2\nz,1\n', "line 4 has 2 cells; it must have 3"),
        ("who,a,b\rx,1,2\rz,1\r", "line 3 has 2 cells; it must have 3"),
        ("196\t242\t3\t881250949\n", "its first line holds numbers alone; it must name the columns"),
        ("1::1193::5::978300760\n", "its first line has 1 cells; it must name columns, parted by"),
        ("userId,show,rating\n1,2,3\n", "--item_column is not given, and no column of userId, show, rating is plainly"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(content, message, tmp_path):
    file = tmp_path / "ratings.csv"
    file.write_text(content)
    with pytest.raises(UsageError, match=message):
        nmf(["--ratings", str(file), "--num_components", "1", "--output_dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (
            density,
            ["--num_components", "9", "--max_samples", "5", "--pca_dim", "0"],
            "num_components is 9, but x holds 5 points",
        ),
        (density, ["--density", "kde", "--bandwidth", "0"], "bandwidth is 0"),
        (
            density,
            ["--density", "kde", "--bandwidth", "wide"],
            "--bandwidth is 'wide'; it must be a number or one of scott",
        ),
        (density, ["--pca_dim", "65"], "--pca_dim is 65; these data have 64 dimensions"),
        (density, ["--pca_dim", "0", "--density", "none"], "there is nothing to fit"),
        (
            density,
            ["--conditional", "true", "--dataset", "checkerboard", "--pca_dim", "0"],
            "checkerboard has no classes",
        ),
        (
            clustering,
            ["--num_clusters", "9", "--max_samples", "5"],
            "--num_clusters is 9, but there are only 5 different points",
        ),
        (clustering, ["--linkage", "nearest"], "--linkage is 'nearest'; it must be one of ward"),
        (nmf, ["--num_components", "65"], "--num_components is 65; it must be at most 64"),
        (nmf, ["--dataset", "moons", "--num_components", "1"], r"x holds -\d.* needs entries of at least 0"),
        (nmf, ["--ratings", "nowhere.csv"], "--ratings nowhere.csv: there is no such file"),
    ],
)
def test_what_cannot_be_fitted_is_named(main, words, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        main([*words, "--output_dir", str(tmp_path / "run")])


def test_one_line_and_exit_code_2(tmp_path):
    done = run_module(
        "training.classical.density", "--num_components", "9", "--max_samples", "5", "--output_dir", tmp_path / "r"
    )
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_fit_that_fails_leaves_everything_as_it_was(tmp_path):
    """Also where it was told to overwrite: the folder is written when the fit has come to its end."""
    folder = tmp_path / "run"
    words = ["--num_components", "2", "--output_dir", str(folder)]
    density(words)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match="num_components is 9, but x holds 5 points"):
        density([*words, "--num_components", "9", "--max_samples", "5", "--pca_dim", "0", "--overwrite", "true"])
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    with pytest.raises(UsageError):
        density(
            ["--num_components", "9", "--max_samples", "5", "--pca_dim", "0", "--output_dir", str(tmp_path / "new")]
        )
    assert not (tmp_path / "new").exists()


def test_a_figure_that_is_not_finite_stops_the_fit(tmp_path):
    source = load_data(DataOptions())
    run = Run(DECLARATION, FitOptions(output_dir=str(tmp_path / "run")))

    def solve(report):
        report(1, 10, loss=2.0)
        report(2, 10, loss=math.nan)

    with pytest.raises(Stopped, match="step 2: loss is nan; nothing was written"):
        fit(run, source, solve, None)
    assert not (tmp_path / "run").exists()


def test_models_are_what_the_recipes_fit(tmp_path):
    """The recipe's mixture and kernels are those of the models' own `fit` on the same rows."""
    source = load_data(DataOptions("moons"))
    density(["--dataset", "moons", "--pca_dim", "0", "--num_components", "4", "--output_dir", str(tmp_path / "m")])
    own = GaussianMixtureModel.fit(source.train.columns["x"], 4, max_iter=200)
    fitted = DensityPipeline.from_pretrained(tmp_path / "m").density
    torch.testing.assert_close(
        fitted.log_prob(source.test.columns["x"]), own.log_prob(source.test.columns["x"]), atol=1e-4, rtol=1e-4
    )
    density(["--dataset", "moons", "--pca_dim", "0", "--density", "kde", "--bandwidth", "scott", "--max_samples", "500",
             "--output_dir", str(tmp_path / "k")])  # fmt: skip
    kernels = DensityPipeline.from_pretrained(tmp_path / "k").density
    torch.testing.assert_close(kernels.bandwidth, KDEModel.fit(source.train.columns["x"][:500], "scott").bandwidth)


def test_parts_of_images_are_a_good_factorisation(tmp_path):
    """scikit-learn's parts reach what our own solver reaches, from which weights are computed later."""
    nmf(["--num_components", "8", "--max_iter", "1000", "--output_dir", str(tmp_path / "run")])
    pipe = NMFPipeline.from_pretrained(tmp_path / "run")
    source = load_data(DataOptions())
    x = to_network(source.train.columns["x"], source.spec("8-bit", (0, 1))).flatten(1)
    *_, last = NMFModel.fit_steps(x, 8, max_iter=300)
    fitted = pipe.reconstruction_error(x.view(-1, 1, 8, 8)).mean().sqrt().item()
    assert fitted < 1.05 * last.error
