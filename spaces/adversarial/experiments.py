"""The laboratory's tabs: what `laboratory.py` computes, drawn as it comes."""

from __future__ import annotations  # torch is not there while the page is read

import functools
import itertools
import math
from collections.abc import Iterator

import gradio as gr
import numpy as np
from kit import charts
from kit.bounds import bounded, one_of, seed_of, whole
from kit.charts import dots, on_plane, plane, signed
from kit.controls import seed_controls
from kit.errors import user_error
from kit.jobs import buttons, job, one_job, unhurried
from kit.lazy import LazyModule
from kit.theme import MATH
from PIL import Image

laboratory = LazyModule("laboratory")  # which imports torch

DATA = ("ring of 8", "grid of 25")
METHODS = ("simultaneous", "alternating", "extragradient")
DENSITIES = ("one beside the other", "one inside the other", "two hills and one", "the same twice")
SHAPES = ("uniform", "bump", "Gaussian")
SHOWN = 500  # samples of a frame
GAME_REACH, MOST_SHIFT = 2.5, 1.5
FIT_FRAMES, FRAME_SECONDS = 30, 0.1


def lines(x, columns: dict[str, np.ndarray], most: float = math.inf, thin: int = 1) -> dict:
    """Columns of numbers as `charts.curves` takes them, each `thin`-th, with a gap where they are further than `most`
    from zero or not finite."""
    return {
        name: [
            (float(a), float(b) if abs(b) <= most else math.nan) for a, b in zip(x[::thin], column[::thin], strict=True)
        ]
        for name, column in columns.items()
    }


# Mode collapse


def heat(field: np.ndarray) -> Image.Image:
    """(N, N) in [0, 1] as a picture to see through: orange where it is 1, blue where it is 0, nothing at one half."""
    picture = np.zeros((*field.shape, 4), dtype=np.uint8)
    picture[..., :3] = np.where(field[..., None] > 0.5, (234, 88, 12), (37, 99, 235))
    picture[..., 3] = 200 * np.abs(2 * field - 1)
    return Image.fromarray(picture).resize((200, 200), Image.Resampling.BILINEAR)


def mode_figure(step, data: str) -> str:
    reach = laboratory.REACH
    return plane(
        f"{step.modes} modes covered",
        dots(laboratory.CENTRES[data], reach, "data", 13),
        dots(step.samples[:SHOWN], reach),
        ground=heat(step.field),
    )


@one_job
def laboratory_modes(
    data: str, num_steps: int, n_critic: int, seed: int, new_seed: bool
) -> Iterator[tuple[str, str, str, str, int]]:
    """Train a GAN and a WGAN-GP on Gaussians in the plane, in turn, and count the modes that each covers.

    Args:
        data: "ring of 8" or "grid of 25".
        num_steps: steps of the generator, 50 to 3000.
        n_critic: steps of the discriminator for each of them, 1 to 10.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        Figures (SVG) of the GAN and of the WGAN-GP, modes covered against steps, where training is, and the seed;
        again as it goes.
    """
    one_of("data", data, DATA)
    steps = whole("num_steps", num_steps, 50, 3_000)
    n_critic = whole("n_critic", n_critic, 1, 10)
    seed = seed_of(seed, new_seed)
    runs = [laboratory.train_on_modes(o, data, steps, n_critic, seed, every=25) for o in laboratory.OBJECTIVES]
    covered: dict[str, list] = {name: [] for name in laboratory.OBJECTIVES}
    for gan, wgan in zip(*runs, strict=True):
        for name, step in zip(covered, (gan, wgan), strict=True):
            covered[name].append((step.step, step.modes))
        text = (
            f"step **{gan.step}** of {steps}. GAN: **{gan.modes}** of {len(laboratory.CENTRES[data])} modes, "
            f"{gan.good:.0%} of its samples on one. WGAN-GP: **{wgan.modes}**, {wgan.good:.0%}."
        )
        curve = charts.curves(covered, "steps of the generator", "modes covered")
        yield mode_figure(gan, data), mode_figure(wgan, data), curve, text, seed


# The game x y


def laboratory_game(x: float, y: float, rate: float, num_steps: int) -> tuple[str, str, str]:
    """Play min over x, max over y of x y by gradient steps, in three ways.

    Args:
        x: where x starts, -2 to 2.
        y: where y starts, -2 to 2.
        rate: length of a step, 0.01 to 0.5.
        num_steps: 1 to 1000.

    Returns:
        A figure (SVG) of the three paths, one of the distance to the equilibrium, and how far each ends from it.
    """
    start = float(bounded("x", x, -2, 2)), float(bounded("y", y, -2, 2))
    rate, steps = float(bounded("rate", rate, 0.01, 0.5)), whole("num_steps", num_steps, 1, 1_000)
    if start == (0, 0):
        raise user_error("x and y are both 0: that is the equilibrium, where nothing moves. Start elsewhere.")
    paths = {method: laboratory.bilinear_game(method, start, rate, steps) for method in METHODS}
    drawn, distance = "", {}
    for number, (method, path) in enumerate(paths.items()):
        inside = list(itertools.takewhile(lambda p: np.abs(p).max() <= GAME_REACH, path))
        places = "L".join(f"{a:.1f} {b:.1f}" for a, b in on_plane(inside, GAME_REACH))
        drawn += f'<path class="curve thin curve-{number}" d="M{places}"/>'
        distance[method] = np.linalg.norm(path, axis=1)
    cross = dots([(0.0, 0.0)], GAME_REACH, "data", 6) + dots([start], GAME_REACH, "", 7)
    text = "After the last step the distance to the equilibrium is " + ", ".join(
        f"**{d[-1] / d[0]:.3g}** times what it was ({method})" for method, d in distance.items()
    )
    figure = charts.curves(
        lines(np.arange(steps + 1), distance, 3 * float(distance["alternating"].max())), "steps", "distance"
    )
    return plane("paths of x and y", drawn, cross), figure, text + "."


# The optimal discriminator


@one_job
def laboratory_discriminator(densities: str, num_steps: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """Train a discriminator on two known densities and watch it come to p / (p + p_g).

    Args:
        densities: "one beside the other", "one inside the other", "two hills and one" or "the same twice".
        num_steps: 100 to 5000.
        seed: 0 to 2147483647.

    Returns:
        A figure (SVG) of the densities with both discriminators, one of the value of the game, and the numbers; again
        as it goes.
    """
    one_of("densities", densities, DENSITIES)
    steps, seed = whole("num_steps", num_steps, 100, 5_000), seed_of(seed, False)
    p, q = laboratory.DENSITIES[densities]
    x = laboratory.LINE
    log_p, log_q = p.log_prob(x), q.log_prob(x)
    both = np.exp(log_p) + np.exp(log_q)
    there = both > 0.01 * both.max()
    best = laboratory.optimal_discriminator(np.exp(log_p), np.exp(log_q))
    divergence = laboratory.jensen_shannon(log_p, log_q, x)
    bound, values = 2 * divergence - 2 * laboratory.LOG_2, []
    for step in laboratory.train_discriminator(p, q, steps, seed, every=50):
        values.append((step.step, step.value))
        error = np.abs(step.confidence - best)[there].max()
        columns = {"p": np.exp(log_p), "p_g": np.exp(log_q), "D trained": step.confidence, "p/(p + p_g)": best}
        figure = charts.curves(lines(x[there], {k: v[there] for k, v in columns.items()}, thin=8), "x", "")
        ends = {"value": values, "2 JS − 2 log 2": [(0, bound), (steps, bound)]}
        curve = charts.curves(ends, "steps of the discriminator", "", least=bound)
        text = (
            f"step **{step.step}** of {steps}. The value of the game is **{step.value:.4f}**; at most it can be "
            f"2 JS − 2 log 2 = **{bound:.4f}**, with JS = {divergence:.4f} nats. The discriminator is at most "
            f"**{error:.3f}** off, where there is data."
        )
        yield figure, curve, text.replace("-", "−")


# Sliding apart


@functools.lru_cache
def slid(shape: str):
    return laboratory.slide_apart(shape, np.linspace(-MOST_SHIFT, MOST_SHIFT, 61))


def laboratory_slide(shape: str, shift: float) -> tuple[str, str, str, str]:
    """Move a density away from itself: how far apart do four divergences say that it is, and which way back?

    Args:
        shape: "uniform", "bump" or "Gaussian".
        shift: -1.5 to 1.5.

    Returns:
        Figures (SVG) of the two densities, of the divergences against the shift, of their derivatives, and the numbers.
    """
    one_of("shape", shape, SHAPES)
    shift = float(bounded("shift", shift, -MOST_SHIFT, MOST_SHIFT))
    x = np.linspace(-2.2, 2.2, 441)
    two = {name: np.exp(laboratory.shape_log_prob(shape, x - s)) for name, s in (("p", 0), ("q", shift))}
    slide, here = slid(shape), laboratory.slide_apart(shape, [shift])
    left_out = {"KL(q||p)"}  # equal to the other by symmetry: the same line

    def figure(columns: dict, most: float, name: str) -> str:
        kept = {k: v for k, v in columns.items() if k not in left_out}
        return charts.curves(lines(slide.shifts, kept, most), "shift", name)

    table = "| | value | slope |\n|---|---|---|\n"
    for name, value in here.values.items():
        slope = here.gradients[name][0]
        shown = "∞" if math.isinf(value[0]) else f"{value[0]:.3f}"
        table += f"| {name} | {shown} | {'–' if math.isnan(slope) else f'{slope:.3f}'} |\n"
    return (
        charts.curves(lines(x, two), "x", "density"),
        figure(slide.values, 3, "divergence"),
        figure(slide.gradients, 8, "derivative"),
        table.replace("-0.000", "0.000").replace(" -", " −").replace("||", "‖"),
    )


# One Gaussian for two


@one_job
@unhurried(FRAME_SECONDS)
def laboratory_fit(distance: float, mean: float, deviation: float) -> Iterator[tuple[str, str]]:
    """Fit one Gaussian to two hills, by KL(p||q) and by KL(q||p).

    Args:
        distance: of each hill from the middle, 0.5 to 4.
        mean: where the Gaussian starts, -4 to 4.
        deviation: how wide it starts, 0.2 to 4.

    Returns:
        A figure (SVG) of the hills and of both fits, and their divergences; again as they move.
    """
    distance = float(bounded("distance", distance, 0.5, 4))
    start = float(bounded("mean", mean, -4, 4)), float(bounded("deviation", deviation, 0.2, 4))
    p = laboratory.Mixture((-distance, distance), (0.6, 0.6), (0.5, 0.5))
    paths = {d: laboratory.fit_gaussian(p, d, start) for d in laboratory.DIRECTIONS}
    x = laboratory.LINE
    here = np.abs(x) <= 7
    count = len(next(iter(paths.values())))
    for frame in np.unique(np.geomspace(1, count, FIT_FRAMES).astype(int)) - 1:
        columns, text = {"p": np.exp(p.log_prob(x))}, ""
        for name, path in paths.items():
            at = path[frame]
            columns[f"q by {name}"] = np.exp(laboratory.Mixture((at.mean,), (at.deviation,), (1.0,)).log_prob(x))
            text += (
                f"**{name}** = {max(at.divergence, 0):.3f} nats at mean {signed(at.mean, 2)}, "
                f"deviation {at.deviation:.2f}. "
            )
        shown = {k.replace("||", "‖"): v[here] for k, v in columns.items()}
        figure = charts.curves(lines(x[here], shown, most=1.5, thin=8), "x", "")
        yield figure, f"step {frame} of {count - 1}. " + text.replace("||", "‖")


# The page


COLLAPSE = """
Rings mark the Gaussians of the data. Where the ground is **orange** the discriminator takes a point for real, where it is
**blue** for made; of a critic the ground shows where its value is high and low. Networks, optimizer and steps are the
same on both sides: only the objective differs. A discriminator that is trained well tells the two so surely apart that
the generator learns nothing of the modes it has missed. With **one** step of the discriminator for each of the
generator's the GAN does better: try it.
"""
GAME = """
One player lowers $xy$ by moving $x$, the other raises it by moving $y$. The equilibrium is the middle, yet the gradient
never points there: it is always at a right angle to the way. **Simultaneous** steps spiral outwards, **alternating**
ones go around for ever, and **extragradient** steps, which look ahead by one, spiral inwards. Two networks in a game
can circle just so, with no loss that says that anything is wrong.
"""
DISCRIMINATOR = """
For data of density $p$ and samples of density $p_g$ the best discriminator is $D^*(x) = p / (p + p_g)$, and the value
of the game is then $2\\,\\mathrm{JS}(p, p_g) - 2\\log 2$. Here both densities are known, so both can be computed, and a
network trained on samples can be held against them. It never gets above the line; when $p_g = p$ all it can say is one
half.
"""
SLIDE = """
Two equal densities, one moved away. As soon as one is where the other is not, **KL** is infinite; once they do not overlap
at all, **Jensen-Shannon** stays at $\\log 2$, however far apart they are: its derivative is zero, and a generator that
follows it learns nothing. The **Wasserstein** distance says how far there is to go, and its derivative which way. (KL is
the same both ways here, and drawn once, where it is finite and below 3.)
"""
FIT = """
$\\mathrm{KL}(p\\|q)$ is infinite where $q$ misses a part of $p$: the fit covers both hills, and the valley that holds
nothing. $\\mathrm{KL}(q\\|p)$ is infinite where $q$ is and $p$ is not: the fit takes one hill and forgets the other.
Maximum likelihood is the first: it covers, and blurs. A model fitted by the second looks sharp, and leaves out. From a wide
start the second can end across both hills too, at a greater divergence: it has several optima.
"""


def before_training(data: str) -> tuple[str, str, str, str, bool]:
    """Both sides of the first tab as training finds them; no curve; and that there is something to see."""
    steps = [next(laboratory.train_on_modes(name, data, 1)) for name in laboratory.OBJECTIVES]
    return *(mode_figure(step, data) for step in steps), "", "Not trained yet.", True


def first_look(data: str, shown: bool):
    """The same when the tab is opened for the first time; later it keeps what it shows."""
    return [gr.skip()] * 5 if shown else before_training(data)


def tabs(opened: gr.Tab) -> None:
    """The five experiments, each a tab of the tab `opened`, and what happens in them."""
    quiet = {"api_visibility": "private"}
    fresh = {"trigger_mode": "always_last", "show_progress": "hidden", **quiet}
    with gr.Tab("Mode collapse"):
        with gr.Row():
            data = gr.Radio(list(DATA), value=DATA[0], label="Data")
            steps = gr.Slider(50, 3_000, 600, step=50, label="Steps of the generator")
            n_critic = gr.Slider(1, 10, 5, step=1, label="Discriminator steps for each")
            seed, new_seed = seed_controls("seed-modes")
        train = buttons("Train both", "train", stop=True)
        where = gr.Markdown(elem_id="where-modes")
        with gr.Row():
            with gr.Column(min_width=300):
                gr.Markdown("### GAN")
                left = gr.HTML(elem_id="modes-gan", min_height=280)
            with gr.Column(min_width=300):
                gr.Markdown("### WGAN-GP")
                right = gr.HTML(elem_id="modes-wgan", min_height=280)
        curve = gr.HTML(elem_id="modes-curve")
        gr.Markdown(COLLAPSE)
        job(train, laboratory_modes, [data, steps, n_critic, seed, new_seed], [left, right, curve, where, seed])
        shown = gr.State(False)
        opened.select(first_look, [data, shown], [left, right, curve, where, shown], **quiet)
        data.input(before_training, data, [left, right, curve, where, shown], **quiet)
    with gr.Tab("The game x y") as game_tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            with gr.Row():
                x = gr.Slider(-2, 2, 1, step=0.1, label="Start x", min_width=120)
                y = gr.Slider(-2, 2, 1, step=0.1, label="Start y", min_width=120)
            rate = gr.Slider(0.01, 0.5, 0.1, step=0.01, label="Length of a step")
            rounds = gr.Slider(1, 1_000, 200, step=1, label="Steps")
            play = buttons("Play", "play")
            gr.Markdown(GAME, latex_delimiters=MATH)
        with gr.Column(scale=3, min_width=300):
            ending = gr.Markdown(elem_id="ending")
            paths = gr.HTML(elem_id="paths", min_height=280)
            distance = gr.HTML(elem_id="distance")
        played = job(play, laboratory_game, [x, y, rate, rounds], [paths, distance, ending])
        for control in (x, y, rate, rounds):
            control.input(laboratory_game, *played, **fresh)
        game_tab.select(laboratory_game, *played, **quiet)
    with gr.Tab("Optimal discriminator"), gr.Row():
        with gr.Column(scale=2, min_width=300):
            densities = gr.Radio(list(DENSITIES), value=DENSITIES[0], label="Data and samples")
            updates = gr.Slider(100, 5_000, 2_000, step=100, label="Steps")
            seed2 = gr.Number(0, label="Seed", precision=0)
            watch = buttons("Train the discriminator", "watch", stop=True)
            gr.Markdown(DISCRIMINATOR, latex_delimiters=MATH)
        with gr.Column(scale=3, min_width=300):
            state = gr.Markdown(elem_id="state")
            confidence = gr.HTML(elem_id="confidence-curve", min_height=240)
            value = gr.HTML(elem_id="value-curve")
        job(watch, laboratory_discriminator, [densities, updates, seed2], [confidence, value, state])
    with gr.Tab("Sliding apart") as slide_tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            shape = gr.Radio(list(SHAPES), value=SHAPES[0], label="Shape")
            shift = gr.Slider(-MOST_SHIFT, MOST_SHIFT, 0.6, step=0.05, label="Shift", elem_id="shift")
            slide = buttons("Compare", "slide")
            numbers = gr.Markdown(elem_id="numbers")
            gr.Markdown(SLIDE, latex_delimiters=MATH)
        with gr.Column(scale=3, min_width=300):
            two = gr.HTML(elem_id="two", min_height=240)
            divergences = gr.HTML(elem_id="divergences")
            slopes = gr.HTML(elem_id="slopes")
        compared = job(slide, laboratory_slide, [shape, shift], [two, divergences, slopes, numbers])
        shape.input(laboratory_slide, *compared, **fresh)
        shift.input(laboratory_slide, *compared, **fresh)
        slide_tab.select(laboratory_slide, *compared, **quiet)
    with gr.Tab("One Gaussian for two") as fit_tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            hills = gr.Slider(0.5, 4, 2, step=0.1, label="Distance of each hill from the middle")
            mean = gr.Slider(-4, 4, 1, step=0.1, label="Mean to start from")
            deviation = gr.Slider(0.2, 4, 1, step=0.1, label="Deviation to start from")
            fit = buttons("Fit", "fit", stop=True)
            gr.Markdown(FIT, latex_delimiters=MATH)
        with gr.Column(scale=3, min_width=300):
            fits = gr.Markdown(elem_id="fits")
            curves = gr.HTML(elem_id="fit-curves", min_height=240)
        fitted = job(fit, laboratory_fit, [hills, mean, deviation], [curves, fits])
        fit_tab.select(laboratory_fit, *fitted, **quiet)
