"""What `training.evaluate` measures of a language model.

- `nats_per_token`, `perplexity`, `bits_per_byte`: of the test documents, each by itself, every token scored once, in
  windows of `context_length` that begin `stride` tokens apart; `nats_per_token_in_blocks` where windows do not overlap, as
  in training. `convention` says what the first token of a document is given. The standard error is over blocks of
  `context_length` tokens.
- `tokens_per_second` of sampling at batch 1 and 16, the median of five.
"""

import json
import math
import statistics
import tempfile
import time
from pathlib import Path

import torch

from training.options import UsageError
from training.text import TextOptions, held_out_texts


def load(source: str, device: str):
    """The pipeline of a run, a checkpoint, a portable folder or a repository; the code is the one it carries.

    Raises:
        UsageError: it cannot be loaded.
    """
    from transformers import pipeline
    from transformers.utils import logging

    from training.publish import build

    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(source)
        config = json.loads((folder / "config.json").read_text()) if folder.is_dir() else {}
        tasks = list(config.get("custom_pipelines", {}).values())
        if tasks and not (folder / f"{tasks[0]['impl'].split('.')[0]}.py").is_file():
            build(folder, Path(temporary) / folder.name)  # measured is what is published
            folder = Path(temporary) / folder.name
        try:
            return pipeline(model=str(folder), trust_remote_code=True, device=device, dtype=torch.float32)
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(f"{source}: cannot be loaded ({' '.join(str(error).split())[:200]})") from None


def likelihood(pipe, split: str, texts: list[str], stride: int | None) -> dict:
    """Of documents, by windows."""
    context = pipe.context_length
    stride = max(1, context // 2) if stride is None else stride

    def scored(step: int):
        scores = [pipe.score(text, stride=step, end_of_text=True) for text in texts]
        return torch.cat([s.log_probs for s in scores]).double(), sum(s.num_bytes for s in scores)

    log_probs, num_bytes = scored(stride)
    nats = -log_probs.mean().item()
    blocks = [-block.mean() for block in log_probs.split(context) if len(block) == context] or [torch.tensor(nats)]
    said = "test split" if split == "test" else "validation split, by which the weights were chosen too"
    begins = "an end-of-text token" if pipe.bos_token_id is not None else "its first token, which is not scored"
    error = torch.stack(blocks).std().item() / math.sqrt(len(blocks)) if len(blocks) > 1 else 0.0
    return {
        "nats_per_token": round(nats, 4),
        "nats_per_token_standard_error": round(error, 4),
        "nats_per_token_in_blocks": round(-scored(context)[0].mean().item(), 4),
        "perplexity": round(math.exp(nats), 3),
        "bits_per_byte": round(-log_probs.sum().item() / math.log(2) / num_bytes, 4),
        "tokens": len(log_probs),
        "bytes": num_bytes,
        "documents": len(texts),
        "split": split,
        "context_length": context,
        "stride": stride,
        "convention": f"exact, of tokens; {said}; each document given {begins}; windows of {context} tokens, {stride} apart",
    }


def speed(pipe) -> dict[str, float]:
    """Tokens a second, sampled until the context is full."""
    first = pipe.bos_token_id is None
    prompt = next(pipe.decode([i]) for i in range(pipe.model.config.vocab_size) if pipe.writes(i)) if first else ""
    ends, pipe.model.config.eos_token_id = pipe.model.config.eos_token_id, None  # a text that ended would cost nothing
    found = {}
    for batch in (1, 16):
        rates = []
        for _ in range(6):
            began = time.perf_counter()
            steps = sum(1 for _ in pipe.stream([prompt] * batch, pipe.context_length - 1))
            rates.append(batch * steps / (time.perf_counter() - began))
        found[str(batch)] = round(statistics.median(rates[1:]))
    pipe.model.config.eos_token_id = ends
    return found


def evaluate(source: str, options: TextOptions, stride: int | None, device: str) -> dict:
    """All figures of a language model, as results.json holds them.

    Raises:
        UsageError: no such model or data; a stride outside 1 to the context length.
    """
    pipe = load(source, device)
    if stride is not None and not 1 <= stride <= pipe.context_length:
        raise UsageError(f"--stride is {stride}; it must lie between 1 and the context length, {pipe.context_length}")
    name, split, texts = held_out_texts(options)
    try:
        found = likelihood(pipe, split, [t for t in texts if len(t) > 1], stride)
    except ValueError as error:  # another vocabulary
        raise UsageError(f"{source}: {error}") from None
    weights = sum(p.numel() for p in pipe.model.parameters())
    return {"dataset": name, "likelihood": pipe.likelihood, "parameters": weights, **found,
            "tokens_per_second": speed(pipe)}  # fmt: skip
