"""The laboratory's tab on mode collapse: a GAN and a WGAN-GP, trained side by side."""

from __future__ import annotations  # torch is not there while the page is read

from collections.abc import Iterator

import gradio as gr
import numpy as np
from adversarial_common import QUIET
from kit.bounds import one_of, seed_of, whole
from kit.charts import curves, dots, plane
from kit.controls import seed_controls
from kit.jobs import buttons, job, one_job, opening
from kit.lazy import LazyModule
from PIL import Image

laboratory = LazyModule("adversarial_training")  # which imports torch
DATA = ("ring of 8", "grid of 25")
SHOWN = 500  # samples of a frame
COLLAPSE = """
Rings mark the Gaussians of the data. Where the ground is **orange** the discriminator takes a point for real, where it is
**blue** for made; of a critic the ground shows where its value is high and low. Networks, optimizer and steps are the
same on both sides: only the objective differs. A discriminator that tells the two surely apart gives the generator of
a GAN little to learn from, and modes may stay missing; a critic's value still shows the way. Which of them does better
depends on the steps of the discriminator. Modes covered after 600 steps, with seeds 0, 1 and 2:

| | GAN | WGAN-GP |
|---|---|---|
| ring of 8, five discriminator steps | 4, 4, 8 | 8, 8, 8 |
| ring of 8, one | 8, 8, 8 | 0, 0, 1 |
| grid of 25, five | 20, 19, 19 | 22, 22, 18 |
| grid of 25, one | 7, 9, 7 | 2, 2, 3 |

A WGAN-GP needs several steps: its gradients are those of a distance only where the critic is trained well.
"""


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


@one_job(cost="training")
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
        curve = curves(covered, "steps of the generator", "modes covered")
        yield mode_figure(gan, data), mode_figure(wgan, data), curve, text, seed


def before_training(data: str) -> tuple[str, str, str, str, bool]:
    """Both sides of the first tab as training finds them; no curve; and that there is something to see."""
    steps = [next(laboratory.train_on_modes(name, data, 1)) for name in laboratory.OBJECTIVES]
    return *(mode_figure(step, data) for step in steps), "", "Not trained yet.", True


def when_opened(data: str, shown: bool):
    """The same when the tab is opened for the first time; later it keeps what it shows."""
    return [gr.skip()] * 5 if shown else before_training(data)


def build(opened: gr.Tab) -> None:
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
        opening(opened).success(when_opened, [data, shown], [left, right, curve, where, shown], **QUIET)
        data.input(before_training, data, [left, right, curve, where, shown], **QUIET)
