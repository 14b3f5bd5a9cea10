"""The VAE Space: draw samples, and see what the model makes of a digit that you draw.

MODEL_ID names the models, separated by commas: Hub ids (`user/vae-mnist@revision`) or local portable folders.
"""

import math
import os
import random
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import gradio as gr
import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image, ImageOps
from sklearn.datasets import load_digits

MODELS = {
    name.rstrip("/").split("/")[-1].split("@")[0]: name for name in os.environ.get("MODEL_ID", "").split(",") if name
}
MAX_COUNT, MAX_SEED = 64, 2**31 - 1
ANY = "any"
PAPER = "arxiv.org/abs/1312.6114"

CSS = """
.gradio-container { max-width: 1080px !important; margin: auto; }
.crisp img { image-rendering: pixelated; }
#canvas { max-width: 420px; }
"""
THEME = gr.themes.Soft(primary_hue="orange", neutral_hue="slate")
INTRO = """
# Variational autoencoder
A **decoder** turns 2 to 40 random numbers *z* into an image; an **encoder** goes the other way and says which *z*
could have made it. Draw samples from the first, or watch the second read your handwriting.
"""
THEORY = f"""
Both nets are trained at once by raising a lower bound on the likelihood of the data, the **ELBO**:

$$\\log p(x) \\;\\ge\\; \\underbrace{{\\mathbb{{E}}_{{q(z|x)}} \\log p(x|z)}}_{{\\text{{reconstruction}}}}
\\;-\\; \\underbrace{{\\mathrm{{KL}}(q(z|x)\\,\\|\\,\\mathcal N(0, I))}}_{{\\text{{cost of the code}}}}$$

The first term asks that *z* keeps what is needed to redraw *x*; the second asks that codes look like the random
numbers we sample with. Lower **temperature** keeps *z* near zero: cleaner samples, less variety.
[Kingma and Welling, 2013](https://{PAPER})
"""


@lru_cache(maxsize=8)
def load(name: str):
    where, _, revision = MODELS[name].partition("@")
    if not Path(where).is_dir() and "/" not in where:
        raise gr.Error(
            f"MODEL_ID names {where!r}, which is neither a folder nor a Hub id like user/vae-mnist",
            print_exception=False,
        )
    pipe = DiffusionPipeline.from_pretrained(where, trust_remote_code=True, revision=revision or None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def classes_of(name: str) -> int:
    pipe = load(name)
    return pipe.data_spec["num_classes"] if pipe.vae.config.conditional else 0


def pick(name: str):
    """The pipeline, or a message where the page was given no such model."""
    if not MODELS:
        raise gr.Error(
            "No model: set MODEL_ID to a Hub id like user/vae-mnist, or to a portable folder.", print_exception=False
        )
    if name not in MODELS:
        raise gr.Error(f"model is {name!r}; it must be one of {', '.join(MODELS)}", print_exception=False)
    try:
        return load(name)
    except gr.Error:
        raise
    except Exception as error:
        raise gr.Error(f"{name} cannot be loaded: {str(error).splitlines()[0]}", print_exception=False) from None


def chosen_class(name: str, label: str) -> int | None:
    count = classes_of(name)
    if str(label) == ANY or not count:
        return None
    if not str(label).isdigit() or int(label) >= count:
        raise gr.Error(f"class is {label!r}; it must be {ANY} or 0 to {count - 1}", print_exception=False)
    return int(label)


def bounded(name: str, value: float, low: float, high: float) -> float:
    """The value, or a message: sliders check what a browser sends, this what anything else does."""
    if value is None or not math.isfinite(value) or not low <= value <= high:
        raise gr.Error(f"{name} is {value}; it must lie between {low} and {high}", print_exception=False)
    return value


def upscale(image: Image.Image, side: int) -> Image.Image:
    """Whole pixels, so that small images stay crisp."""
    factor = max(1, side // image.width)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def grid(images: list[Image.Image]) -> Image.Image:
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    tiles = [upscale(i.convert("RGB"), 640 // columns) for i in images]
    width, height, gap = *tiles[0].size, 4
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), (120, 128, 140))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (gap + i % columns * (width + gap), gap + i // columns * (height + gap)))
    return sheet


def sample(
    model: str, label: str, count: int, temperature: float, output: str, seed: int, new_seed: bool
) -> Iterator[tuple[Image.Image, int]]:
    """Draw images from a variational autoencoder.

    Args:
        model: one of the page's models.
        label: "any", or the class of all images ("0" to "9") for a conditional model.
        count: how many, 1 to 64.
        temperature: the standard deviation of z, 0 to 2.
        output: "mean" shows the expected image, "sample" draws pixels too.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        The images in one grid, and the seed that made them.
    """
    pipe = pick(model)
    count = int(bounded("count", count, 1, MAX_COUNT))
    temperature = bounded("temperature", temperature, 0, 2)
    seed = random.randint(0, MAX_SEED) if new_seed else int(bounded("seed", seed, 0, MAX_SEED))
    steps = pipe.stream(
        batch_size=count,
        class_labels=chosen_class(model, label),
        temperature=float(temperature),
        decoder_output=output if output in ("mean", "sample") else "mean",
        generator=torch.Generator().manual_seed(seed),
    )
    for step in steps:
        yield grid(step.images), seed


def as_digit(picture: Image.Image, size: int) -> Image.Image | None:
    """A drawing or a photograph as the data sets hold digits: white on black, centred, with a margin."""
    gray = picture.convert("L")
    pixels = np.asarray(gray, dtype=np.float32)
    if np.median(pixels) > 127:  # dark ink on light paper
        gray = ImageOps.invert(gray)
    box = gray.point(lambda v: 255 if v > 60 else 0).getbbox()
    if box is None:
        return None
    ink = gray.crop(box)
    side = round(size * 20 / 28) if size > 10 else size
    scale = side / max(ink.size)
    ink = ink.resize([max(1, round(s * scale)) for s in ink.size], Image.Resampling.LANCZOS)
    digit = Image.new("L", (size, size))
    digit.paste(ink, ((size - ink.width) // 2, (size - ink.height) // 2))
    return digit


def reconstruct(model: str, label: str, picture: dict | None) -> tuple[Image.Image, Image.Image, str]:
    """Encode a drawn or uploaded digit and decode it again.

    Args:
        model: one of the page's models.
        label: the class given to a conditional model; "any" takes the likeliest.
        picture: an image editor's value, whose "composite" is the drawing.

    Returns:
        What the model saw, its reconstruction, and the two terms of the bound in nats.
    """
    pipe = pick(model)
    size = pipe.data_spec["shape"][1]
    drawing = picture.get("composite") if isinstance(picture, dict) else picture
    digit = as_digit(flatten(drawing), size) if drawing is not None else None
    if digit is None:
        raise gr.Error(
            "There is nothing on the canvas yet: draw a digit, upload one or click an example.", print_exception=False
        )
    x = torch.from_numpy(np.asarray(digit, dtype=np.float32) / 255)[None, None]
    x = (x > 0.5).float() if pipe.data_spec["support"] == "binary" else (x * 255).round() / 255
    wanted, note = chosen_class(model, label), ""
    generator = torch.Generator().manual_seed(0)
    count = classes_of(model)
    if count and wanted is None:
        bounds = torch.stack([pipe.elbo(x, 8, c, generator)[0] for c in range(count)])
        wanted = int(bounds.argmax())
        note = f" Likeliest class: **{wanted}**, with probability {bounds.softmax(0)[wanted]:.0%} under the bound."
    labels = None if wanted is None else [wanted]
    rec, kl = (float(t[0]) for t in pipe.elbo_terms(x, 64, labels, generator))
    again = pipe.reconstruct(x, class_labels=labels).images[0]
    seen = pipe.image_processor.postprocess(x)[0]
    text = f"ELBO **{rec - kl:.1f} nats** = reconstruction {rec:.1f} − KL {kl:.1f}.{note}"
    return upscale(seen, 336), upscale(again, 336), text


def flatten(picture: Image.Image) -> Image.Image:
    """Transparent parts become white paper."""
    picture = picture.convert("RGBA")
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, picture).convert("L")


def read_upload(file: str) -> Image.Image:
    try:
        return Image.open(file).convert("RGBA")
    except (OSError, Image.DecompressionBombError) as error:
        raise gr.Error(f"{Path(file).name} cannot be read as a picture ({type(error).__name__}).") from None


def example_digits(count: int = 8) -> list[Image.Image]:
    """Real handwriting that needs no download: scikit-learn's digits, enlarged, as ink on paper."""
    pictures = load_digits().images[10 : 10 + count]
    small = [Image.fromarray((p * 255 / 16).astype(np.uint8)) for p in pictures]
    return [ImageOps.invert(ImageOps.expand(s.resize((224, 224), Image.Resampling.BICUBIC), 28)) for s in small]


def update_classes(model: str):
    count = classes_of(model)
    choices = [ANY, *(str(c) for c in range(count))]
    return [gr.Dropdown(choices, value=ANY, visible=count > 0)] * 2


with gr.Blocks(title="Genus: variational autoencoder") as demo:
    gr.Markdown(INTRO)
    first, start_classes = next(iter(MODELS), None), 0
    if first is None:
        gr.Markdown("**No model is set.** Start the page with `MODEL_ID=user/vae-mnist`, or a portable folder.")
    else:
        try:
            start_classes = classes_of(first)
        except Exception as error:  # whatever it is, it belongs on the page and not into a log that no one reads
            gr.Markdown(f"**`{MODELS[first]}` cannot be loaded:** {str(error).splitlines()[0]}")
    choices = [ANY, *(str(c) for c in range(start_classes or 10))]  # ten, for callers of the API who choose a model
    with gr.Row():
        model = gr.Dropdown(list(MODELS), value=first, label="Model", elem_id="model", scale=1)
    with gr.Tab("Sample"), gr.Row():
        with gr.Column(scale=2):
            label = gr.Dropdown(choices, value=ANY, label="Class", visible=start_classes > 0, elem_id="class")
            count = gr.Slider(1, MAX_COUNT, 16, step=1, label="Number of images")
            temperature = gr.Slider(0, 2, 1, step=0.05, label="Temperature")
            output = gr.Radio(["mean", "sample"], value="mean", label="Decoder output")
            with gr.Row():
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed")
                new_seed = gr.Checkbox(True, label="New seed each time")
            draw = gr.Button("Draw samples", variant="primary", elem_id="draw")
        with gr.Column(scale=3):
            samples = gr.Image(
                label="Samples", format="png", elem_id="samples", elem_classes="crisp", interactive=False
            )
    with gr.Tab("Reconstruct"), gr.Row():
        with gr.Column(scale=2):
            gr.Markdown("**Draw a digit**, upload a picture of one, or click an example.")
            canvas = gr.Sketchpad(
                Image.new("RGB", (280, 280), "white"),  # with a picture to draw on, the pen is ready at once
                show_label=False,
                type="pil",
                canvas_size=(280, 280),
                fixed_canvas=True,
                brush=gr.Brush(default_size=18, colors=["#000000"], color_mode="fixed"),
                transforms=(),
                layers=False,
                buttons=[],
                elem_id="canvas",
                height=380,
            )
            upload = gr.UploadButton("Upload a picture", file_types=["image"], size="sm")
            label2 = gr.Dropdown(choices, value=ANY, label="Class", visible=start_classes > 0)
            encode = gr.Button("Encode and decode", variant="primary", elem_id="encode")
        with gr.Column(scale=3):
            with gr.Row():
                seen = gr.Image(
                    label="What the model sees", format="png", elem_id="seen", elem_classes="crisp", buttons=[]
                )
                again = gr.Image(label="Its reconstruction", format="png", elem_id="again", elem_classes="crisp")
            terms = gr.Markdown(elem_id="terms")
            examples = gr.Gallery(
                example_digits(),
                label="Examples: click one",
                columns=4,
                height=330,
                object_fit="contain",
                allow_preview=False,
                buttons=[],
                elem_id="examples",
            )
    with gr.Accordion("How it works", open=False):
        gr.Markdown(THEORY, latex_delimiters=[{"left": "$$", "right": "$$", "display": True}])

    inputs = [model, label, count, temperature, output, seed, new_seed]
    draw.click(sample, inputs, [samples, seed], api_name="vae_sample")
    encode.click(reconstruct, [model, label2, canvas], [seen, again, terms], api_name="vae_reconstruct")

    def use_example(event: gr.SelectData):
        return example_digits()[event.index]

    for event in (
        examples.select(use_example, None, canvas, api_name=False),
        upload.upload(read_upload, upload, canvas, api_name=False),
    ):
        event.success(reconstruct, [model, label2, canvas], [seen, again, terms], api_name=False)
    model.change(update_classes, model, [label, label2], api_name=False)
    if MODELS:
        demo.load(sample, inputs, [samples, seed], api_name=False)  # a page that is never empty

if __name__ == "__main__":
    demo.queue(max_size=32).launch(theme=THEME, css=CSS, inbrowser=os.environ.get("OPEN_PAGE") == "1")
