"""Pictures of a run: a grid of samples and the curve of its loss, as PNG bytes."""

import io
import math

import numpy as np
import torch
from PIL import Image

from training.data.source import rows_to_show

INK, FAINT, ACCENT = "#1f2430", "#c9cdd6", "#e4572e"


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def image_grid(images: np.ndarray, columns: int | None = None, scale: int | None = None) -> bytes:
    """(N, H, W, C) in [0, 1] -> a grid with thin lines, scaled up by whole pixels so that it stays crisp."""
    count, _, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scale = scale or max(1, round(640 / (columns * (width + 1))))
    pixels = (images.clip(0, 1) * 255).round().astype(np.uint8)
    pixels = pixels.repeat(scale, 1).repeat(scale, 2)
    if channels == 1:
        pixels = pixels.repeat(3, 3)
    h, w = pixels.shape[1:3]
    gap = max(1, scale // 2)
    sheet = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, 3), 64, np.uint8)
    for i, tile in enumerate(pixels):
        top, left = gap + (i // columns) * (h + gap), gap + (i % columns) * (w + gap)
        sheet[top : top + h, left : left + w] = tile
    return _png(Image.fromarray(sheet))


def pairs_grid(given: np.ndarray, found: np.ndarray, columns: int = 8) -> bytes:
    """Images (N, H, W, C), and below each row of them what was made of it."""
    columns = min(columns, len(given))
    count = len(given) // columns * columns
    rows = [a[:count].reshape(-1, 1, columns, *a.shape[1:]) for a in (given, found)]
    return image_grid(np.concatenate(rows, 1).reshape(-1, *given.shape[1:]), columns)


def samples_or_reconstructions(pipeline, source, by_class: bool) -> bytes:
    """Samples, a column for each class where they are known; where there is nothing to draw from, held-out rows, each row
    above what it becomes. Of vectors samples, or what becomes of held-out ones, over those.
    """
    draws, drawing = pipeline.likelihood != "none", {"generator": torch.Generator().manual_seed(0), "output_type": "np"}
    if source.kind == "vector":
        x = source.as_input(rows_to_show(source, 2_000))
        made = pipeline(len(x), **drawing) if draws else pipeline.reconstruct(x, output_type="np")
        return scatter(made.samples, x.numpy())
    if draws:
        columns = min(len(source.class_names), 10) if by_class else 8
        labels = [i % columns for i in range(8 * columns)] if by_class else None
        return image_grid(pipeline(8 * columns, labels, **drawing).images, columns)
    x = source.as_input(rows_to_show(source, 32))
    return pairs_grid(x.permute(0, 2, 3, 1).numpy(), pipeline.reconstruct(x, output_type="np").images)


def _figure(width: float, height: float):
    from matplotlib.figure import Figure  # no pyplot: it would keep every figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _figure_png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def reliability_diagram(rows: list[tuple[float, float, int]]) -> bytes:
    """Accuracy against confidence, a point for each (confidence, accuracy, count); on the diagonal is calibrated."""
    figure, axes = _figure(4.5, 4.5)
    confidence, accuracy, _ = zip(*rows, strict=True)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    axes.plot(confidence, accuracy, color=ACCENT, marker="o", markersize=5, linewidth=1)
    for x, y, n in rows:
        axes.annotate(f"{n:,}", (x, y), textcoords="offset points", xytext=(6, -10), fontsize=7, color=INK)
    axes.set(
        xlabel="confidence",
        ylabel="accuracy",
        xlim=(0, 1.05),
        ylim=(-0.03, 1.05),
        title="Reliability; numbers are images in a bin",
    )
    return _figure_png(figure)


def text_picture(given: str, tokens: list[str], log_probs: list[float], columns: int = 64, rows: int = 30) -> bytes:
    """A text on paper: what was given in grey, then its tokens, the more orange the less probable (nats)."""
    import matplotlib
    from PIL import ImageDraw, ImageFont

    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSansMono.ttf", 15)
    width, height, margin = 9, 20, 20  # of a letter of this font
    sheet = Image.new("RGB", (columns * width + 2 * margin, rows * height + 2 * margin), "white")
    draw, x, y = ImageDraw.Draw(sheet), 0, 0
    parts = [(given, None), *zip(tokens, log_probs, strict=True)]
    for text, value in parts:
        share = 0.0 if value is None else min(1.0, -value / 6)
        ground = tuple(round(255 + share * (c - 255)) for c in (0xF2, 0x8C, 0x4E))
        for letter in text:
            if letter == "\n" or x == columns:
                x, y = 0, y + 1
            if y == rows:
                return _png(sheet)
            if letter != "\n":
                left, top = margin + x * width, margin + y * height
                draw.rectangle((left, top, left + width - 1, top + height - 1), fill=ground)
                draw.text((left, top), letter, font=font, fill="#8a8f99" if value is None else INK)
                x += 1
    return _png(sheet)


def scatter(samples: np.ndarray, data: np.ndarray) -> bytes:
    """Samples (N, 2) over data (M, 2)."""
    figure, axes = _figure(5, 5)
    axes.scatter(*data.T, s=3, color=FAINT, label="data", linewidths=0)
    axes.scatter(*samples.T, s=3, color=ACCENT, label="samples", linewidths=0)
    axes.set_aspect("equal")
    axes.legend(loc="upper right", frameon=False, markerscale=4)
    return _figure_png(figure)


def loss_curve(lines: list[dict], names: tuple[str, ...] = ("loss",)) -> bytes:
    """The log's losses of these names against steps, with validation where it was measured."""
    figure, axes = _figure(7, 4)
    held_out = [(line["step"], line["validation"]) for line in lines if "validation" in line]
    shown = []
    for name, colour in zip(names, (FAINT, ACCENT, INK), strict=False):
        train = [(line["step"], line[name]) for line in lines if name in line]
        if train:
            label = "training loss" if name == "loss" else name.replace("_", " ")
            axes.plot(*zip(*train, strict=True), color=colour, label=label)
            shown += [value for _, value in train[len(train) // 20 :]]
    if held_out:
        axes.plot(
            *zip(*held_out, strict=True), color=ACCENT, marker="o", ms=3, label="validation loss, averaged weights"
        )
        shown += [value for _, value in held_out]
    if shown:  # the first steps would flatten all that follows
        low, high = min(shown), max(shown)
        axes.set_ylim(low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9)
    axes.set_xlabel("step")
    axes.legend(frameon=False)
    return _figure_png(figure)


def heat_map(values: np.ndarray, columns: list[str] | None) -> bytes:
    """(N, D) as a table of colours, its columns named where there are names."""
    figure, axes = _figure(max(4.0, 0.35 * values.shape[1]), max(2.5, 0.35 * len(values) + 1.5))
    axes.imshow(values, cmap="Oranges", aspect="auto")
    axes.set_yticks(range(len(values)), [f"part {i + 1}" for i in range(len(values))])
    axes.set_xticks(range(values.shape[1]), columns or range(values.shape[1]), rotation=60, ha="right")
    return _figure_png(figure)
