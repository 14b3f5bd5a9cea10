"""Tastes: the same factorisation of a table of ratings that anyone can edit."""

import gradio as gr
import numpy as np
from autoencoders_models import FACTS, MODELS, factors_of, first_of, say_missing
from autoencoders_ratings import EXAMPLE, MOST_STARS, TABLE_CSS, Ratings, Table, completed_table, liking_table
from kit.bounds import bounded, one_of, seed_of, whole
from kit.controls import seed_number
from kit.errors import user_error
from kit.jobs import buttons, job, one_job, opening
from kit.lazy import LazyModule
from kit.words import escaped

torch = LazyModule("torch")

OFFERED = [name for name, facts in FACTS.items() if facts.calls >= {"parts", "transform"}]  # of whatever data
USUAL = "nmf-mnist"  # what the project calls its own


@one_job
def autoencoder_tastes(
    ratings: Table, factors: int, penalty: float, person: str, seed: int
) -> tuple[str, str, str, str]:
    """Factorise a table of ratings, fill in what is missing, and recommend.

    Args:
        ratings: {"people": names, "dishes": names, "ratings": a row for each person, null where there is none}, 0 to 5.
        factors: how many tastes, 1 to 6.
        penalty: of large numbers, 0 to 5: with few ratings it keeps the table from being learned by heart.
        person: for whom to recommend.
        seed: of the numbers it starts from, 0 to 2147483647.

    Returns:
        The recommendations; the completed table, what was filled in marked; what each taste likes, and how much each
        person has of it (HTML).
    """
    people, dishes, known = ratings
    factors = whole("factors", factors, 1, min(6, *known.shape))
    penalty, seed = float(bounded("penalty", penalty, 0, 5)), seed_of(seed, False)
    one_of("person", person, people)
    rated = ~np.isnan(known)
    for name, has in zip(people, rated.any(1), strict=True):
        if not has:
            raise user_error(f"{name} has rated nothing yet: one rating is needed to guess the others from.")
    for name, has in zip(dishes, rated.any(0), strict=True):
        if not has:
            raise user_error(f"No one has rated {name} yet: one rating is needed to guess the others from.")
    if not known[rated].any():
        raise user_error("All ratings are 0: there is nothing that anyone likes.")
    pipe = MODELS[first_of(OFFERED, USUAL)]
    for step in type(factors_of(pipe)).fit_steps(torch.from_numpy(known), factors, penalty, max_iter=500, seed=seed):
        last = step
    weights, parts = last.weights.numpy(), last.parts.numpy()
    # what a taste gives the dish that it likes best is called 5; the rest is how much of it a person has
    best = np.maximum(parts.max(1), 1e-12) / MOST_STARS
    parts, weights = parts / best[:, None], weights * best
    filled, row = np.clip(weights @ parts, 0, MOST_STARS), people.index(person)
    missing = [j for j in np.argsort(-filled[row]) if not rated[row, j]][:3]
    if missing:
        listed = "\n".join(
            f"{n}. **{escaped(dishes[j])}**, expected {filled[row, j]:.1f}" for n, j in enumerate(missing, 1)
        )
    else:
        listed = f"{escaped(person)} has rated everything."
    text = (
        f"### For {escaped(person)}\n{listed}\n\nOn the {int(rated.sum())} known ratings it is off by {last.error:.2f} (root "
        f"mean square) after {last.step + 1} rounds; {int((~rated).sum())} were filled in."
    )
    names = [f"Taste {k + 1}" for k in range(factors)]
    table = completed_table(people, dishes, known, filled, person)
    return text, table, liking_table(dishes, names, parts.T), liking_table(people, names, weights)


def build(demo: gr.Blocks) -> None:
    """The tab, on the page `demo`."""
    with gr.Tab("Tastes") as tab:
        gr.Markdown(
            "**The same sum explains ratings.** Each dish has a little of every taste, each person likes each taste "
            "more or less; from what is known follows what is not. Change a number, or empty a cell: 0 to 5."
        )
        say_missing(OFFERED, names=(USUAL,))
        table = Ratings(EXAMPLE, "Ratings", elem_id="ratings")
        with gr.Row():
            factors = gr.Slider(1, 6, 3, step=1, label="Tastes", info="how many", min_width=160)
            penalty = gr.Slider(0, 5, 0.5, step=0.1, label="Penalty", info="of large numbers", min_width=160)
            person = gr.Dropdown(
                EXAMPLE["people"],
                value=EXAMPLE["people"][-1],
                label="Recommend to",
                allow_custom_value=True,
                elem_id="person",
                min_width=160,
            )
            seed = seed_number(0, "Seed", min_width=120)
        with gr.Row():
            fit = buttons("Fill in and recommend", "fit")
            reset = gr.Button("Back to the example", elem_id="reset", min_width=140)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                advice = gr.Markdown(elem_id="advice")
            with gr.Column(scale=3, min_width=300):
                gr.Markdown("**The table as it is expected**: framed cells were filled in.")
                full_table = gr.HTML(elem_id="full-table", css_template=TABLE_CSS, html_template="${value}")
        with gr.Row():
            with gr.Column(min_width=280):
                gr.Markdown("**How much of each taste is in a dish**: 5 in the one that has most of it.")
                liked = gr.HTML(elem_id="liked", css_template=TABLE_CSS, html_template="${value}")
            with gr.Column(min_width=280):
                gr.Markdown("**How much each person likes it**: a rating is the sum of dish times person.")
                having = gr.HTML(elem_id="having", css_template=TABLE_CSS, html_template="${value}")

    quiet = {"api_visibility": "private"}  # the API names each handler once
    live = {"trigger_mode": "always_last", "show_progress": "hidden", **quiet}
    tasted = job(fit, autoencoder_tastes, [table, factors, penalty, person, seed], [advice, full_table, liked, having])
    table.input(autoencoder_tastes, *tasted, **live)
    for control in (factors, penalty):
        control.release(autoencoder_tastes, *tasted, **live)
    person.change(autoencoder_tastes, *tasted, **live)
    reset.click(lambda: EXAMPLE, None, table, **quiet).success(autoencoder_tastes, *tasted, **quiet)
    if OFFERED:
        opening(tab).success(autoencoder_tastes, *tasted, **quiet)
