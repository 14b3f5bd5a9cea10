"""The diffusion Space: noise an image, watch noise become one, guide it, fill in what is missing, and see it in two
dimensions."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import copy
from collections.abc import Iterator

import gradio as gr
import numpy as np
from kit import charts
from kit.bounds import MAX_SEED, bounded, class_of, one_of, seed_of, whole
from kit.charts import curves, dots, on_plane
from kit.controls import class_control, count_control, offer_classes, result_image, seed_controls
from kit.digits import as_digit, chosen_example, example_digits, examples_gallery
from kit.errors import user_error
from kit.jobs import Pace, buttons, job, one_job, unhurried
from kit.lazy import LazyModule
from kit.models import Models
from kit.pictures import Pad, grid, upscale
from kit.theme import MATH, explanation, launch, page
from PIL import Image

torch = LazyModule("torch")
diffusers = LazyModule("diffusers")

TITLE = "Diffusion"
SENTENCE = "An image is noised bit by bit until nothing is left; a network learns the way back."
BRANCH = "diffusion"  # where the family tree puts it
MODELS = Models(("ddpm-mnist", "ddpm-digits", "ddpm-2d"))
MAX_COUNT, MAX_STEPS, MAX_POINTS = 36, 1000, 1000
STRIP = 10  # steps of one image that the strip below the samples shows
FRAMES, FRAME_SECONDS = 40, 0.1  # of the moving points: slow enough to follow
REACH = 2.6  # of the plane of the 2-D tab, from its middle
SOLVERS = {  # as the page calls them -> class of diffusers
    "DPM-Solver++": "DPMSolverMultistepScheduler",
    "UniPC": "UniPCMultistepScheduler",
    "DDIM": "DDIMScheduler",
    "Euler": "EulerDiscreteScheduler",
    "DDPM (ancestral)": "DDPMScheduler",
}
KNOWN = ("upper half", "lower half", "left half", "right half", "all but what I paint over")

THEORY = r"""
**Forwards**, noise is added in $T = 1000$ small steps, and any of them can be reached in one:

$$q(x_t|x_0) = \mathcal N(\sqrt{\bar\alpha_t}\, x_0,\; (1 - \bar\alpha_t) I)$$

**Backwards**, a network looks at $x_t$ and says which noise $\epsilon$ is in it, and with it which $x_0$ is behind it.
At first that is the mean of all images it could be; each step moves $x_t$ a little towards it and asks again.
Ancestral sampling takes all 1000 steps and adds fresh noise at each; **DDIM** and **DPM-Solver++** follow the same path
without noise, and so with few steps.

**Guidance** asks twice, with the class and without, and goes further in the direction in which they differ:
$\epsilon = \epsilon_\text{free} + w\,(\epsilon_\text{class} - \epsilon_\text{free})$. $w = 1$ is the model itself; more
makes digits more typical, and less varied.

Training lowers a bound on $-\log p(x)$, with one term for each step:

$$-\log p(x_0) \le \mathrm{KL}(q(x_T|x_0)\,\|\,\mathcal N(0, I)) + \sum_{t>1} \mathrm{KL}(q(x_{t-1}|x_t, x_0)\,\|\,
p(x_{t-1}|x_t)) - \log p(x_0|x_1)$$

Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models*, [arXiv 2006.11239](https://arxiv.org/abs/2006.11239);
DDIM: [arXiv 2010.02502](https://arxiv.org/abs/2010.02502); DPM-Solver++:
[arXiv 2211.01095](https://arxiv.org/abs/2211.01095); guidance: [arXiv 2207.12598](https://arxiv.org/abs/2207.12598);
filling in: RePaint, [arXiv 2201.09865](https://arxiv.org/abs/2201.09865).
"""


def is_image(pipe) -> bool:
    return pipe.data_spec["kind"] == "image"


def classes_of(pipe) -> int:
    return pipe.data_spec["num_classes"] if pipe.config.conditional else 0


def image_model(name: str):
    """The pipeline of a model of images."""
    pipe = MODELS[name]
    if not is_image(pipe):
        raise user_error(f"{name} draws points and no images: the tab 2-D shows it.")
    return pipe


def guided(pipe, guidance_scale) -> float | None:
    """A guidance scale within bounds; None, the model's own, where there are no classes to guide by."""
    guidance_scale = float(bounded("guidance_scale", guidance_scale, 0, 10))
    return guidance_scale if classes_of(pipe) else None


def with_solver(pipe, solver: str):
    """The pipeline with another sampler; a copy, since all sessions share the one that is loaded."""
    one_of("solver", solver, SOLVERS)
    own = copy.copy(pipe)
    own.scheduler = getattr(diffusers, SOLVERS[solver]).from_config(pipe.scheduler.config)
    return own


def as_input(pipe, picture: Image.Image | None) -> Image.Image:
    """A drawing as the model takes it."""
    return as_digit(picture, pipe.data_spec["shape"][1])


def progress_of(step) -> str:
    return f"step **{step.step + 1}** of {step.num_steps}, t = {step.timestep}"


@one_job
def diffusion_sample(
    model: str,
    label: str,
    count: int,
    num_inference_steps: int,
    solver: str,
    guidance_scale: float,
    every: int,
    seed: int,
    new_seed: bool,
) -> Iterator[tuple[Image.Image, Image.Image, Image.Image, str, int]]:
    """Draw images from a diffusion model, and watch.

    Args:
        model: one of the page's models.
        label: "any", or the class of all images ("0" to "9").
        count: how many, 1 to 36.
        num_inference_steps: of the solver, 1 to 1000.
        solver: "DPM-Solver++", "UniPC", "DDIM", "Euler" or "DDPM (ancestral)"; the last wants all 1000 steps.
        guidance_scale: 1 is no guidance, more makes the class more pronounced, 0 to 10.
        every: show each k-th step, 1 to 100.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        x_t, the x_0 predicted from it, both of the first image so far as a strip, where the sampler is, and the seed;
        again for each step shown.
    """
    pipe = with_solver(image_model(model), solver)
    count = whole("count", count, 1, MAX_COUNT)
    steps = whole("num_inference_steps", num_inference_steps, 1, MAX_STEPS)
    every = whole("every", every, 1, 100)
    seed = seed_of(seed, new_seed)
    stream = pipe.stream(
        batch_size=count,
        class_labels=class_of(label, classes_of(pipe)),
        num_inference_steps=steps,
        guidance_scale=guided(pipe, guidance_scale),
        generator=torch.Generator().manual_seed(seed),
    )
    way: list[tuple[Image.Image, Image.Image]] = []  # of the first image
    pace = Pace(every)
    for step in stream:
        if step.step * (STRIP - 1) >= len(way) * (step.num_steps - 1):
            way.append((step.images[0], step.predicted_images[0]))
        if pace.due(step):
            blank = [Image.new("L", way[0][0].size, 40)] * (STRIP - len(way))  # of the steps to come
            rows = [image for row in zip(*way, strict=True) for image in [*row, *blank]]
            strip = grid(rows, columns=STRIP)
            yield grid(step.images), grid(step.predicted_images), strip, progress_of(step), seed


@one_job
def diffusion_noise(
    model: str, picture: Image.Image | None, timestep: int, seed: int
) -> tuple[Image.Image, Image.Image, Image.Image, str]:
    """Noise a picture of a digit up to a timestep, in one step and in small ones.

    Args:
        model: one of the page's models.
        picture: an image file with one digit.
        timestep: 0 to 999.
        seed: of the noise, 0 to 2147483647.

    Returns:
        x_t by the closed form, x_t by small steps, what the network takes for x_0 in the first, and what x_t is.
    """
    pipe = image_model(model)
    timestep = whole("timestep", timestep, 0, pipe.num_timesteps - 1)
    seed = seed_of(seed, False)
    x = as_input(pipe, picture)
    at_once, bit_by_bit = (
        pipe.noise(x, timestep, torch.Generator().manual_seed(seed), step_by_step=small) for small in (False, True)
    )
    guess, _ = pipe.predict(at_once, timestep)
    low, high = pipe.data_spec["range"]

    def shown(x: torch.Tensor) -> Image.Image:
        picture = pipe.image_processor.postprocess(((x - low) / (high - low)).clamp(0, 1))[0]
        return upscale(picture, 280)

    abar = float(pipe.abar[timestep])
    text = (
        f"$x_t = {abar**0.5:.3f}\\,x_0 + {(1 - abar) ** 0.5:.3f}\\,\\epsilon$: for one part of noise there are "
        f"**{abar / max(1 - abar, 1e-12):.3g}** of signal (in variance)."
    )
    return shown(at_once), shown(bit_by_bit), shown(guess), text


@one_job
def diffusion_complete(
    model: str,
    picture: Image.Image | None,
    known: str,
    painted: Image.Image | None,
    label: str,
    count: int,
    num_inference_steps: int,
    num_resamples: int,
    seed: int,
    new_seed: bool,
) -> Iterator[tuple[Image.Image, Image.Image, str, int]]:
    """Fill in the part of a digit that is not known.

    Args:
        model: one of the page's models.
        picture: an image file with one digit.
        known: "upper half", "lower half", "left half", "right half", or "all but what I paint over".
        painted: for the last of these, an image file with ink where the digit is to be filled in.
        label: "any" fits whichever class, or the class to fill in ("0" to "9").
        count: how many different ways, 1 to 9.
        num_inference_steps: 5 to 250.
        num_resamples: how often each step is repeated, 1 to 10.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        What is known, the filled-in digits, where the sampler is, and the seed; again as it goes.
    """
    pipe = image_model(model)
    count = whole("count", count, 1, 9)
    steps = whole("num_inference_steps", num_inference_steps, 5, 250)
    resamples = whole("num_resamples", num_resamples, 1, 10)
    x, side = as_input(pipe, picture), pipe.data_spec["shape"][1]
    one_of("known", known, KNOWN)
    mask = torch.zeros(side, side, dtype=torch.bool)
    half = side // 2
    if known == KNOWN[4]:
        if painted is None:
            raise user_error(
                "Nothing is painted over yet: paint on the second sheet where the digit is to be filled in."
            )
        gray = np.asarray(painted.convert("L").resize((side, side), Image.Resampling.BOX), dtype=np.float32)
        mask = torch.from_numpy(np.abs(gray - np.median(gray)) < 20)
    else:
        rows, columns = {
            "upper half": (slice(0, half), slice(None)),
            "lower half": (slice(half, None), slice(None)),
            "left half": (slice(None), slice(0, half)),
            "right half": (slice(None), slice(half, None)),
        }[known]
        mask[rows, columns] = True
    if mask.all() or not mask.any():
        raise user_error("Paint over a part of the sheet: some of the digit must stay, some must go.")
    seed = seed_of(seed, new_seed)
    paper = np.asarray(x.convert("RGB")).copy()
    paper[~mask.numpy()] = (194, 65, 12)  # what is not known, in the accent colour
    shown = upscale(Image.fromarray(paper), 280)
    wanted = class_of(label, classes_of(pipe))
    stream = pipe.stream_complete(
        x,
        mask,
        class_labels=wanted,
        num_inference_steps=steps,
        num_resamples=resamples,
        generator=[torch.Generator().manual_seed((seed + i) % (MAX_SEED + 1)) for i in range(count)],
    )
    pace = Pace(4 * resamples)
    for step in stream:
        if pace.due(step):
            yield shown, grid(step.predicted_images, width=420), progress_of(step), seed


@one_job
def diffusion_image_to_image(
    model: str,
    picture: Image.Image | None,
    strength: float,
    label: str,
    guidance_scale: float,
    num_inference_steps: int,
    count: int,
    seed: int,
    new_seed: bool,
) -> Iterator[tuple[Image.Image, Image.Image, str, int]]:
    """Noise a drawing part of the way and let the model bring it back.

    Args:
        model: one of the page's models.
        picture: an image file with one digit.
        strength: how far it is noised: 0.05 keeps nearly all of it, 1 nothing.
        label: "any" draws a class for each, or the class of what comes back ("0" to "9").
        guidance_scale: 0 to 10.
        num_inference_steps: for the whole way, 5 to 250.
        count: how many different ways, 1 to 16.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        x_t, the x_0 predicted from it, where the sampler is, and the seed; again for each step.
    """
    pipe = image_model(model)
    strength = float(bounded("strength", strength, 0.05, 1))
    steps, count = whole("num_inference_steps", num_inference_steps, 5, 250), whole("count", count, 1, 16)
    x, seed = as_input(pipe, picture), seed_of(seed, new_seed)
    wanted = class_of(label, classes_of(pipe))
    stream = pipe.stream(
        batch_size=count,
        class_labels=wanted,
        num_inference_steps=steps,
        # without a class nothing says where to, so nothing is exaggerated: the unconditional model
        guidance_scale=guided(pipe, guidance_scale if wanted is not None else 0),
        image=x,
        strength=strength,
        generator=torch.Generator().manual_seed(seed),
    )
    pace = Pace(2)
    for step in stream:
        if pace.due(step):
            yield grid(step.images, width=420), grid(step.predicted_images, width=420), progress_of(step), seed


def diffusion_quality(model: str) -> tuple[str, str]:
    """How good samples are with fewer steps, as it was measured when the model was published.

    Args:
        model: one of the page's models.

    Returns:
        A figure (SVG) of the Fréchet distance against steps, and what was measured.
    """
    sweeps = MODELS.results(model).get("sweeps", {})
    measured = sweeps.get("num_inference_steps")
    if not measured:
        return "", f"Nothing about steps was measured of {model}."
    rows = [(row["value"], row["frechet_distance"]) for row in measured["rows"]]
    figure = curves({"Fréchet distance": rows}, "steps of the default solver", "", log_x=True, marks=True)
    table = "| steps | Fréchet distance | class as asked | coverage |\n|---|---|---|---|\n"
    for row in measured["rows"]:
        accuracy = row.get("class_accuracy")
        share = "–" if accuracy is None else f"{accuracy:.1%}"
        table += f"| {row['value']} | {row['frechet_distance']:.2f} | {share} | {row['coverage']:.1%} |\n"
    text = (
        f"Measured with {measured['samples']:,} samples a row, in the features of a digit classifier; lower is better. "
        "Each step is one or, with guidance, two passes of the network.\n\n" + table
    )
    guidance = sweeps.get("guidance_scale")
    if guidance:
        text += "\n\n| guidance | Fréchet distance | class as asked | coverage |\n|---|---|---|---|\n"
        for row in guidance["rows"]:
            text += (
                f"| {row['value']:g} | {row['frechet_distance']:.2f} | {row['class_accuracy']:.1%} | "
                f"{row['coverage']:.1%} |\n"
            )
    return figure, text


def plane(points: torch.Tensor, places: torch.Tensor, field: torch.Tensor) -> str:
    """An SVG: points (N, 2), and arrows from places (M, 2) by (M, 2)."""
    arrows = "".join(
        f'<path d="M{a:.0f} {b:.0f}L{c:.1f} {d:.1f}"/><circle cx="{c:.1f}" cy="{d:.1f}" r="2"/>'
        for (a, b), (c, d) in zip(on_plane(places, REACH), on_plane(places + field, REACH), strict=True)
    )
    return charts.plane("points and field", f'<g class="field">{arrows}</g>', dots(points, REACH))


@one_job
@unhurried(FRAME_SECONDS)
def diffusion_points(
    model: str,
    label: str,
    count: int,
    num_inference_steps: int,
    solver: str,
    seed: int,
    new_seed: bool,
) -> Iterator[tuple[str, str, int]]:
    """Move points of pure noise to where the data lie, and show the field that moves them.

    Args:
        model: a model of two-dimensional data.
        label: "any", or a class.
        count: points, 10 to 1000.
        num_inference_steps: 1 to 1000.
        solver: as in diffusion_sample.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        A figure (SVG) of the points and of the noise prediction, pointing away from the noise, where the sampler is,
        and the seed; again for up to 40 steps.
    """
    pipe = with_solver(MODELS[model], solver)
    if is_image(pipe) or pipe.data_spec["shape"] != [2]:
        raise user_error(f"{model} draws no points in two dimensions; choose a model like ddpm-2d.")
    count = whole("count", count, 10, MAX_POINTS)
    steps = whole("num_inference_steps", num_inference_steps, 1, MAX_STEPS)
    wanted = class_of(label, classes_of(pipe))
    seed = seed_of(seed, new_seed)
    ticks = torch.linspace(-REACH, REACH, 19)[1:-1]
    places = torch.cartesian_prod(ticks, ticks)
    labels = None if wanted is None else [wanted] * len(places)
    stream = pipe.stream(
        batch_size=count,
        class_labels=wanted,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    )
    pace = Pace(max(1, steps // FRAMES), seconds=0)
    for step in stream:
        if not pace.due(step):
            continue
        # where the next step begins, and how much noise is left there
        t = max(round(step.timestep - pipe.num_timesteps / step.num_steps), 0)
        _, noise = pipe.predict(places, t, labels)
        field = -0.35 * noise * float((1 - pipe.abar[t]) ** 0.5)
        yield plane(step.latents, places, field), progress_of(step), seed


def update_classes(model: str):
    return [offer_classes(classes_of(MODELS[model]) if model else 0)] * 3


def update_point_class(model: str):
    return update_classes(model)[0]


def steps_control(start: int, most: int = MAX_STEPS, least: int = 1) -> gr.Slider:
    return gr.Slider(least, most, start, step=1, label="Steps")


def guidance_control() -> gr.Slider:
    return gr.Slider(0, 10, 2, step=0.1, label="Guidance", info="1: none; more: more typical, less varied")


def for_solver(solver: str):
    """Steps that suit it, and how many of them to show."""
    return (1000, 50) if SOLVERS[solver] == "DDPMScheduler" else (20, 1)


with page("Genus: diffusion") as demo:
    gr.Markdown(
        f"# {TITLE}\nAn image is **noised** until nothing of it is left; a network learns to say which noise is in it. "
        "Asked again and again, it turns pure noise into an image. Every step can be seen here, and stopped.",
        latex_delimiters=MATH,
        elem_classes="lead",
    )
    names = [name for name in MODELS if "2d" not in name]
    flat = [name for name in MODELS if "2d" in name]
    if not MODELS.first:
        MODELS.control()
    model = gr.Dropdown(
        names, value=next(iter(names), None), label="Model", elem_id="model", visible=bool(MODELS.first)
    )
    with gr.Tab("Sample"), gr.Row():
        with gr.Column(scale=2, min_width=300):
            label = class_control("class")
            count = count_control(MAX_COUNT)
            solver = gr.Dropdown(list(SOLVERS), value="DPM-Solver++", label="Solver", elem_id="solver")
            steps = steps_control(20)
            guidance = guidance_control()
            every = gr.Slider(1, 100, 1, step=1, label="Show every k-th step")
            seed, new_seed = seed_controls()
            draw = buttons("Draw samples", "draw", stop=True)
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                samples = result_image("x at this step", "samples", min_width=260)
                predicted = result_image("the x₀ it sees in it", "predicted", min_width=260)
            where = gr.Markdown(elem_id="where")
            strip = result_image("The way of the first image: x above, the x₀ seen in it below", "strip")
    with gr.Tab("Noise") as noise_tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            pad = Pad(example_digits()[5], label="Draw a digit", elem_id="pad")
            timestep = gr.Slider(0, 999, 300, step=1, label="Timestep t", elem_id="timestep")
            noise_seed = gr.Number(0, label="Seed of the noise", precision=0)
            noise_it = buttons("Add noise", "noise")
            examples = examples_gallery("examples")
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                at_once = result_image("In one step", "at-once", min_width=140)
                bit_by_bit = result_image("In t + 1 small steps", "bit-by-bit", min_width=140)
                guess = result_image("The x₀ seen in it", "guess", min_width=140)
            about_noise = gr.Markdown(latex_delimiters=MATH, elem_id="about-noise")
            gr.Markdown(
                "The noise differs, its distribution does not. Late in the noising, all that the network can see is "
                "what digits have in common: it answers with their mean."
            )
    with gr.Tab("Fill in") as fill_tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            pad2 = Pad(example_digits()[8], label="Draw a digit", elem_id="pad-fill")
            known = gr.Radio(list(KNOWN), value=KNOWN[0], label="What is known")
            cover = Pad(label="Paint where it is to be filled in", elem_id="pad-cover", visible=False)
            label2 = class_control("class-fill")
            ways = gr.Slider(1, 9, 4, step=1, label="Different ways")
            with gr.Row():
                fill_steps = steps_control(40, 250, 5)
                resamples = gr.Slider(1, 10, 4, step=1, label="Repeats")
            seed2, new_seed2 = seed_controls("seed-fill")
            fill = buttons("Fill in", "fill", stop=True)
            examples2 = examples_gallery("examples-fill")
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                left = result_image("What is known", "known", min_width=200)
                filled = result_image("Filled in", "filled", min_width=260)
            where2 = gr.Markdown()
    with gr.Tab("From a drawing") as redraw_tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            pad3 = Pad(example_digits()[4], label="Draw something", elem_id="pad-redraw")
            strength = gr.Slider(
                0.05, 1, 0.6, step=0.05, label="Strength", info="how much of the drawing is noised away"
            )
            label3 = class_control("class-redraw")
            guidance3 = guidance_control()
            redraw_steps = steps_control(40, 250, 5)
            ways3 = gr.Slider(1, 16, 9, step=1, label="Different ways")
            seed3, new_seed3 = seed_controls("seed-redraw")
            redraw = buttons("Redraw", "redraw", stop=True)
            examples3 = examples_gallery("examples-redraw")
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                noised = result_image("x at this step", "noised", min_width=260)
                redrawn = result_image("the x₀ it sees in it", "redrawn", min_width=260)
            where3 = gr.Markdown()
    with gr.Tab("Steps and quality") as quality_tab:
        figure = gr.HTML(elem_id="quality", min_height=200)
        measured = gr.Markdown(elem_id="measured")
    with gr.Tab("2-D") as plane_tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            flat_model = gr.Dropdown(flat, value=next(iter(flat), None), label="Model of points", elem_id="flat-model")
            label4 = class_control("class-points")
            points = gr.Slider(10, MAX_POINTS, 400, step=10, label="Points")
            solver4 = gr.Dropdown(list(SOLVERS), value="DPM-Solver++", label="Solver")
            steps4 = steps_control(40)
            seed4, new_seed4 = seed_controls("seed-points")
            move = buttons("Move the points", "move", stop=True)
            gr.Markdown(
                "Arrows point where the predicted noise is taken away: first to the middle of all data, later to the "
                "nearest part of it."
            )
        with gr.Column(scale=3, min_width=300):
            cloud = gr.HTML(elem_id="cloud", min_height=300)
            where4 = gr.Markdown()
    explanation(THEORY)

    drawn = job(
        draw,
        diffusion_sample,
        [model, label, count, steps, solver, guidance, every, seed, new_seed],
        [samples, predicted, strip, where, seed],
    )
    noising = job(
        noise_it, diffusion_noise, [model, pad, timestep, noise_seed], [at_once, bit_by_bit, guess, about_noise]
    )
    filling = job(
        fill,
        diffusion_complete,
        [model, pad2, known, cover, label2, ways, fill_steps, resamples, seed2, new_seed2],
        [left, filled, where2, seed2],
    )
    redrawing = job(
        redraw,
        diffusion_image_to_image,
        [model, pad3, strength, label3, guidance3, redraw_steps, ways3, seed3, new_seed3],
        [noised, redrawn, where3, seed3],
    )
    moved = job(
        move,
        diffusion_points,
        [flat_model, label4, points, steps4, solver4, seed4, new_seed4],
        [cloud, where4, seed4],
    )

    # what happens without a button; the handlers are the same, so the API names them once
    quiet = {"api_visibility": "private"}
    fresh = {"trigger_mode": "always_last", "show_progress": "hidden", **quiet}
    solver.change(for_solver, solver, [steps, every], **quiet)
    timestep.input(diffusion_noise, *noising, **fresh)
    pad.input(diffusion_noise, *noising, **fresh)
    examples.select(chosen_example, None, pad, **quiet).success(diffusion_noise, *noising, **quiet)
    examples2.select(chosen_example, None, pad2, **quiet)
    examples3.select(chosen_example, None, pad3, **quiet)
    known.change(lambda k: gr.HTML(visible=k == KNOWN[4]), known, cover, **quiet)
    model.change(update_classes, model, [label, label2, label3], **quiet).success(diffusion_sample, *drawn, **quiet)
    flat_model.change(update_point_class, flat_model, label4, **quiet)
    # no tab is empty when it is opened
    noise_tab.select(diffusion_noise, *noising, **quiet)
    fill_tab.select(diffusion_complete, *filling, **quiet)
    redraw_tab.select(diffusion_image_to_image, *redrawing, **quiet)
    quality_tab.select(diffusion_quality, model, [figure, measured], api_name="diffusion_quality")
    if flat:
        plane_tab.select(update_point_class, flat_model, label4, **quiet).success(diffusion_points, *moved, **quiet)
    if names:
        demo.load(update_classes, model, [label, label2, label3], **quiet).success(diffusion_sample, *drawn, **quiet)

if __name__ == "__main__":
    launch(demo)
