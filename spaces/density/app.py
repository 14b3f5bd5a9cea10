"""The density Space: kernels, mixtures, flows, k-means and trees on points that anyone can draw, the same on a line, and digits."""

import density_digits
import density_flow
import density_kernels
import density_kmeans
import density_line
import density_mixture
import density_points
import density_tree
import gradio as gr
from density_models import FACTS, FLOW, KERNELS, KMEANS, MIXTURE, MODELS, TREE
from kit.facts import say_left_out
from kit.theme import MATH, explanation, launch, page

TITLE = "Density and clustering"
SENTENCE = "Where are the data, and how densely? Kernels, mixtures and flows answer with an exact log p(x)."
BRANCH = "classical"  # where the family tree puts it
TABS = (
    density_kernels, density_mixture, density_flow, density_kmeans, density_tree, density_line, density_digits,
)  # fmt: skip

THEORY = r"""
**Kernels** put a small Gaussian on every point. Its width, the bandwidth $h$, decides everything: too small and the
estimate believes only in the points it has seen, too large and it blurs what they have to say.

$$p(x) = \frac{1}{N} \sum_{i=1}^{N} \mathcal N(x;\, x_i,\, h^2 I)$$

A **mixture** has a few Gaussians in place of one for each point, each with a weight, a mean and a covariance:

$$p(x) = \sum_{k=1}^{K} w_k\, \mathcal N(x;\, m_k, S_k), \qquad
r_{ik} = \frac{w_k\, \mathcal N(x_i;\, m_k, S_k)}{p(x_i)}$$

**EM** computes the responsibilities $r_{ik}$ under the parameters so far, and then the parameters as the moments of the
points so shared out. No step lowers the likelihood. More components always fit the points they were fitted to better;
**BIC** $= -2 \log p(x_1, \dots, x_N) + (\text{parameters}) \log N$ asks what they cost.

A **flow** is an invertible network $f$ that bends space until the points look like a draw of $\mathcal N(0, I)$; what it
stretched on the way is the rest of the answer: $\log p(x) = \log \mathcal N(f(x); 0, I) + \log|\det \partial f/\partial x|$.
It has no shape of its own to fit and learns by gradient steps; the page of flows shows it layer by layer.

**K-means** gives each point to its nearest centre and moves each centre to the mean of its points: EM with hard
responsibilities and round Gaussians of one size. An **agglomerative tree** starts with every point by itself and merges
the two nearest clusters, again and again; a cut at any height turns it into clusters.

**PCA** keeps the few directions in which images differ most. A density of those, with white noise in all the others, is a
density of images: $\log p(x) = \log p(z) + \log \mathcal N(x - \hat x)$. All numbers here are exact, in nats; of digits
they are those of pixels in $[0, 256)$, so that bits per dimension compare with other models.

Parzen 1962, *On Estimation of a Probability Density Function and Mode*; Silverman 1986, *Density Estimation for
Statistics and Data Analysis*; Dempster, Laird and Rubin 1977, *Maximum Likelihood from Incomplete Data via the EM
Algorithm*; Schwarz 1978, *Estimating the Dimension of a Model*; Lloyd 1982, *Least Squares Quantization in PCM*; Ward 1963,
*Hierarchical Grouping to Optimize an Objective Function*; Tipping and Bishop 1999, *Probabilistic Principal Component
Analysis*. All of it is in Bishop 2006, *Pattern Recognition and Machine Learning*, chapters 2, 9 and 12.
"""
LEAD = f"""
# {TITLE}
The oldest question of statistics, **where are the data, and how densely?**, and six answers to it. Choose points, or
draw them, and watch each answer take shape. Kernels, mixtures and flows say exactly how probable every place is.
"""

with page("Genus: density and clustering") as demo:
    gr.Markdown(LEAD, latex_delimiters=MATH, elem_classes="lead")
    if not MODELS.first:
        gr.Markdown(
            "**No model is set.** `MODEL_ID` names one or several, separated by commas: Hub ids like `user/kde-2d`, or "
            "portable folders."
        )
    points = density_points.build(density_kernels.NAME)
    for tab in TABS:
        tab.build(demo, points)
    say_left_out(
        MODELS, FACTS, [*(kind.models for kind in (KERNELS, MIXTURE, FLOW, KMEANS, TREE)), *density_digits.OFFERED]
    )
    explanation(THEORY)

if __name__ == "__main__":
    launch(demo)
