"""The tab on what examples in the prompt do: none, one and all of them."""

import math

import gradio as gr
from kit.bounds import one_of
from kit.charts import signed
from kit.errors import user_error
from kit.jobs import buttons, job, one_job, opening
from kit.words import escaped, short
from language_model_common import MODELS, QUIET, refusals_shown, text_of
from language_model_views import percent

FORMATS = {"line below line": ("", ""), "Q: and A:": ("Q: ", "A: ")}  # before a question, before an answer
SHOTS = {  # examples, question, the answer that is hoped for
    "gpt-shakespeare": (
        "ROMEO: => Ay, my lord.\nJULIET: => Ay, my lord.\nTYBALT: => Ay, my lord.",
        "BENVOLIO:",
        "Ay, my lord.",
    ),
    "gpt-python-docs": ('"list" => a list.\n"dict" => a dict.\n"tuple" => a tuple.', '"set"', "a set."),
}


def shots_of(model: str | None) -> tuple[str, str, str]:
    """What the boxes hold at first, for a model."""
    return SHOTS.get(model, next(iter(SHOTS.values())))


def examples_of(text: str) -> list[tuple[str, ...]]:
    """Lines like `question => answer`, or `question => reasoning => answer`."""
    found = []
    for number, line in enumerate(text.strip().splitlines(), 1):
        parts = tuple(part.strip() for part in line.split("=>"))
        if line.strip() and (len(parts) not in (2, 3) or not all(parts)):
            raise user_error(f"Line {number} of the examples is {short(line)}; it must be like: question => answer")
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
        with refusals_shown():
            found = pipe.score(f"{lead}{answer}\n", prompt)
            written = pipe(prompt, 24, temperature=0, stop_strings="\n")["continuation"]
        views.append(f"{prompt}{written}")
        chances.append(found.log_prob)
        facts.append(
            f"P(“{escaped(answer)}” and a new line) = **{escaped(percent(math.exp(found.log_prob)))}** "
            f"({signed(found.log_prob, 2)} nats); it writes “{escaped(written)}”"
        )
    gain = chances[2] - chances[0]
    said = (
        f"The examples make the answer **{math.exp(min(abs(gain), 40)):,.3g} times** {'as' if gain >= 0 else 'less'} probable"
        f"{' as without' if gain >= 0 else ''}. Nothing was trained: they only stand in the prompt."
    )
    return *views, *facts, said


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("Zero, one, few") as tab:
        given, asked, hoped = shots_of(MODELS.first)
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
    asking = job(
        ask,
        lm_shots,
        [model, layout, instruction, shown, question, answer, step_by_step],
        [*prompts, *chances, summary],
    )
    model.change(shots_of, model, [shown, question, answer], **QUIET)
    opening(tab).success(lm_shots, *asking, **QUIET)  # not empty when it is opened
