"""The autoencoder Space: planes of codes and their holes, sampling with a density and without, denoising, tangents, a
hierarchy of codes, and factorisation into parts and tastes."""

import autoencoders_codes
import autoencoders_denoise
import autoencoders_levels
import autoencoders_parts
import autoencoders_sample
import autoencoders_tangents
import autoencoders_tastes
import gradio as gr
from autoencoders_models import FACTS, MODELS
from kit.facts import say_left_out
from kit.theme import MATH, explanation, launch, page

TITLE = "Autoencoders"
SENTENCE = "Codes of a few numbers: what they are good for, and what goes wrong where no one knows their density."
BRANCH = "autoencoders"  # where the family tree puts it
TABS = (
    autoencoders_codes,
    autoencoders_sample,
    autoencoders_denoise,
    autoencoders_tangents,
    autoencoders_levels,
    autoencoders_parts,
    autoencoders_tastes,
)

THEORY = r"""
An **autoencoder** is trained to bring an image back from a few numbers, its **code** $z = f(x)$:

$$\min_{f, g}\; \mathbb{E}_x \|x - g(f(x))\|^2$$

Nothing says where codes shall lie. $p(z)$ is whatever it has become, and between the codes the decoder $g$ was never
asked for anything. Three ways out: **fit a density** to the codes when training is done (here Gaussian kernels on
codes of the training set, or a Gaussian mixture; one for each class where the classes are known); **draw the codes to
a density** that was chosen, by their sliced Wasserstein distance from it, which along a random direction $\theta$ is
that of sorted numbers:

$$\lambda \; \mathbb{E}_\theta \sum_i \left(\theta^\top z_{(i)} -
\theta^\top \tilde z_{(i)}\right)^2,\qquad \tilde z \sim p(z)$$

or make **codes random** from the start, as a variational autoencoder does. What else codes can be asked for:

- **supervised**: $-\log p(y|z)$ of a linear classifier is added to the loss;
- **denoising**: the encoder sees a corrupted $\tilde x$ and must bring back $x$;
- **contractive**: $\lambda \|\partial f / \partial x\|_F^2$ is added: a code may change only where the data do. What
  is left of the Jacobian $J$ points along the data: its leading right singular vectors are **tangents** of their
  manifold.

A **hierarchical** variational autoencoder has codes above codes, $p(x|z_1)\, p(z_1|z_2) \cdots p(z_L)$: the top says
what it shall be, the levels below how. **Non-negative matrix factorisation** has no network at all:

$$X \approx W H,\qquad W \ge 0,\; H \ge 0$$

Each row of $X$ is a sum of the rows of $H$, and nothing is ever subtracted, so that they become parts. Entries that
are not known are left out of the error, and $W H$ then says what they might be: from images strokes, from ratings
tastes.

Hinton and Salakhutdinov, *Reducing the Dimensionality of Data with Neural Networks*,
[Science 313](https://doi.org/10.1126/science.1127647), 2006; sliced Wasserstein: Kolouri et al.,
[arXiv 1804.01947](https://arxiv.org/abs/1804.01947); denoising: Vincent et al.,
[ICML 2008](https://doi.org/10.1145/1390156.1390294); contractive: Rifai et al., ICML 2011, and its tangents, *The
Manifold Tangent Classifier*, NeurIPS 2011; codes above codes: Sønderby et al., [arXiv
1602.02282](https://arxiv.org/abs/1602.02282); parts: Lee and Seung, [Nature 401](https://doi.org/10.1038/44565), 1999;
missing entries: Koren, Bell and Volinsky, *Matrix Factorization Techniques for Recommender Systems*, IEEE Computer 42,
2009. """


with page("Genus: autoencoders") as demo:
    gr.Markdown(
        f"# {TITLE}\nAn **encoder** squeezes an image into a few numbers, its **code**; a **decoder** brings it back. "
        f"Codes sort, denoise and fill in. To draw new images from them one thing more is needed: to know where codes "
        f"lie.",
        latex_delimiters=MATH,
        elem_classes="lead",
    )
    if not MODELS.first:
        gr.Markdown(
            "**No model is set.** `MODEL_ID` names one or several, separated by commas: Hub ids like `user/ae-mnist`, "
            "or portable folders."
        )
    for tab in TABS:
        tab.build(demo)
    say_left_out(MODELS, FACTS, [tab.OFFERED for tab in TABS])
    explanation(THEORY)

if __name__ == "__main__":
    launch(demo)
