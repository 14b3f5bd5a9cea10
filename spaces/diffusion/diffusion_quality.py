"""How good samples are with fewer steps, as it was measured."""

import gradio as gr
from diffusion_models import MODELS
from kit.charts import curves
from kit.jobs import opening
from kit.words import escaped


def diffusion_quality(model: str) -> tuple[str, str]:
    """How good samples are with fewer steps, as it was measured when the model was published.

    Args:
        model: one of the page's models.

    Returns:
        A figure (SVG) of the Fréchet distance against steps, and what was measured.
    """
    results = MODELS.results(model)
    if "problem" in results:
        return "", f"What was measured of {escaped(model)} is left out: {escaped(results['problem'])}."
    guidance = whole_rows(results, "guidance_scale")
    steps = [row for row in whole_rows(results, "num_inference_steps") if row["value"] > 0]
    if not steps:
        return "", f"Nothing about steps was measured of {escaped(model)}."
    figure = curves(
        {"Fréchet distance": [(row["value"], row["frechet_distance"]) for row in steps]},
        "steps of the default solver",
        "",
        log_x=True,
        marks=True,
    )
    samples = results["sweeps"]["num_inference_steps"].get("samples")
    count = f" with {samples:,} samples a row" if samples else ""
    text = (
        f"Measured{count}, in the features of a digit classifier; lower is better. "
        "Each step is one or, with guidance, two passes of the network.\n\n" + table("steps", steps)
    )
    return figure, text + ("\n\n" + table("guidance", guidance) if guidance else "")


def whole_rows(results: dict, name: str) -> list[dict]:
    """The rows of a sweep that have a value and what was measured at it."""
    rows = results.get("sweeps", {}).get(name, {}).get("rows", [])
    return [row for row in rows if {"value", "frechet_distance", "coverage"} <= set(row)]


def table(what: str, rows: list[dict]) -> str:
    lines = [f"| {what} | Fréchet distance | class as asked | coverage |", "|---|---|---|---|"]
    for row in rows:
        share = f"{row['class_accuracy']:.1%}" if "class_accuracy" in row else "–"
        lines.append(f"| {row['value']:g} | {row['frechet_distance']:.2f} | {share} | {row['coverage']:.1%} |")
    return "\n".join(lines)


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    """The tab, on the page `demo`, of the `model` that is chosen there."""
    with gr.Tab("Steps and quality") as tab:
        figure = gr.HTML(elem_id="quality", min_height=200)
        measured = gr.Markdown(elem_id="measured")
    opening(tab).success(diffusion_quality, model, [figure, measured], api_name="diffusion_quality")
    model.change(diffusion_quality, model, [figure, measured], api_visibility="private")
