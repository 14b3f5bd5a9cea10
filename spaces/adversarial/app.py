"""The adversarial Space: sample, ten digits in one style, walk between codes, ask the discriminator, find a code, and the
laboratory that shows why such training fails."""

import adversarial_ask
import adversarial_digits
import adversarial_find
import adversarial_laboratory
import adversarial_sample
import adversarial_walk
import gradio as gr
from adversarial_common import MODELS
from kit.theme import MATH, explanation, launch, page

TITLE = "Adversarial networks"
SENTENCE = "A generator invents images, a discriminator tells them from real ones, and each learns from the other."
BRANCH = "adversarial"
TABS = (
    adversarial_sample, adversarial_digits, adversarial_walk, adversarial_ask, adversarial_find, adversarial_laboratory,
)  # fmt: skip

THEORY = r"""
Two networks play against each other. The **generator** $G$ turns random numbers $z$ into an image, the **discriminator**
$D$ says how probable it is that an image is real:

$$\min_G \max_D \; \mathbb{E}_{x} \log D(x) + \mathbb{E}_{z} \log(1 - D(G(z)))$$

In practice the generator raises $\log D(G(z))$ instead, which moves it when $D$ is sure (*non-saturating*). A
**Wasserstein** GAN has a **critic**, whose values have no bounds: what they differ by on data and on samples estimates how
far apart the two are, as long as it is nowhere steeper than 1. A penalty that pulls its slope to 1 sees to that:

$$\max_C \; \mathbb{E}_{x}\, C(x) - \mathbb{E}_{z}\, C(G(z)) - \lambda\, \mathbb{E}_{\hat x} (\|\nabla C(\hat x)\| - 1)^2$$

A **conditional** GAN gives the class to both. None of them can say how probable an image is: what $G$ draws lies on a
surface of at most as many dimensions as $z$ has, and on all other images there is nothing to compute.

Goodfellow et al., *Generative Adversarial Networks*, [arXiv 1406.2661](https://arxiv.org/abs/1406.2661); the penalty:
Gulrajani et al., [arXiv 1704.00028](https://arxiv.org/abs/1704.00028); classes: Mirza and Osindero,
[arXiv 1411.1784](https://arxiv.org/abs/1411.1784).
"""

with page("Genus: adversarial networks") as demo:
    gr.Markdown(
        f"# {TITLE}\nA **generator** turns random numbers $z$ into images; a **discriminator** tries to tell them from real "
        "ones. Neither has a loss that only falls. See what comes of it, and in the laboratory why it so often fails.",
        latex_delimiters=MATH,
        elem_classes="lead",
    )
    model = MODELS.control()
    for tab in TABS:
        tab.build(demo, model)
    explanation(THEORY)

if __name__ == "__main__":
    launch(demo)
