"""The tab on the next token: how probable each is, and text as it is written."""

from __future__ import annotations

import math
from collections.abc import Iterator

import gradio as gr
from kit.bounds import bounded, seed_of, whole
from kit.controls import seed_controls
from kit.errors import user_error
from kit.jobs import Pace, buttons, job, one_job
from kit.lazy import LazyModule
from kit.words import escaped, short
from language_model_common import LATEST, MODELS, QUIET, openings_of, refusals_shown, text_of
from language_model_views import TokenBars, percent, visible

torch = LazyModule("torch")
MOST_BARS, MOST_TOKENS = 30, 2_000


def filters_of(temperature, top_k, top_p, min_p) -> dict:
    """What a pipeline takes; 0 as top-k leaves it out."""
    return {
        "temperature": float(bounded("temperature", temperature, 0, 5)),
        "top_k": whole("top_k", top_k, 0, 100_000) or None,
        "top_p": float(bounded("top_p", top_p, 1e-6, 1)),
        "min_p": float(bounded("min_p", min_p, 0, 1)),
    }


def rows_of(pipe, found, count: int) -> list[dict]:
    """The likeliest tokens as bars."""
    shown = zip(
        found.token_ids[:count].tolist(), found.probs[:count].tolist(), found.log_probs[:count].tolist(), strict=True
    )
    return [
        {
            "id": i,
            "text": visible(pipe.token_text(i)),
            "prob": p,
            "raw": math.exp(lp),
            "said": percent(p),
            "writes": pipe.writes(i),
        }
        for i, p, lp in shown
    ]


def about(pipe, found, read: int) -> str:
    """What a distribution amounts to."""
    probs = found.probs[found.probs > 0].double()
    bits = float(-(probs * probs.log2()).sum())
    seen = f"the last {pipe.context_length:,} of {read:,} tokens" if read > pipe.context_length else f"{read:,} tokens"
    return (
        f"Given {seen}: **{len(probs):,}** of {len(found.probs):,} tokens can come next; the choice is worth "
        f"**{max(bits, 0):.2f} bits**, as much as one of {2 ** max(bits, 0):.1f} equally likely ones."
    )


def lm_next(
    model: str, prompt: str, count: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[list[dict], str]:
    """The likeliest next tokens after a prompt, with their probabilities.

    Args:
        model: one of the page's models.
        prompt: a text; of one longer than the context, its end is read.
        count: how many tokens, 1 to 30.
        temperature: 0 to 5; 0 leaves the likeliest alone.
        top_k: keep so many, 0 keeps all.
        top_p: keep the fewest that reach this, above 0, at most 1.
        min_p: keep those of at least this share of the likeliest one's probability, 0 to 1.

    Returns:
        For each token its id, its text, "prob" after the filters and "raw" as the network has it; and a summary.
    """
    pipe, count = MODELS[model], whole("count", count, 1, MOST_BARS)
    prompt, filters = text_of("prompt", prompt), filters_of(temperature, top_k, top_p, min_p)
    with refusals_shown():
        found = pipe.next_token(prompt, **filters)
        return rows_of(pipe, found, count), about(pipe, found, len(pipe.encode(prompt)))


@one_job(cost="heavy")
def lm_write(
    model: str,
    prompt: str,
    tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    seed: int,
    new_seed: bool,
) -> Iterator[tuple[str, str, int]]:
    """Continue a prompt by drawing one token after another.

    Args:
        model: one of the page's models.
        prompt: a text to go on with.
        tokens: how many, 1 to 2000.
        temperature: 0 to 5; 0 takes the likeliest.
        top_k: keep so many, 0 keeps all.
        top_p: keep the fewest that reach this, above 0, at most 1.
        min_p: keep those of at least this share of the likeliest one's probability, 0 to 1.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        The text so far, how far it is, and the seed; again as it is written.
    """
    pipe, prompt = MODELS[model], text_of("prompt", prompt)
    tokens = whole("tokens", tokens, 1, MOST_TOKENS)
    filters, seed = filters_of(temperature, top_k, top_p, min_p), seed_of(seed, new_seed)
    with refusals_shown():
        stream = pipe.stream(prompt, tokens, generator=torch.Generator().manual_seed(seed), **filters)
    pace = Pace()
    for step in stream:
        ended = step.ended[0] is not None
        if pace.due(step) or ended:
            said = f"token **{step.step + 1}** of {step.num_steps}"
            said += f"; the first {step.forgotten:,} are out of its sight" if step.forgotten else ""
            yield prompt + step.texts[0], said + ("; the text has come to its end" if ended else ""), seed


def append(model: str, prompt: str, chosen: int | None) -> str:
    """The prompt with the token whose bar was clicked."""
    pipe, prompt = MODELS[model], text_of("prompt", prompt)
    if chosen is None or not 0 <= chosen < pipe.model.config.vocab_size:
        raise user_error(f"token is {short(chosen)}; it must be one of the bars")
    with refusals_shown():
        return pipe.decode([*pipe.encode(prompt)[pipe.bos_token_id is not None :], chosen])


def quietly(*values) -> tuple[list[dict], str]:
    """`lm_next` while someone is typing: what is wrong stands where the answer would, and does not pop up."""
    try:
        return lm_next(*values)
    except gr.Error as error:
        return [], f"*{escaped(error.message)}*"


def opened_with(model: str) -> tuple[gr.Radio, str]:
    """What the tab starts with, for a model."""
    known = openings_of(model)
    return gr.Radio(known, value=known[0]), known[0]


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    gr.api(lm_next, api_name="lm_next")  # before the tab: tabs with something between them are two rows of tabs
    with gr.Tab("Next token"):
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                begin = openings_of(MODELS.first)
                prompt = gr.Textbox(begin[0], lines=9, max_lines=16, label="Text", elem_id="prompt")
                write = buttons("Write on", "write", stop=True)
                progress = gr.Markdown(elem_id="progress")
                opening = gr.Radio(begin, value=begin[0], label="Openings")
            with gr.Column(scale=3, min_width=300):
                gr.Markdown(
                    "**Click a bar to write it.** Filled: after temperature and filters. The dark mark: the network itself."
                )
                bars = TokenBars(elem_id="bars", min_height=300)
                facts = gr.Markdown(elem_id="facts")
        with gr.Row():  # below the bars, so that a phone shows these before the sliders
            temperature = gr.Slider(0, 2, 1, step=0.05, label="Temperature", min_width=150)
            top_k = gr.Slider(0, 50, 0, step=1, label="Top-k (0: all)", min_width=150)
            top_p = gr.Slider(0.05, 1, 1, step=0.05, label="Top-p", min_width=150)
            min_p = gr.Slider(0, 0.5, 0, step=0.01, label="Min-p", min_width=150)
        with gr.Accordion("Length, bars and seed", open=False), gr.Row():
            tokens = gr.Slider(1, MOST_TOKENS, 300, step=1, label="Tokens to write", min_width=200)
            count = gr.Slider(5, MOST_BARS, 12, step=1, label="Bars", min_width=200)
            seed, new_seed = seed_controls()
    setting = [temperature, top_k, top_p, min_p]
    seen = [model, prompt, count, *setting]
    job(write, lm_write, [model, prompt, tokens, *setting, seed, new_seed], [prompt, progress, seed])
    # whatever changes the text, typing, pasting, a bar or the model itself, changes the bars
    prompt.change(quietly, seen, [bars, facts], **LATEST)
    for control in (count, *setting):
        control.input(quietly, seen, [bars, facts], **LATEST)
    opening.input(lambda chosen: chosen, opening, prompt, **QUIET)
    bars.input(append, [model, prompt, bars], prompt, **LATEST)
    model.change(opened_with, model, [opening, prompt], **QUIET).success(quietly, seen, [bars, facts], **QUIET)
    if MODELS.first:
        demo.load(quietly, seen, [bars, facts], **QUIET)
