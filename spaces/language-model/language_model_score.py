"""The tab on how surprising a text is, token by token."""

import math

import gradio as gr
from kit.charts import signed
from kit.jobs import buttons, job, opening
from kit.words import escaped
from language_model_common import MODELS, QUIET, TEXTS, refusals_shown, text_of
from language_model_views import coloured, percent, token_table, visible


def lm_score(model: str, text: str) -> tuple[str, str, str]:
    """How probable a text is, token by token.

    Args:
        model: one of the page's models.
        text: at most 20 000 characters.

    Returns:
        The text as HTML with a colour for each token, its sum, perplexity and bits per byte, and a table (HTML).
    """
    pipe = MODELS[model]
    with refusals_shown():
        found = pipe.score(text_of("text", text))
    values = found.log_probs.tolist()
    worst = sorted(zip(values, found.tokens, strict=True))[:5]
    names = ", ".join(f"<code>{escaped(visible(t))}</code> ({escaped(percent(math.exp(v)))})" for v, t in worst)
    said = (
        f"log P = **{signed(found.log_prob, 2)} nats** over {len(values):,} tokens; perplexity "
        f"**{found.perplexity:.2f}**; **{found.bits_per_byte:.3f} bits per byte**. Least expected: {names}."
    )
    return coloured(found.given, found.tokens, values), said, token_table(found.tokens, values)


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("How surprising") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            text = gr.Textbox(TEXTS.get(MODELS.first, ""), lines=10, max_lines=20, label="Text", elem_id="text")
            score = buttons("Measure", "score")
        with gr.Column(scale=3, min_width=300):
            said = gr.Markdown(elem_id="sum")
            colours = gr.HTML(elem_id="colours", min_height=160)
            with gr.Accordion("Token by token", open=False):
                table = gr.HTML(elem_id="token-table")
    scoring = job(score, lm_score, [model, text], [colours, said, table])
    model.change(lambda name: TEXTS.get(name, next(iter(TEXTS.values()))), model, text, **QUIET)
    opening(tab).success(lm_score, *scoring, **QUIET)  # not empty when it is opened
