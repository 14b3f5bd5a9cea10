"""Two flows that learn the same points, live: one by log p(x), one without its term log |det|."""

from __future__ import annotations  # torch.Tensor is named before torch is there

from collections.abc import Iterator

import gradio as gr
import numpy as np
from flows_models import OF_POINTS, QUIET, flow_of_points, points_model, tensor_of
from kit import maps
from kit.bounds import MAX_SEED, one_of, whole
from kit.charts import curves, signed
from kit.controls import seed_number
from kit.jobs import Pace, buttons, job, one_job, opening
from kit.lazy import LazyModule
from kit.learning import learn, small_network
from kit.theme import MATH
from kit.toy_points import TOYS

torch = LazyModule("torch")

MOST_STEPS, ROWS = 1_000, 5_000
FIELD = 80  # places a side at which the density is asked
LOSSES = {"with": lambda out: -out.log_prob, "without": lambda out: out.log_det - out.log_prob}
LEAST = -14.0  # nats that the curve reaches down to
NOTE = """
$$\\log p(x) = \\log \\mathcal N(f(x);\\, 0, I) + \\log|\\det \\tfrac{\\partial f}{\\partial x}|$$

The first term alone is highest where $f(x) = 0$. A flow that is taught by it alone **shrinks all data to one point**: its
codes get ever likelier under $\\mathcal N(0, I)$, and the density that it gives the data falls, since it squeezed the space
around them. $\\log|\\det|$ counts that squeezing: with it, what is gained at the code is paid for in volume.
"""


def view(flow, held_out: torch.Tensor) -> tuple[str, np.ndarray, dict[str, float]]:
    """The codes of points, log p of the plane, and the two terms of log p."""
    with torch.no_grad():
        out = flow(held_out)
        field = flow(tensor_of(maps.places(FIELD))).log_prob.view(FIELD, -1).numpy()
    codes = maps.screen("codes of points", maps.unit_circles(), maps.spots(out.z[:500].numpy(), "#38bdf8", 4.5))
    log_det = out.log_det.mean().item()
    terms = {"log N": out.log_prob.mean().item() - log_det, "log det": log_det, "std": out.z.std().item()}
    return maps.as_figure(codes), np.nan_to_num(field, nan=-1e3, neginf=-1e3), terms


@one_job(cost="training")
def flow_training(
    model: str, data: str, transform: str, steps: int, seed: int
) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Train two small flows on points of the plane: one by log p(x), the other without the term log |det|.

    Args:
        model: a flow on points of the plane, whose class is trained anew.
        data: "ring", "grid", "moons", "spiral" or "checkerboard".
        transform: what a layer does, "spline" or "affine".
        steps: of training, 1 to 1000, 256 points each.
        seed: of the points and of the flows, 0 to 2147483647.

    Returns:
        Of both flows the codes of 500 points and the density of the plane (SVG), a table of the terms of log p, and
        log p of held-out points so far (SVG); again for some of the steps.
    """
    pipe = flow_of_points(model)
    one_of("data", data, TOYS)
    one_of("transform", transform, ("spline", "affine"))
    steps, seed = whole("steps", steps, 1, MOST_STEPS), whole("seed", seed, 0, MAX_SEED)
    points, held_out = (
        tensor_of(TOYS[data](count, np.random.default_rng([seed, part]))[0]) for part, count in ((0, ROWS), (1, 1_000))
    )
    flows = {kind: small_network(pipe, transform, points, seed) for kind in LOSSES}
    made = zip(*(learn(flow, points, steps, seed, LOSSES[kind]) for kind, flow in flows.items()), strict=True)
    lines = {"with log |det|": [], "without": []}
    pace = Pace(10, seconds=0.4)

    def shown(at: int):
        found = {kind: view(flow, held_out) for kind, flow in flows.items()}
        highest = found["with"][1].max()  # one scale for both
        figures = []
        for codes, field, _ in found.values():
            ground = maps.ground(field, highest=highest)
            figures += [codes, maps.as_figure(maps.screen("log p(x)", ground=ground))]
        for line, (_, _, terms) in zip(lines.values(), found.values(), strict=True):
            line.append((at, max(terms["log N"] + terms["log det"], LEAST)))
        rows = [f"| step {at} of {steps} | with log \\|det\\| | without |", "|---|---|---|"]
        for what, value in (
            ("log N(z; 0, I)", lambda t: signed(t["log N"], 2)),
            ("log \\|det\\|", lambda t: signed(t["log det"], 2)),
            ("**log p(x)**, their sum", lambda t: f"**{signed(t['log N'] + t['log det'], 2)}**"),
            ("standard deviation of z", lambda t: f"{t['std']:.4f}"),
        ):
            rows.append(f"| {what} | {value(found['with'][2])} | {value(found['without'][2])} |")
        least = min(y for line in lines.values() for _, y in line)
        curve = curves(lines, "steps", "log p, nats", least=least)
        return *figures, "\n".join(rows), curve

    yield shown(0)
    for step, _ in made:
        if pace.due(step):
            yield shown(step.step + 1)


def build(demo: gr.Blocks) -> None:
    with gr.Tab("Without log |det|") as tab:
        with gr.Row():
            figures = []
            for title in ("By log p(x)", "Without log |det|"):
                with gr.Column(min_width=300):
                    gr.Markdown(f"### {title}")
                    with gr.Row():
                        for what in ("codes", "density"):
                            named = f"{'with' if title.startswith('By') else 'without'}-{what}"
                            figures.append(gr.HTML(elem_id=named, min_height=140, min_width=140))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                model = points_model("training-model")
                data = gr.Radio(list(TOYS), value="moons", label="Points")
                transform = gr.Radio(["affine", "spline"], value="affine", label="A layer")
                with gr.Row():
                    steps = gr.Slider(1, MOST_STEPS, 300, step=1, label="Steps", min_width=160, scale=2)
                    seed = seed_number(0, "Seed", min_width=90)
                train = buttons("Train both", "train", stop=True)
            with gr.Column(scale=3, min_width=300):
                table = gr.Markdown(elem_id="terms", elem_classes="table")
                curve = gr.HTML(elem_id="curve-training", elem_classes="narrow")
        gr.Markdown(
            "Left of each pair the **codes** of 500 points, on circles of one and two standard deviations; right the "
            "**density** that the flow gives the plane, in the colours of the first.\n" + NOTE,
            latex_delimiters=MATH,
        )
    trained = job(train, flow_training, [model, data, transform, steps, seed], [*figures, table, curve])
    if OF_POINTS:
        opening(tab).success(flow_training, *trained, **QUIET)
