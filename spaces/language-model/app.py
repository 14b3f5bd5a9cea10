"""The language Space: what comes next and how probable it is, text as it is written, how a text surprises, the tree of
continuations, and what examples in the prompt do."""

import gradio as gr
import language_model_next
import language_model_score
import language_model_shots
import language_model_tree
from kit.theme import explanation, launch, page
from language_model_common import MODELS

TITLE = "Language model"
SENTENCE = "A text's probability is the product of each token's, given those before it."
BRANCH = "language"

THEORY = r"""
A language model is a table that is too large to write down: for every beginning of a text, the probability of each token
that may come next. A token is a character, or a piece of a word. The probability of all tokens of a text follows by the
chain rule, exactly (a text can be cut into pieces of words in several ways; the usual one is counted):

$$\log P(x) = \sum_l \log P(x_l \mid x_1 \ldots x_{l-1})$$

A transformer computes those conditionals; a mask lets each place see what stands before it and nothing that follows.
Training raises $\log P$ of a corpus, and nothing else.

**Sampling** draws a token, writes it down and asks again. *Temperature* $T$ divides the logits: $P_T \propto P^{1/T}$.
*Top-k* keeps the $k$ likeliest, *top-p* the fewest that together reach $p$ (Holtzman et al.,
[arXiv 1904.09751](https://arxiv.org/abs/1904.09751)), *min-p* those that are at least that share of the likeliest
([arXiv 2407.01082](https://arxiv.org/abs/2407.01082)).

**Perplexity** is $e^{-\frac1N \log P(x)}$: between so many equally likely tokens the model could not decide. **Bits per
byte**, $-\log_2 P(x)$ for each byte of the text, compares models whose tokens differ.

Radford et al., *Improving Language Understanding by Generative Pre-Training* (2018); examples in the prompt: Brown et al.,
[arXiv 2005.14165](https://arxiv.org/abs/2005.14165); chains of thought: Wei et al.,
[arXiv 2201.11903](https://arxiv.org/abs/2201.11903).
"""

with page(TITLE) as demo:
    gr.Markdown(f"# {TITLE}\n{SENTENCE}", elem_classes="lead")
    model = MODELS.control()
    for tab in (language_model_next, language_model_score, language_model_tree, language_model_shots):
        tab.build(demo, model)
    explanation(THEORY)

if __name__ == "__main__":
    launch(demo)
