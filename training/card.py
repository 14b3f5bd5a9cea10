"""The card of a published model: README.md with its metadata, built from the record and the figures beside the weights."""

import hashlib
import json
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

# as the sets' own pages state it
DATA_LICENCES = {
    "ylecun/mnist": "MIT",
    "zalando-datasets/fashion_mnist": "MIT",
    "uoft-cs/cifar10": "not stated",
    "Python documentation": "PSF License Version 2",
    "tiny Shakespeare": "public domain",
    "scikit-learn digits": "CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
}
METRICS = {  # figure of results.json -> (type, name)
    "nats": ("nll", "-log p(x), nats per image"),
    "bits_per_dim": ("bits_per_dim", "-log p(x), bits per dimension"),
    "importance_weighted_nats": ("nll", "importance-weighted estimate of -log p(x), nats per image"),
    "frechet_distance": ("frechet_distance", "Fréchet distance in the features of {extractor}"),
    "class_accuracy": ("accuracy", "class of conditional samples by {extractor}"),
    "accuracy": ("accuracy", "accuracy"),
    "reconstruction_error": ("mse", "mean squared error of reconstructions, per pixel in [0, 1]"),
    "nats_per_token": ("nll", "-log P(token), nats per token"),
    "perplexity": ("perplexity", "perplexity per token"),
    "bits_per_byte": ("bits_per_byte", "-log P(text), bits per byte of it"),
}


def card(folder: Path, name: str, class_name: str, library: str = "diffusers") -> str:
    """README.md for a portable folder.

    Args:
        folder: with the weights, the code, and run.json and results.json where there are such.
        name: how the card calls the model: a Hub id, or the folder's name.
        class_name: of the pipeline.
        library: that loads it, diffusers or transformers.
    """
    run, found = (_read(folder / file) for file in ("run.json", "results.json"))
    language = library == "transformers"
    dataset = run["dataset"]["id"] if run else None
    data = ModelCardData(
        library_name=library,
        pipeline_tag="text-generation" if language else None,
        license="apache-2.0",
        tags=["genus", class_name],
        datasets=[dataset] if dataset and "/" in dataset else None,
        model_name=name.split("/")[-1],
        eval_results=_eval_results(found),
    )
    parts = [
        f"# {name}\n",
        "![Samples](samples.png)\n" if (folder / "samples.png").is_file() else "",
        _loading_language(name) if language else _loading(name, found),
        _training(run, dataset),
        _figures(found),
        "![Accuracy against confidence](calibration.png)\n" if (folder / "calibration.png").is_file() else "",
        "Samples, each with its nearest training image on its right:\n\n![Nearest training images](nearest.png)\n"
        if (folder / "nearest.png").is_file()
        else "",
        _limits(dataset),
        _code(folder),
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(part for part in parts if part)))


def _read(file: Path) -> dict:
    return json.loads(file.read_text()) if file.is_file() else {}


def _eval_results(found: dict) -> list[EvalResult] | None:
    extractor = found.get("extractor", {}).get("id", "")
    results = []
    for key, (kind, said) in METRICS.items():
        if key in found:
            if key in ("nats", "bits_per_byte"):
                said += f" ({found['convention']})"
            results.append(
                EvalResult(
                    task_type=_task(found, key),
                    dataset_type=found["dataset"],
                    dataset_name=found["dataset"],
                    dataset_split=found.get("split", "test"),
                    metric_type=kind,
                    metric_name=said.format(extractor=extractor),
                    metric_value=found[key],
                )
            )
    return results or None


def _task(found: dict, key: str) -> str:
    if "bits_per_byte" in found:
        return "text-generation"
    return "image-classification" if key == "accuracy" else "unconditional-image-generation"


def _loading_language(name: str) -> str:
    return f"""## Load it

The network and the tokenizer are transformers' own, and need no code from here:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}")  # a Hub id, or a folder
tokenizer = AutoTokenizer.from_pretrained("{name}")
```

The pipeline beside them adds probabilities and fast decoding. It needs `pip install torch transformers`:

```python
from transformers import pipeline

pipe = pipeline(model="{name}", trust_remote_code=True)
print(pipe("The ", max_new_tokens=200, temperature=0.8)["generated_text"])
print(pipe.score("The text whose tokens are to be scored.").log_probs)  # nats; also .perplexity, .bits_per_byte
probabilities = pipe.next_token("The ").probs  # the likeliest first
```

Offline, once `hf download {name}` has fetched it, set `HF_HUB_OFFLINE=1`, or give the folder that
`snapshot_download("{name}", local_files_only=True)` returns.
"""


def _loading(name: str, found: dict) -> str:
    use = "images = pipe(batch_size=16).images"
    if found.get("likelihood") == "none":
        use = "again = pipe.reconstruct(images).images  # (B, C, H, W) in [0, 1], or PIL images"
    if "accuracy" in found:
        use = "probabilities = pipe.classify(images)  # (B, C, H, W) in [0, 1], or PIL images"
    return f"""## Load it

It needs `pip install torch diffusers`, nothing else; the code that runs it lies beside its weights. Online:

```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{name}", trust_remote_code=True)  # a Hub id, or a folder
{use}
```

Offline, once `hf download {name}` has fetched all of it (loading alone fetches only what it needs):

```python
from diffusers import DiffusionPipeline
from huggingface_hub import snapshot_download

folder = snapshot_download("{name}", local_files_only=True)
pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
```
"""


def _training(run: dict, dataset: str | None) -> str:
    if not run:
        return ""
    return (
        f"## Training\n\n{run['step']} steps on {dataset} in {run['seconds'] / 60:.1f} minutes ({run['device']}), "
        f"{run['parameters']:,} parameters:\n\n```\n{run['command']}\n```\n"
    )


def _figures(found: dict) -> str:
    if not found:
        return ""
    extractor, lines = found.get("extractor", {}), []
    for key, (_, said) in METRICS.items():
        if key in found:
            error = found.get(f"{key}_standard_error")
            figure = f"{found[key]}" if error is None else f"{found[key]} ± {error}"
            lines.append(f"| {said.format(extractor=extractor.get('id', ''))} | {figure} |")
    what = "held-out text" if "bits_per_byte" in found else "test images"
    text = f"## Measured\n\nOn {what}:\n\n| what | figure |\n|---|---|\n" + "\n".join(lines) + "\n"
    if "convention" in found:
        text += f"\nLikelihood: {found['convention']}.\n"
    if extractor:
        text += (
            f"\nDistances are of {found['samples']:,} samples, in the features of `{extractor['id']}` (SHA-256 of its "
            f"weights {extractor['sha256']}); training images are at {found['floor']['frechet_distance']}. Of the "
            f"samples, {found['memorised']:.1%} lie closer to a training image than 99 % of test images do.\n"
        )
    return text


def _limits(dataset: str | None) -> str:
    licence = DATA_LICENCES.get(dataset, "see its page")
    data = f" It knows nothing but {dataset} (licence of the data: {licence})." if dataset else ""
    return (
        "## Limits and intended use\n\nFor learning, teaching and comparing generative models, and as a small part of "
        f"other programs.{data} Likelihoods compare only within one data set and one convention. The code and the "
        "weights are under Apache-2.0.\n"
    )


def _code(folder: Path) -> str:
    rows = "".join(
        f"| `{file.relative_to(folder).as_posix()}` | {hashlib.sha256(file.read_bytes()).hexdigest()} |\n"
        for file in sorted(folder.rglob("*.py"))
    )
    return f"## Code\n\n| file | SHA-256 |\n|---|---|\n{rows}"
