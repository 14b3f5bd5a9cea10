"""The diffusion Space: noise an image, watch noise become one, guide it, fill in what is missing, and see it in two
dimensions."""

import diffusion_complete
import diffusion_noise
import diffusion_points
import diffusion_quality
import diffusion_redraw
import diffusion_sample
import gradio as gr
from diffusion_models import FACTS, MODELS, OF_IMAGES, OF_POINTS, say_prediction
from kit.facts import say_left_out
from kit.theme import MATH, explanation, launch, page

TITLE = "Diffusion"
SENTENCE = "An image is noised bit by bit until nothing is left; a network learns the way back."
BRANCH = "diffusion"  # where the family tree puts it

THEORY = r"""
**Forwards**, noise is added in $T = 1000$ small steps, and any of them can be reached in one:

$$q(x_t|x_0) = \mathcal N(\sqrt{\bar\alpha_t}\, x_0,\; (1 - \bar\alpha_t) I)$$

**Backwards**, a network looks at $x_t$ and tells noise from image: it predicts the noise $\epsilon$, or $x_0$, or
$v = \sqrt{\bar\alpha_t}\,\epsilon - \sqrt{1 - \bar\alpha_t}\,x_0$, and with $x_t$ at hand each of them gives the others.
At first the $x_0$ it sees is the mean of all images it could be; each step moves $x_t$ a little towards it and asks
again.

**Ancestral sampling** (DDPM) takes all 1000 steps and adds fresh noise at each. **DDIM** and **DPM-Solver++** add none
after the first. If the network were perfect, their $x_t$ would have the same distribution at each $t$; but each sample
goes another way, from its first noise to an image of its own, and that way is smooth enough for few steps.

**Guidance** asks twice, with the class and without, and goes further in the direction in which they differ:
$\epsilon = \epsilon_\text{free} + w\,(\epsilon_\text{class} - \epsilon_\text{free})$, and so with $x_0$ and $v$. $w = 1$ is
the model itself; more makes digits more typical, and less varied.

Training lowers a bound on $-\log p(x)$, with one term for each step:

$$-\log p(x_0) \le \mathrm{KL}(q(x_T|x_0)\,\|\,\mathcal N(0, I)) + \sum_{t>1} \mathrm{KL}(q(x_{t-1}|x_t, x_0)\,\|\,
p(x_{t-1}|x_t)) - \log p(x_0|x_1)$$

Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models*, [arXiv 2006.11239](https://arxiv.org/abs/2006.11239);
DDIM: [arXiv 2010.02502](https://arxiv.org/abs/2010.02502); DPM-Solver++:
[arXiv 2211.01095](https://arxiv.org/abs/2211.01095); guidance: [arXiv 2207.12598](https://arxiv.org/abs/2207.12598);
filling in: RePaint, [arXiv 2201.09865](https://arxiv.org/abs/2201.09865).
"""

with page("Genus: diffusion") as demo:
    gr.Markdown(
        f"# {TITLE}\nAn image is **noised** until nothing of it is left; a network learns to tell the noise from the "
        "image. Asked again and again, it turns pure noise into an image. Every step can be seen here, and stopped.",
        latex_delimiters=MATH,
        elem_classes="lead",
    )
    if not MODELS.first:
        MODELS.control()
    model = gr.Dropdown(
        OF_IMAGES, value=next(iter(OF_IMAGES), None), label="Model", elem_id="model", visible=bool(MODELS.first)
    )
    say_prediction(model)
    for tab in (diffusion_sample, diffusion_noise, diffusion_complete, diffusion_redraw, diffusion_quality):
        tab.build(demo, model)
    diffusion_points.build()
    say_left_out(MODELS, FACTS, [OF_IMAGES, OF_POINTS])
    explanation(THEORY)

if __name__ == "__main__":
    launch(demo)
