"""The language Space: what comes next and how probable it is, text as it is written, how a text surprises, the tree of
continuations, and what examples in the prompt do."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import gradio as gr
import textviews
from kit.bounds import bounded, one_of, seed_of, whole
from kit.charts import signed
from kit.controls import seed_controls
from kit.errors import user_error
from kit.jobs import Pace, buttons, job, one_job
from kit.lazy import LazyModule
from kit.models import Models
from kit.theme import explanation, launch, page
from textviews import percent

torch = LazyModule("torch")

TITLE = "Language model"
SENTENCE = "A text's probability is the product of each token's, given those before it."
BRANCH = "language"  # where the family tree puts it
MODELS = Models(("gpt-shakespeare", "gpt-python-docs"), "transformers")
MOST_LETTERS, MOST_BARS, MOST_TOKENS, MOST_LEAVES = 20_000, 30, 2_000, 64

OPENINGS = {
    "gpt-shakespeare": ["ROMEO:\nWhat ", "KING RICHARD III:\n", "To be, or not to be", "O Rom"],
    "gpt-python-docs": ['The "with" statement', "If the argument is a string, ", "Note:", "class "],
}
TEXTS = {
    "gpt-shakespeare": "ROMEO:\nBut, soft! what light through yonder window breaks?\nIt is the east, and Juliet is the sun.\n"
    "\nBENVOLIO:\nThe flight is delayed by forty minutes.",
    "gpt-python-docs": 'The "for" statement is used to iterate over the elements of a sequence.\n'
    "The cat is used to iterate over the mice of the garden.",
}
FORMATS = {"line below line": ("", ""), "Q: and A:": ("Q: ", "A: ")}  # before a question, before an answer
SHOTS = {  # examples, question, the answer that is hoped for
    "gpt-shakespeare": (
        "ROMEO: => Ay, my lord.\nJULIET: => Ay, my lord.\nTYBALT: => Ay, my lord.",
        "BENVOLIO:",
        "Ay, my lord.",
    ),
    "gpt-python-docs": ('"list" => a list.\n"dict" => a dict.\n"tuple" => a tuple.', '"set"', "a set."),
}

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


@contextlib.contextmanager
def told():
    """What a pipeline refuses, as a message to a person."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        raise user_error(text[:1].upper() + text[1:] + ".") from None


def text_of(name: str, value) -> str:
    value = value or ""
    if len(value) > MOST_LETTERS:
        raise user_error(f"{name} has {len(value):,} characters; at most {MOST_LETTERS:,} are read")
    return value


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
            "text": textviews.visible(pipe.token_text(i)),
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
    with told():
        found = pipe.next_token(prompt, **filters)
        return rows_of(pipe, found, count), about(pipe, found, len(pipe.encode(prompt)))


@one_job
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
    with told():
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
        raise user_error(f"token is {chosen!r}; it must be one of the bars")
    with told():
        return pipe.decode([*pipe.encode(prompt)[pipe.bos_token_id is not None :], chosen])


def lm_score(model: str, text: str) -> tuple[str, str, str]:
    """How probable a text is, token by token.

    Args:
        model: one of the page's models.
        text: at most 20 000 characters.

    Returns:
        The text as HTML with a colour for each token, its sum, perplexity and bits per byte, and a table (HTML).
    """
    pipe = MODELS[model]
    with told():
        found = pipe.score(text_of("text", text))
    values = found.log_probs.tolist()
    worst = sorted(zip(values, found.tokens, strict=True))[:5]
    names = ", ".join(f"`{textviews.visible(t)}` ({percent(math.exp(v))})" for v, t in worst)
    said = (
        f"log P = **{signed(found.log_prob, 2)} nats** over {len(values):,} tokens; perplexity "
        f"**{found.perplexity:.2f}**; **{found.bits_per_byte:.3f} bits per byte**. Least expected: {names}."
    )
    return textviews.coloured(found.given, found.tokens, values), said, textviews.token_table(found.tokens, values)


def lm_tree(model: str, prompt: str, depth: int, width: int) -> str:
    """The likeliest continuations as a tree, probabilities multiplied along its branches.

    Args:
        model: one of the page's models.
        prompt: a text to go on with.
        depth: tokens, 1 to 6.
        width: branches at each token, 1 to 6, so that there are at most 64 leaves.

    Returns:
        A figure (SVG).
    """
    pipe, depth, width = MODELS[model], whole("depth", depth, 1, 6), whole("width", width, 1, 6)
    if width**depth > MOST_LEAVES:
        raise user_error(
            f"{width} branches at each of {depth} tokens make {width**depth:,} leaves; at most {MOST_LEAVES} fit"
        )
    prompt = text_of("prompt", prompt)
    with told():
        return textviews.tree(prompt, pipe.tree(prompt, depth, width))


def examples_of(text: str) -> list[tuple[str, ...]]:
    """Lines like `question => answer`, or `question => reasoning => answer`."""
    found = []
    for number, line in enumerate(text.strip().splitlines(), 1):
        parts = tuple(part.strip() for part in line.split("=>"))
        if line.strip() and (len(parts) not in (2, 3) or not all(parts)):
            raise user_error(f"Line {number} of the examples is {line!r}; it must be like: question => answer")
        if line.strip():
            found.append(parts)
    return found


@one_job
def lm_shots(
    model: str, layout: str, instruction: str, examples: str, question: str, answer: str, step_by_step: bool
) -> tuple[str, str, str, str, str, str, str]:
    """The same question with no, one and all examples before it.

    Args:
        model: one of the page's models.
        layout: "Q: and A:" before questions and answers, or "line below line" with nothing before them.
        instruction: a text before all; may be empty.
        examples: a line each, "question => answer", or "question => reasoning => answer" to show a chain of thought.
        question: what is asked.
        answer: what is hoped for; its probability is returned.
        step_by_step: end the prompt with "Let's think step by step."

    Returns:
        Three prompts with what the model writes after them, what is said of each, and a summary.
    """
    pipe, shown = MODELS[model], examples_of(text_of("examples", examples))
    if not shown:
        raise user_error("There are no examples; give at least one line like: question => answer")
    question, answer = text_of("question", question).strip(), text_of("answer", answer).strip()
    if not question or not answer:
        raise user_error("Question and answer must not be empty.")
    template = FORMATS[one_of("layout", layout, FORMATS)]
    lead = " " if template[1] or step_by_step else ""  # what parts the prompt's end from the answer
    views, facts, chances = [], [], []
    for chosen in ((), shown[:1], shown):
        prompt = pipe.build_prompt(question, chosen, text_of("instruction", instruction), bool(step_by_step), template)
        with told():
            found = pipe.score(f"{lead}{answer}\n", prompt)
            written = pipe(prompt, 24, temperature=0, stop_strings="\n")["continuation"]
        views.append(f"{prompt}{written}")
        chances.append(found.log_prob)
        facts.append(
            f"P(“{answer}” and a new line) = **{percent(math.exp(found.log_prob))}** ({signed(found.log_prob, 2)} nats); it writes "
            f"“{written.strip()}”"
        )
    gain = chances[2] - chances[0]
    said = (
        f"The examples make the answer **{math.exp(min(abs(gain), 40)):,.3g} times** {'as' if gain >= 0 else 'less'} probable"
        f"{' as without' if gain >= 0 else ''}. Nothing was trained: they only stand in the prompt."
    )
    return *views, *facts, said


def quietly(*values) -> tuple[list[dict], str]:
    """`lm_next` while someone is typing: what is wrong stands where the answer would, and does not pop up."""
    try:
        return lm_next(*values)
    except gr.Error as error:
        return [], f"*{error.message}*"


def openings(model: str) -> tuple:
    """What a page starts with, for a model."""
    known = OPENINGS.get(model, ["The "])
    examples, question, answer = SHOTS.get(model, next(iter(SHOTS.values())))
    return (
        gr.Radio(known, value=known[0]), known[0], TEXTS.get(model, next(iter(TEXTS.values()))), known[-1], examples,
        question, answer,
    )  # fmt: skip


names = list(MODELS)
first = MODELS.first or ""
with page(TITLE) as demo:
    gr.Markdown(f"# {TITLE}\n{SENTENCE}", elem_classes="lead")
    model = MODELS.control()
    with gr.Tab("Next token"):
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                begin = OPENINGS.get(first, ["The "])
                prompt = gr.Textbox(begin[0], lines=9, max_lines=16, label="Text", elem_id="prompt")
                write = buttons("Write on", "write", stop=True)
                progress = gr.Markdown(elem_id="progress")
                opening = gr.Radio(begin, value=begin[0], label="Openings")
            with gr.Column(scale=3, min_width=300):
                gr.Markdown(
                    "**Click a bar to write it.** Filled: after temperature and filters. The dark mark: the network itself."
                )
                bars = textviews.TokenBars(elem_id="bars", min_height=300)
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
    with gr.Tab("How surprising") as score_tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            text = gr.Textbox(TEXTS.get(first, ""), lines=10, max_lines=20, label="Text", elem_id="text")
            score = buttons("Measure", "score")
        with gr.Column(scale=3, min_width=300):
            said = gr.Markdown(elem_id="sum")
            colours = gr.HTML(elem_id="colours", min_height=160)
            with gr.Accordion("Token by token", open=False):
                table = gr.HTML(elem_id="token-table")
    with gr.Tab("Tree") as tree_tab:
        with gr.Row():
            root = gr.Textbox(begin[-1], lines=2, label="Text", elem_id="root", scale=3, min_width=260)
            depth = gr.Slider(1, 6, 3, step=1, label="Tokens deep", min_width=130)
            width = gr.Slider(1, 6, 3, step=1, label="Branches at each", min_width=130)
        grow = buttons("Grow", "grow")
        branches = gr.HTML(elem_id="tree-of-tokens", min_height=300)
        gr.Markdown(
            "A line is as thick as its path is probable; at its end stands the product of the probabilities along it."
        )
    with gr.Tab("Zero, one, few") as shots_tab:
        given, asked, hoped = SHOTS.get(first, next(iter(SHOTS.values())))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                shown = gr.Textbox(given, lines=4, label="Examples: question => answer", elem_id="examples")
            with gr.Column(scale=1, min_width=220):
                question = gr.Textbox(asked, label="Question")
                answer = gr.Textbox(hoped, label="The answer hoped for")
        with gr.Accordion("More", open=False):
            layout = gr.Radio(list(FORMATS), value=next(iter(FORMATS)), label="Questions and answers")
            instruction = gr.Textbox("", label="Instruction before all", lines=2)
            step_by_step = gr.Checkbox(False, label='End the prompt with "Let\'s think step by step."')
            gr.Markdown("An example of three parts, `question => reasoning => answer`, shows a chain of thought.")
        ask = buttons("Ask three times", "ask")
        with gr.Row(elem_classes="shots"):
            prompts, chances = [], []
            for label in ("No example (zero-shot)", "One example", "All examples (few-shot)"):
                with gr.Column(min_width=260):
                    prompts.append(gr.Textbox(label=label, lines=6, max_lines=14, interactive=False))
                    chances.append(gr.Markdown())
        summary = gr.Markdown(elem_id="shots-summary")
        gr.Markdown(
            "Large models learn a task from examples in their prompt; one as small as this picks up little more than the "
            "form of the answers."
        )
    explanation(THEORY)

    setting = [temperature, top_k, top_p, min_p]
    seen = [model, prompt, count, *setting]
    job(write, lm_write, [model, prompt, tokens, *setting, seed, new_seed], [prompt, progress, seed])
    scoring = job(score, lm_score, [model, text], [colours, said, table])
    growing = job(grow, lm_tree, [model, root, depth, width], [branches])
    asking = job(
        ask,
        lm_shots,
        [model, layout, instruction, shown, question, answer, step_by_step],
        [*prompts, *chances, summary],
    )

    # what happens without a button
    quiet = {"api_visibility": "private"}
    fresh = {"trigger_mode": "always_last", "show_progress": "hidden", **quiet}
    # whatever changes the text, typing, pasting, a bar or the model itself, changes the bars
    prompt.change(quietly, seen, [bars, facts], **fresh)
    for control in (count, *setting):
        control.input(quietly, seen, [bars, facts], **fresh)
    opening.input(lambda chosen: chosen, opening, prompt, **quiet)
    bars.input(append, [model, prompt, bars], prompt, **fresh)
    for control in (depth, width):
        control.input(lm_tree, *growing, **fresh)
    model.change(openings, model, [opening, prompt, text, root, shown, question, answer], **quiet).success(
        quietly, seen, [bars, facts], **quiet
    )
    # no tab is empty when it is opened
    score_tab.select(lm_score, *scoring, **quiet)
    tree_tab.select(lm_tree, *growing, **quiet)
    shots_tab.select(lm_shots, *asking, **quiet)
    gr.api(lm_next, api_name="lm_next")
    if names:
        demo.load(quietly, seen, [bars, facts], **quiet)

if __name__ == "__main__":
    launch(demo)
