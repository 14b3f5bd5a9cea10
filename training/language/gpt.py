"""Train a causal language model from scratch, or on from published weights: maximum likelihood of the next token.

    python -m training.language.gpt                                    # the prose that comes with Python, a minute
    python -m training.language.gpt --dataset my_book.txt --tokenizer characters --output_dir runs/book
    accelerate launch -m training.language.gpt --config training/language/gpt-shakespeare.yaml
    python -m training.language.gpt --init_from openai-community/gpt2 --dataset my_book.txt --output_dir runs/tuned

The loss is the mean of -log P(x_l | x_<l), nats per token. The network is transformers' GPT-2 or Llama, so the
finished run loads with `AutoModelForCausalLM` and `AutoTokenizer`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)
from transformers.utils import logging

from pipelines.language.pipeline_gpt import GPTPipeline
from training.components import load_component
from training.data.documents import TextOptions
from training.data.source import rows_to_show
from training.data.text import TextSource, load_text
from training.declaration import Declaration
from training.loops.run import start
from training.loops.run_options import RunOptions
from training.loops.single import train
from training.options import UsageError, command_line, option, parse, with_default
from training.pictures import text_picture

TASK = "next-token"  # what `transformers.pipeline` calls ours
SPEC = {"kind": "text", "support": "tokens"}
DECLARATION = Declaration(
    family="gpt",
    branch="language",
    title="Language model",
    example="""print(pipe("The ", max_new_tokens=200, temperature=0.8)["generated_text"])
print(pipe.score("The text whose tokens are to be scored.").log_probs)  # nats; also .perplexity, .bits_per_byte
probabilities = pipe.next_token("The ").probs  # the likeliest first""",
    measures=("text_likelihood", "text_speed", "kept_rows"),
    layout="transformers",
    unit="token",
    task="text-generation",
    paper="https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf",
)


@dataclass
class GPTOptions(TextOptions, RunOptions):
    output_dir: str = with_default(RunOptions, "output_dir", "runs/gpt-python-docs")
    max_steps: int = with_default(RunOptions, "max_steps", 450)
    batch_size: int = option(16, "number of windows of text that each process takes at once", least=1)
    learning_rate: float = with_default(RunOptions, "learning_rate", 3e-3)
    weight_decay: float = option(0.1, "weight decay of the AdamW optimizer, on matrices only", least=0.0)
    max_grad_norm: float = with_default(RunOptions, "max_grad_norm", 1.0)
    ema_decay: float = with_default(RunOptions, "ema_decay", 0.99)
    eval_every: int = with_default(RunOptions, "eval_every", 150)
    architecture: str = option(
        "llama",
        "architecture of the network, as transformers has it; --init_from brings its own",
        choices=("gpt2", "llama"),
    )
    activation: str = option(
        # GPT-2's own is gelu_new: the second of these, in six operations
        "gelu",
        "activation of a gpt2: the exact GELU, or GPT-2's approximation by tanh, which takes twice the time",
        choices=("gelu", "gelu_pytorch_tanh"),
    )
    num_layers: int = option(4, "number of transformer blocks, one on top of another", least=1)
    num_heads: int = option(4, "number of attention heads in each block", least=1)
    width: int = option(128, "size of a token's vector inside the network", least=2)
    dropout: float = option(0.0, "dropout probability of a gpt2, on residuals and embeddings", least=0.0, below=1.0)

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.num_heads:
            raise UsageError(f"--width is {self.width}; it must be a multiple of --num_heads, {self.num_heads}")
        if self.architecture == "llama" and self.dropout:
            raise UsageError(f"--dropout is {self.dropout}; a llama has none")
        if self.architecture == "llama" and self.width // self.num_heads % 2:
            raise UsageError(f"--width is {self.width}; for a llama it must be an even number times --num_heads")


def build_model(options: GPTOptions, source: TextSource) -> PreTrainedModel:
    """A network with random weights, or that of --init_from."""
    if options.init_from:
        return _published(options, source)
    mark = source.tokenizer.eos_token_id if source.separated else None  # begins a text, and ends it
    common = {
        "vocab_size": len(source.tokenizer),
        "bos_token_id": mark,
        "eos_token_id": mark,
        "tie_word_embeddings": True,
    }
    if options.architecture == "llama":
        return LlamaForCausalLM(
            LlamaConfig(
                hidden_size=options.width,
                intermediate_size=32 * math.ceil(options.width * 8 / 3 / 32),  # as many weights as four times the width
                num_hidden_layers=options.num_layers,
                num_attention_heads=options.num_heads,
                max_position_embeddings=options.context_length,
                **common,
            )
        )
    return GPT2LMHeadModel(
        GPT2Config(
            n_positions=options.context_length,
            n_embd=options.width,
            n_layer=options.num_layers,
            n_head=options.num_heads,
            activation_function=options.activation,
            attn_pdrop=0.0,  # with it, attention on a CPU is not fused, and a step takes twice as long
            resid_pdrop=options.dropout,
            embd_pdrop=options.dropout,
            **common,
        )
    )


def _published(options: GPTOptions, source: TextSource) -> PreTrainedModel:
    model = load_component(options.init_from, None, AutoModelForCausalLM, dtype=torch.float32)
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is None:
        raise UsageError(f"--init_from {options.init_from}: its config names no max_position_embeddings")
    if options.context_length > longest:
        raise UsageError(f"--context_length is {options.context_length}; that model sees {longest} tokens at most")
    if source.separated:
        model.config.bos_token_id = model.config.eos_token_id = source.tokenizer.eos_token_id
    return model


def next_token_loss(model, batch: dict[str, Tensor]) -> Tensor:
    """Mean of -log P(label | what is read up to it), nats: "input_ids" and "labels" (B, T), and "position_ids" if any."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs, use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), batch["labels"].flatten())


def picture(pipeline: GPTPipeline, source: TextSource) -> bytes:
    """A text that the model writes, from the beginning of the held-out text, or of the training text where none is."""
    window = rows_to_show(source, 1, first="validation")["tokens"][0]
    opening = pipeline.decode(window[:16].tolist())
    step = None
    tokens, log_probs = [], []
    generator = torch.Generator().manual_seed(0)
    for step in pipeline.stream(opening, 1_000, temperature=0.8, generator=generator):
        tokens.append(pipeline.token_text(step.token_ids[0]))
        log_probs.append(step.log_probs[0])
    return text_picture(opening, tokens, log_probs)


def main(argv: list[str] | None = None) -> None:
    options = parse(GPTOptions, argv, __doc__)
    logging.disable_progress_bar()  # of writing weights: an instant
    run, source, model = start(DECLARATION, None, options, build_model, load_text)
    bits = 1 / math.log(2) / source.bytes_per_token

    def loss(model, batch: dict[str, Tensor], step: int) -> dict:
        nats = next_token_loss(model, batch)
        return {"loss": nats, "bits_per_byte": nats.detach() * bits}

    def make_pipeline(model: PreTrainedModel) -> GPTPipeline:
        # which class runs it, as transformers writes it; the publishing step puts the file beside the weights
        model.config.custom_pipelines = {
            TASK: {"impl": "pipeline_gpt.GPTPipeline", "pt": ["AutoModelForCausalLM"], "type": "text"}
        }
        return GPTPipeline(model=model, tokenizer=source.tokenizer, device=model.device)

    train(run, source, model, loss, make_pipeline, picture, spec=SPEC)


if __name__ == "__main__":
    command_line(main)
