"""Digits: densities of the few directions in which images differ most, a digit in a few numbers, means of clusters."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import math

import gradio as gr
from density_models import FACTS, MODELS, component_of, drawn_from
from density_points import LIVE, QUIET, Points
from kit.bounds import one_of, seed_of, whole
from kit.charts import curves, signed
from kit.controls import count_control, result_image, seed_controls
from kit.digits import chosen_example, digit_tensor, example_digits, examples_gallery
from kit.errors import user_error
from kit.jobs import buttons, job, one_job, opening
from kit.lazy import LazyModule
from kit.pictures import Pad, grid, upscale
from PIL import Image

torch = LazyModule("torch")

NAME = "Digits"
MAX_COUNT = 64


def of_images(part: str, *calls: str) -> list[str]:
    """The models of images that have this part and answer these calls."""
    return [
        name
        for name, facts in FACTS.items()
        if facts.data_spec.get("kind") == "image" and part in facts.parts and facts.calls >= set(calls)
    ]


DENSITIES = of_images("density", "sample", "log_prob")
CLUSTERINGS = of_images("clustering", "centres")
# a PCA by itself has more components than one that a density is of
REDUCING = sorted(of_images("pca", "encode", "decode"), key=lambda name: "density" in FACTS[name].parts)
OFFERED = DENSITIES, CLUSTERINGS, REDUCING


def say_missing(offered: list[str], what: str, usual: str) -> None:
    """A line on the page where there is no model of what a tab shows."""
    if not offered:
        gr.Markdown(f"Not here, since `MODEL_ID` does not name a {what}: `{usual}`.")


def first_reducing() -> str:
    """The first model with principal components.

    Raises:
        gr.Error: there is none.
    """
    if not REDUCING:
        raise user_error("This needs a PCA of images, like pca-mnist: name one in MODEL_ID.")
    return REDUCING[0]


def image_pipe(name: str, part: str):
    """A pipeline of images that has this part."""
    pipe = MODELS[name]
    if pipe.data_spec["kind"] != "image":
        raise user_error(f"{name} is of points and not of images.")
    if getattr(pipe, part, None) is None:
        raise user_error(f"{name} has no {part}, so it cannot do this.")
    return pipe


@one_job
def density_sample(
    model: str, component: str, output: str, count: int, seed: int, new_seed: bool
) -> tuple[Image.Image, str, int]:
    """Draw images from a density of principal components.

    Args:
        model: one of the page's densities of images.
        component: "all", or the number of one component of a mixture, from 1.
        output: "mean" decodes the components alone, "sample" adds what they leave out as noise.
        count: how many, 1 to 64.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        The images in one grid, what the model is, and the seed that made them.
    """
    pipe = image_pipe(model, "density")
    count, seed = whole("count", count, 1, MAX_COUNT), seed_of(seed, new_seed)
    one_of("output", output, ("mean", "sample"))
    density, latents, size = pipe.density, None, pipe.density.config.dim
    generator = torch.Generator().manual_seed(seed + 1)  # the latents have the seed itself
    if hasattr(density, "weights"):
        chosen = component_of(component, density)
        told = f"A mixture of **{len(density.weights)} Gaussians** in {size} dimensions."
        if chosen is not None:
            told = f"Component **{chosen + 1}** of {len(density.weights)}, of weight {density.weights[chosen]:.1%}."
        latents = drawn_from(density, component, count, seed)
    else:
        if component != "all":
            raise user_error(f"{model} has no components to choose from: take all.")
        told = f"**{density.config.num_points:,} kernels** in {size} dimensions, of bandwidth {density.bandwidth.item():.3g}."
    images = pipe(count, decoder_output=output, latents=latents, generator=generator).images
    return grid(images), told, seed


@one_job
def density_reconstruct(picture: Image.Image | None, components: int) -> tuple[Image.Image, Image.Image, str, str]:
    """Redraw a digit from a few principal components, and measure its exact likelihood.

    Args:
        picture: an image file with one digit, dark on light or light on dark.
        components: how many principal components to keep, 1 to 200, or as many as the model has.

    Returns:
        The digit as the models see it, the digit redrawn, what is kept and how likely it is, and the share of the
        variance that the first components keep (SVG).
    """
    pipe = image_pipe(first_reducing(), "pca")
    most = pipe.pca.config.num_components
    kept = min(whole("components", components, 1, 200), most)
    x = digit_tensor(pipe, picture)
    again = pipe.reconstruct(x, num_components=kept, output_type="pt").images
    error = (again - x).square().mean().item()
    variances = pipe.pca.variances.double()
    share = (variances.cumsum(0) / variances.sum()).tolist()
    figure = curves(
        {"share of the variance": list(enumerate(share[:most], 1))}, "principal components", "", here=(f"{kept}", kept)
    )
    size = x.numel()
    text = (
        f"**{kept} numbers** in place of {size} keep {share[kept - 1]:.1%} of how digits differ; of yours they leave a mean "
        f"squared error of **{error:.4f}**.\n\n"
    )
    rows = ""
    for name in DENSITIES:
        judge = image_pipe(name, "density")
        digit = digit_tensor(judge, picture)
        log_p = judge.log_prob(digit, generator=torch.Generator().manual_seed(0)).item()
        bits = -log_p / (digit.numel() * math.log(2))
        rows += f"| {name} | **{signed(log_p, 1)}** | {signed(bits, 3)} |\n"
    if rows:
        text += "| log p of your digit, exact | nats | bits/dim |\n|---|---|---|\n" + rows
    to_image = pipe.image_processor.postprocess
    return upscale(to_image(x)[0], 252), upscale(to_image(again)[0], 252), text, figure


@one_job
def density_centres(model: str, clusters: int) -> tuple[Image.Image, str]:
    """The means of clusters of images.

    Args:
        model: one of the page's clusterings of images.
        clusters: where a tree is cut, 1 to 64; k-means has a number of its own.

    Returns:
        The means in one grid, the largest cluster first, and what they are.
    """
    pipe = image_pipe(model, "clustering")
    clusters, clustering = whole("clusters", clusters, 1, MAX_COUNT), pipe.clustering
    if not hasattr(clustering, "merges"):
        counts = clustering.counts.tolist()
        told = f"**K-means** with {len(counts)} centres: the largest cluster has {max(counts):,} images, the smallest {min(counts):,}."
        return grid(pipe.centres()), told
    if clusters > clustering.config.num_points:
        raise user_error(
            f"The tree has {clustering.config.num_points} images; it cannot be cut into {clusters} clusters."
        )
    sizes = torch.bincount(clustering.cut(clusters))
    told = (
        f"**A tree** of {clustering.config.num_points:,} images ({clustering.config.linkage} linkage), cut into {clusters}: "
        f"the largest cluster has {int(sizes[0]):,}, the smallest {int(sizes[-1]):,}."
    )
    return grid(pipe.centres(clusters)), told


def offer_components(model: str) -> gr.Dropdown:
    """The components of a mixture, to choose from; out of sight for kernels."""
    density = image_pipe(model, "density").density
    count = len(density.weights) if hasattr(density, "weights") else 0
    return gr.Dropdown(["all", *map(str, range(1, count + 1))], value="all", visible=count > 0)


def offer_kept(kept: int) -> gr.Slider:
    """As many principal components as there are."""
    most = image_pipe(first_reducing(), "pca").pca.config.num_components
    return gr.Slider(maximum=most, value=min(kept, most))


def build(demo: gr.Blocks, points: Points) -> None:
    """The tab, on the page `demo`, and three within it."""
    with gr.Tab(NAME) as tab:
        gr.Markdown(
            "What works in the plane does not work in 784 dimensions: every image is far from every other. So **PCA** first keeps "
            "the few directions in which digits differ most, and a density of those is one of digits."
        )
        build_samples(tab)
        build_few_numbers()
        build_clusters()
    points.shown_in(tab, NAME, False)


def build_samples(outer: gr.Tab) -> None:
    """It is the first within the tab `outer`, and filled when that opens."""
    with gr.Tab("Samples"), gr.Row():
        with gr.Column(scale=2, min_width=300):
            say_missing(DENSITIES, "density of images", "gaussian-mixture-mnist")
            model = gr.Dropdown(DENSITIES, value=next(iter(DENSITIES), None), label="Model", elem_id="model")
            # a caller of the API may choose a model whose components are not shown
            component = gr.Dropdown(
                ["all", *map(str, range(1, 201))], value="all", label="Component", elem_id="digit-component"
            )
            output = gr.Radio(["mean", "sample"], value="mean", label="What PCA leaves out",
                              info="mean: nothing; sample: noise of its variance")  # fmt: skip
            count = count_control(MAX_COUNT, 25)
            seed, new_seed = seed_controls("seed-digits")
            draw = buttons("Draw samples", "draw")
            about = gr.Markdown(elem_id="about-samples")
        with gr.Column(scale=3, min_width=300):
            samples = result_image("Samples", "samples")

    sampled = job(draw, density_sample, [model, component, output, count, seed, new_seed], [samples, about, seed])
    model.change(offer_components, model, component, **QUIET).success(density_sample, *sampled, **QUIET)
    if DENSITIES:
        outer.select(offer_components, model, component, **QUIET).success(density_sample, *sampled, **QUIET)


def build_few_numbers() -> None:
    with gr.Tab("Few numbers") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            say_missing(REDUCING, "PCA of images", "pca-mnist")
            pad = Pad(example_digits()[2], label="Draw a digit", elem_id="pad-digit")
            examples = examples_gallery("examples")
        with gr.Column(scale=3, min_width=300):
            kept = gr.Slider(1, 200, 20, step=1, label="Principal components to keep", elem_id="kept")
            redraw = buttons("Redraw it", "redraw")
            with gr.Row():
                seen = result_image("Your digit", "seen", min_width=140)
                redrawn = result_image("Redrawn", "redrawn", min_width=140)
            about = gr.Markdown(elem_id="about-digit")
            spectrum = gr.HTML(elem_id="spectrum")

    rebuilt = job(redraw, density_reconstruct, [pad, kept], [seen, redrawn, about, spectrum])
    pad.input(density_reconstruct, *rebuilt, **LIVE, **QUIET)
    kept.input(density_reconstruct, *rebuilt, **LIVE, **QUIET)
    examples.select(chosen_example, None, pad, **QUIET).success(density_reconstruct, *rebuilt, **QUIET)
    if REDUCING:
        opening(tab).success(offer_kept, kept, kept, **QUIET).success(density_reconstruct, *rebuilt, **QUIET)


def build_clusters() -> None:
    with gr.Tab("Clusters") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            say_missing(CLUSTERINGS, "clustering of images", "kmeans-mnist")
            model = gr.Radio(CLUSTERINGS, value=next(iter(CLUSTERINGS), None), label="Clustering", elem_id="clustering")
            clusters = gr.Slider(1, MAX_COUNT, 16, step=1, label="Cut the tree into",
                                 info="k-means has a number of its own")  # fmt: skip
            average = buttons("Show the means", "average")
            about = gr.Markdown(elem_id="about-centres")
        with gr.Column(scale=3, min_width=300):
            centres = result_image("Means of the clusters", "centres")

    averaged = job(average, density_centres, [model, clusters], [centres, about])
    model.input(density_centres, *averaged, **QUIET)
    clusters.input(density_centres, *averaged, **LIVE, **QUIET)
    if CLUSTERINGS:
        opening(tab).success(density_centres, *averaged, **QUIET)
