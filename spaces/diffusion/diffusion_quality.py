"""How good samples are with fewer steps, as it was measured."""

import gradio as gr
from diffusion_models import MODELS
from kit.charts import curves


def diffusion_quality(model: str) -> tuple[str, str]:
    """How good samples are with fewer steps, as it was measured when the model was published.

    Args:
        model: one of the page's models.

    Returns:
        A figure (SVG) of the Fréchet distance against steps, and what was measured.
    """
    sweeps = MODELS.results(model).get("sweeps", {})
    measured = sweeps.get("num_inference_steps")
    if not measured:
        return "", f"Nothing about steps was measured of {model}."
    rows = [(row["value"], row["frechet_distance"]) for row in measured["rows"]]
    figure = curves({"Fréchet distance": rows}, "steps of the default solver", "", log_x=True, marks=True)
    table = "| steps | Fréchet distance | class as asked | coverage |\n|---|---|---|---|\n"
    for row in measured["rows"]:
        accuracy = row.get("class_accuracy")
        share = "–" if accuracy is None else f"{accuracy:.1%}"
        table += f"| {row['value']} | {row['frechet_distance']:.2f} | {share} | {row['coverage']:.1%} |\n"
    text = (
        f"Measured with {measured['samples']:,} samples a row, in the features of a digit classifier; lower is better. "
        "Each step is one or, with guidance, two passes of the network.\n\n" + table
    )
    guidance = sweeps.get("guidance_scale")
    if guidance:
        text += "\n\n| guidance | Fréchet distance | class as asked | coverage |\n|---|---|---|---|\n"
        for row in guidance["rows"]:
            text += (
                f"| {row['value']:g} | {row['frechet_distance']:.2f} | {row['class_accuracy']:.1%} | "
                f"{row['coverage']:.1%} |\n"
            )
    return figure, text


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    """The tab, on the page `demo`, of the `model` that is chosen there."""
    with gr.Tab("Steps and quality") as tab:
        figure = gr.HTML(elem_id="quality", min_height=200)
        measured = gr.Markdown(elem_id="measured")
    tab.select(diffusion_quality, model, [figure, measured], api_name="diffusion_quality")
