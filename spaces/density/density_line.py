"""One line: a histogram, kernels and a mixture beside the truth."""

import functools
import math

import density_playground as playground
import gradio as gr
import numpy as np
from density_kernels import LEAST_LOG, MOST_LOG, RULES, bandwidth_controls, by_hand, log_bandwidth_of
from density_models import KERNELS, MIXTURE, MOST_COMPONENTS, fitting, or_user_error, say_missing, tensor_of
from density_points import LIVE, MOST_POINTS, MOST_STEPS, QUIET, Points, check_count
from kit.bounds import MAX_SEED, bounded, one_of, whole
from kit.charts import curves, signed
from kit.controls import seed_number
from kit.jobs import buttons, job, one_job, opening

NAME = "One line"
NOTE = """
A histogram has edges where there are none in the data, and calls **impossible** what it has not seen. Kernels and mixtures
never do, though far outside a Gaussian comes close: compare them on heavy tails.
"""


@functools.lru_cache(maxsize=32)
def line_points(shape: str, count: int, seed: int, fresh: bool = False) -> np.ndarray:
    return playground.LINES[shape].draw(count, np.random.default_rng([seed, int(fresh)]))


@one_job
def density_line(
    shape: str, count: int, seed: int, bins: int, rule: str, log_bandwidth: float, components: int, x: float
) -> tuple[str, str, float]:
    """Estimate a density on the line by a histogram, by kernels and by a mixture, beside the truth.

    Args:
        shape: "two bumps", "skewed", "uniform steps" or "heavy tails".
        count: how many points, 2 to 1000.
        seed: 0 to 2147483647.
        bins: of the histogram, 1 to 100.
        rule: of the kernels' bandwidth: "by hand", "Scott", "Silverman" or "held-out".
        log_bandwidth: its logarithm to base 10 for "by hand", -1.7 to 0.5.
        components: of the mixture, 1 to 12.
        x: where to ask for log p, -10 to 10.

    Returns:
        A figure (SVG), a table of log p at x and on fresh points, and the logarithm of the bandwidth.
    """
    line = playground.LINES[one_of("shape", shape, playground.LINES)]
    count, seed = whole("count", count, 2, MOST_POINTS), whole("seed", seed, 0, MAX_SEED)
    bins, x = whole("bins", bins, 1, 100), float(bounded("x", x, -10, 10))
    components = check_count("components", components, (shape, count))
    log_bandwidth = log_bandwidth_of(log_bandwidth)
    values = line_points(shape, count, seed)
    histogram, points = playground.Histogram.of(values, bins), tensor_of(values[:, None])
    kde = or_user_error(fitting(KERNELS).fit, points, RULES[one_of("rule", rule, RULES)] or 10**log_bandwidth)
    mixture = or_user_error(fitting(MIXTURE).fit, points, components, max_iter=MOST_STEPS, reg_covar=1e-4, seed=seed)
    estimates = {
        "kernels": lambda at: kde.log_prob(tensor_of(at[:, None])).double().numpy(),
        "truth": line.log_prob,
        "mixture": lambda at: mixture.log_prob(tensor_of(at[:, None])).double().numpy(),
    }
    there = np.linspace(line.low, line.high, 361)
    drawn = {name: np.exp(log_prob(there)) for name, log_prob in estimates.items()}
    top = 1.6 * drawn["truth"].max()  # above it, an estimate believes in single points
    series = {n: [(float(a), float(min(b, top))) for a, b in zip(there, p, strict=True)] for n, p in drawn.items()}
    bars = [
        (max(float(a), line.low), min(float(b), line.high), min(float(h), top))
        for a, b, h in zip(histogram.edges, histogram.edges[1:], histogram.heights, strict=False)
        if h > 0 and b > line.low and a < line.high
    ]
    here = ("x", x) if line.low <= x <= line.high else None
    figure = curves(series, "x", "density", bars=bars, here=here)
    fresh = line_points(shape, 2_000, seed, True)
    h = kde.bandwidth.item()
    rows = {
        "truth": "the truth",
        "histogram": f"histogram, {len(histogram.heights)} bins",
        "kernels": f"kernels, h = {h:.3f}",
        "mixture": f"mixture of {components}",
    }
    table = f"| | log p({signed(x, 2)}) | fresh points |\n|---|---|---|\n"
    for name, title in rows.items():
        log_prob = estimates.get(name, histogram.log_prob)
        mean = float(log_prob(fresh).mean())
        table += f"| {title} | {format_nats(float(log_prob(np.array([x]))[0]))} | {format_nats(mean)} |\n"
    missed = int(np.isinf(histogram.log_prob(fresh)).sum())
    table += "\nNats, exact; of fresh points the mean of 2,000 that no estimate has seen."
    if missed:
        table += f" {missed} of them fall where the histogram has nothing: it called them impossible."
    outside = int(((values < line.low) | (values > line.high)).sum())
    if outside:
        table += f" {outside} of the {count} points lie outside of the figure."
    slider = round(min(max(math.log10(h), LEAST_LOG), MOST_LOG), 2)
    return figure, table, log_bandwidth if rule == "by hand" else slider


def format_nats(value: float) -> str:
    return "−∞" if value == -math.inf else signed(value, 3)


def build(demo: gr.Blocks, points: Points) -> None:
    """The tab, on the page `demo`; it has points of its own."""
    with gr.Tab(NAME) as tab:
        say_missing(KERNELS, MIXTURE)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                shape = gr.Radio(list(playground.LINES), value="two bumps", label="Density")
                with gr.Row():
                    count = gr.Slider(2, MOST_POINTS, 200, step=1, label="Points", scale=2, min_width=160)
                    seed = seed_number(0, "Seed", scale=1, min_width=80)
                bins = gr.Slider(1, 100, 24, step=1, label="Bins of the histogram")
                components = gr.Slider(1, MOST_COMPONENTS, 2, step=1, label="Components of the mixture")
                rule, log_bandwidth = bandwidth_controls("line")
            with gr.Column(scale=3, min_width=300):
                figure = gr.HTML(elem_id="line-figure", min_height=160)
                at = gr.Slider(-10, 10, 0, step=0.05, label="x", elem_id="line-x")
                table = gr.Markdown(elem_id="line-table")
                measure = buttons("Estimate", "measure")
                gr.Markdown(NOTE)

    given = [shape, count, seed, bins, rule, log_bandwidth, components, at]
    measured = job(measure, density_line, given, [figure, table, log_bandwidth])
    points.shown_in(tab, NAME, False)
    log_bandwidth.input(lambda: "by hand", None, rule, queue=False, show_progress="hidden", **QUIET)
    log_bandwidth.input(by_hand(density_line, 4), *measured, **LIVE, **QUIET)
    for control in (shape, count, bins, components, rule, at):
        control.input(density_line, *measured, **LIVE, **QUIET)
    if KERNELS.models and MIXTURE.models:
        opening(tab).success(density_line, *measured, **QUIET)
