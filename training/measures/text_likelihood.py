"""Likelihood of held-out documents under a language model.

- `nats_per_token`, `perplexity`, `bits_per_byte`: of the test documents, each by itself, every token scored once, in
  windows of `context_length` that begin `stride` tokens apart; `nats_per_token_in_blocks` where windows do not overlap, as
  in training. `convention` says what the first token of a document is given. The standard error is over blocks of
  `context_length` tokens.
"""

import argparse
import math

import torch

from training.figures import Figure, Table
from training.options import UsageError

NATS = Figure(
    "nats_per_token",
    "nats a token",
    "-log P(token), nats per token",
    digits=3,
    error="nats_per_token_standard_error",
    metric_type="nll",
    order=60,
)
PERPLEXITY = Figure("perplexity", "perplexity", "perplexity per token", metric_type="perplexity", order=61)
BITS = Figure(
    "bits_per_byte", "bits/byte", "-log P(text), bits per byte of it", digits=3, metric_type="bits_per_byte", order=62
)
CONTEXT = Figure(
    "context_length", "context, stride", show=lambda found: f"{found['context_length']}, {found['stride']}"
)
TABLES = (Table("Likelihood of text", (CONTEXT, NATS, PERPLEXITY, BITS), lambda found: "bits_per_byte" in found, 60),)
PICTURES = {}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stride",
        type=int,
        help="language model: tokens between the beginnings of two windows; by default half the context",
    )


def applies(pipe, source) -> bool:
    return "score" in pipe.calls


def measure(pipe, source, options: argparse.Namespace) -> tuple[dict, dict[str, bytes]]:
    context, stride = pipe.context_length, options.stride
    if stride is not None and not 1 <= stride <= context:
        raise UsageError(f"--stride is {stride}; it must lie between 1 and the context length, {context}")
    stride = max(1, context // 2) if stride is None else stride
    texts = [text for text in source.texts if len(text) > 1]
    try:
        log_probs, num_bytes = score_texts(pipe, texts, stride)
        in_blocks = -score_texts(pipe, texts, context)[0].mean().item()
    except ValueError as error:  # another vocabulary
        raise UsageError(f"{options.source}: {error}") from None
    nats = -log_probs.mean().item()
    blocks = [-block.mean() for block in log_probs.split(context) if len(block) == context] or [torch.tensor(nats)]
    error = torch.stack(blocks).std().item() / math.sqrt(len(blocks)) if len(blocks) > 1 else 0.0
    said = "test split" if source.split == "test" else "validation split, by which the weights were chosen too"
    begins = "an end-of-text token" if pipe.bos_token_id is not None else "its first token, which is not scored"
    return {
        "nats_per_token": round(nats, 4),
        "nats_per_token_standard_error": round(error, 4),
        "nats_per_token_in_blocks": round(in_blocks, 4),
        "perplexity": round(math.exp(nats), 3),
        "bits_per_byte": round(-log_probs.sum().item() / math.log(2) / num_bytes, 4),
        "tokens": len(log_probs),
        "bytes": num_bytes,
        "documents": len(texts),
        "split": source.split,
        "context_length": context,
        "stride": stride,
        "convention": f"exact, of tokens; {said}; each document given {begins}; windows of {context} tokens, {stride} apart",
    }, {}


def score_texts(pipe, texts: list[str], stride: int) -> tuple[torch.Tensor, int]:
    """log P of every token, nats, and the bytes of the texts."""
    scores = [pipe.score(text, stride=stride, end_of_text=True) for text in texts]
    return torch.cat([score.log_probs for score in scores]).double(), sum(score.num_bytes for score in scores)
