"""The VAE Space: sample, reconstruct what you draw, walk through the latent space, and ask how likely a drawing is."""

import gradio as gr
import vae_likely
import vae_map
import vae_reconstruct
import vae_sample
import vae_styles
import vae_walk
from kit.theme import MATH, explanation, launch, page
from vae_common import MODELS

TITLE = "Variational autoencoder"
SENTENCE = "A decoder turns random numbers into images, an encoder says which numbers made an image."
BRANCH = "autoencoders"

THEORY = r"""
Both nets are trained at once by raising a lower bound on the likelihood of the data, the **ELBO**:

$$\log p(x) \;\ge\; \underbrace{\mathbb{E}_{q(z|x)} \log p(x|z)}_{\text{reconstruction}}
\;-\; \underbrace{\mathrm{KL}(q(z|x)\,\|\,\mathcal N(0, I))}_{\text{cost of the code}}$$

The first term asks that $z$ keeps what is needed to redraw $x$; the second asks that codes look like the random
numbers we sample with. Likelihoods are in nats: a model that is better by 1 nat gives the image $e$ times the
probability. Lower **temperature** keeps $z$ near zero: cleaner samples, less variety.

Kingma and Welling, *Auto-Encoding Variational Bayes*, [arXiv 1312.6114](https://arxiv.org/abs/1312.6114). The estimate
of the last tab: Burda, Grosse and Salakhutdinov, [arXiv 1509.00519](https://arxiv.org/abs/1509.00519), equation 8.
"""

with page("Genus: variational autoencoder") as demo:
    gr.Markdown(
        f"# {TITLE}\nA **decoder** turns 2 to 40 random numbers $z$ into an image; an **encoder** goes the other way "
        "and says which $z$ could have made it. Draw samples from the first, or watch the second read your handwriting.",
        latex_delimiters=MATH,
        elem_classes="lead",
    )
    model = MODELS.control()
    for tab in (vae_sample, vae_reconstruct, vae_walk, vae_map, vae_styles, vae_likely):
        tab.build(demo, model)
    explanation(THEORY)

if __name__ == "__main__":
    launch(demo)
