"""The flows Space: a Gaussian bent into data layer by layer, the density that follows, and images whose codes lose nothing."""

import flows_density
import flows_digit
import flows_layers
import flows_sample
import flows_training
import flows_walk
import gradio as gr
from flows_models import DENSITIES, FACTS, MODELS, OF_IMAGES, OF_POINTS
from kit.facts import say_left_out
from kit.theme import MATH, explanation, launch, page

TITLE = "Flows"
SENTENCE = "An invertible network bends a Gaussian into data, and says exactly how likely each x is."
BRANCH = "flows"  # where the family tree puts it
TABS = (flows_layers, flows_density, flows_training, flows_sample, flows_digit, flows_walk)

THEORY = r"""
A flow is a network $f$ with an inverse. It takes data $x$ to a code $z = f(x)$, and the density of the data follows from
that of the codes by how much $f$ stretches space:

$$\log p(x) = \log \mathcal N(f(x);\, 0, I) + \log \left|\det \frac{\partial f}{\partial x}\right|$$

It is trained by raising $\log p(x)$ itself: nothing is bounded, no critic is asked. Samples are $x = f^{-1}(z)$ for draws
$z \sim \mathcal N(0, I)$.

**Coupling layers** keep both directions cheap. A small network sees half of the numbers and says how the other half is moved;
the first half stays, or each of it moves by itself. The Jacobian is triangular, so its determinant is a product. An
**affine** layer scales and shifts, a **spline** layer bends by a rising curve of rational-quadratic pieces. Many layers,
whose halves alternate, bend everything.

**Glow** does this with images: at each resolution the channels are normalised (actnorm), mixed by an invertible $1 \times 1$
convolution, and half of them moved; then half of the channels become code, and the rest goes on at half the resolution.
Pixels have 256 levels and no density: a place within each level is drawn, uniformly or by a small flow, and what the
flow says of it is a lower bound on the log-probability of the levels.

Dinh, Sohl-Dickstein and Bengio, *Density estimation using Real NVP*, [arXiv 1605.08803](https://arxiv.org/abs/1605.08803);
Durkan, Bekasov, Murray and Papamakarios, *Neural Spline Flows*, [arXiv 1906.04032](https://arxiv.org/abs/1906.04032);
Kingma and Dhariwal, *Glow*, [arXiv 1807.03039](https://arxiv.org/abs/1807.03039); Ho et al., *Flow++*,
[arXiv 1902.00275](https://arxiv.org/abs/1902.00275).
"""
LEAD = f"""
# {TITLE}
Take a cloud of Gaussian noise and **bend the space it lies in** until it has the shape of the data. Each bend can be undone,
so every image has one code, every code one image, and $\\log p(x)$ is a matter of counting how much was stretched.
"""

with page("Genus: flows") as demo:
    gr.Markdown(LEAD, latex_delimiters=MATH, elem_classes="lead")
    if not MODELS.first:
        gr.Markdown(
            "**No model is set.** `MODEL_ID` names one or several, separated by commas: Hub ids like `user/coupling-2d`, or "
            "portable folders."
        )
    for tab in TABS:
        tab.build(demo)
    say_left_out(MODELS, FACTS, [OF_POINTS, OF_IMAGES, DENSITIES])
    explanation(THEORY)

if __name__ == "__main__":
    launch(demo)
