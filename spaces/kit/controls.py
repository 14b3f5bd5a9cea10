"""Controls: one name and one range for one thing, on every page."""

import gradio as gr

from kit.bounds import ANY, MAX_SEED


def count_control(most: int = 64, start: int = 16) -> gr.Slider:
    return gr.Slider(1, most, min(start, most), step=1, label="Number of images")


def temperature_control() -> gr.Slider:
    return gr.Slider(0, 2, 1, step=0.05, label="Temperature", info="the spread of z: 1 as trained, 0 always the same")


def class_control(elem_id: str | None = None) -> gr.Dropdown:
    choices = [ANY, *map(str, range(10))]  # a caller of the API may choose a model whose classes are not shown
    return gr.Dropdown(choices, value=ANY, label="Class", elem_id=elem_id, visible=False)


def offer_classes(count: int) -> gr.Dropdown:
    """The update of a class control to a model of `count` classes; out of sight where it has none."""
    return gr.Dropdown([ANY, *map(str, range(count))], value=ANY, visible=count > 0)


def seed_number(value: int = 0, label: str = "Seed", **options) -> gr.Number:
    return gr.Number(value, label=label, minimum=0, maximum=MAX_SEED, precision=0, **options)


def seed_controls(elem_id: str = "seed") -> tuple[gr.Number, gr.Checkbox]:
    with gr.Row():
        seed = seed_number(elem_id=elem_id, min_width=120)
        new_seed = gr.Checkbox(True, label="New seed each time", min_width=120)
    return seed, new_seed


def result_image(label: str, elem_id: str, **options) -> gr.Image:
    """A picture to look at, enlarge and download."""
    return gr.Image(
        label=label,
        format="png",
        interactive=False,
        elem_id=elem_id,
        elem_classes="crisp",
        buttons=["download", "fullscreen"],
        **options,
    )
