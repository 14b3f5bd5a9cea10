"""What the language family reaches and costs.

    python benchmarks/language.py --only training --data_dir DIR_OF_SHAKESPEARE      # nanoGPT's CPU setting, 2 minutes
    python benchmarks/language.py --only decoding                                    # against transformers' generate()
    python benchmarks/language.py --only gpt2                                        # 124 M parameters, random weights
    python benchmarks/language.py --only scaling --data_dir DIR_OF_SHAKESPEARE --keep DIR --picture FILE

Prints one JSON line:
    training   training/language/gpt-shakespeare-cpu.yaml in a fresh process: validation loss over the whole validation
               split (nats a character, windows of 64 that do not overlap), seconds from command to saved model,
               iterations/s; and iterations/s of a bare PyTorch loop over the same network, in turn, the ratio in each round
    decoding   greedy tokens/s of 4 layers, 128 wide, context 64, at batch 1 and 16, by the pipeline and by generate() with its
               default cache, in turn; the ratio is the median of the ratios within a round
    gpt2       the same of GPT-2's smallest configuration at batch 1, in float32 and bfloat16, and what share it is of
               the tokens/s at which the weights could at most be read: bytes/s of a matrix-vector product, measured here
    scaling    validation loss of three sizes after each of three amounts of text, read about one and a half times, with the
               compute 6 N D; runs in --keep are used where they are finished
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# the network of nanoGPT's CPU setting in plain PyTorch, trained with nothing but what training needs
BARE = """
import sys, time, torch, torch.nn as nn, torch.nn.functional as F
text = open(sys.argv[1], encoding="utf-8").read()
letters = sorted(set(text))
data = torch.tensor([letters.index(c) for c in text[: int(0.9 * len(text))]])
L, D, H, T, B = 4, 128, 4, 64, 12

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))
    def forward(self, x):
        q, k, v = self.qkv(self.n1(x)).view(B, T, 3, H, D // H).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, D))
        return x + self.mlp(self.n2(x))

class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.place = nn.Embedding(len(letters), D), nn.Embedding(T, D)
        self.blocks, self.norm = nn.Sequential(*[Block() for _ in range(L)]), nn.LayerNorm(D)
    def forward(self, x):
        x = self.blocks(self.token(x) + self.place.weight)
        return F.linear(self.norm(x), self.token.weight)

net = GPT()
optimizer = torch.optim.AdamW(net.parameters(), 1e-3, (0.9, 0.99), weight_decay=0.1, fused=True)
steps = int(sys.argv[2])
for step in range(steps):
    if step == steps // 4: began = time.perf_counter()
    at = torch.randint(len(data) - T - 1, (B, 1)) + torch.arange(T + 1)
    x = data[at]
    loss = F.cross_entropy(net(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
    optimizer.zero_grad(); loss.backward(); nn.utils.clip_grad_norm_(net.parameters(), 1.0); optimizer.step()
print((steps - steps // 4) / (time.perf_counter() - began))
"""

SIZES = {"2 x 64": (2, 2, 64), "4 x 128": (4, 4, 128), "6 x 192": (6, 6, 192)}  # layers, heads, width
AMOUNTS = (100_000, 316_000, 1_003_854)  # characters of the training split; the last is all of it
EPOCHS, CONTEXT, BATCH = 1.5, 64, 12


def train(folder: Path, data_dir: str, *words) -> dict:
    """The recipe in a fresh process, or the finished run that lies in `folder`; its record, with the last validation."""
    file = folder / "run.json"
    if not file.is_file() or json.loads(file.read_text())["status"] != "finished":
        line = [sys.executable, "-m", "training.language.gpt", "--config", "training/language/gpt-shakespeare-cpu.yaml",
                "--data_dir", data_dir, "--output_dir", str(folder), "--overwrite", "true", *map(str, words)]  # fmt: skip
        began = time.perf_counter()
        subprocess.run(line, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
        (folder / "wall.json").write_text(json.dumps(time.perf_counter() - began))
    record = json.loads(file.read_text())
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    record["validation"] = [line["validation"] for line in lines if "validation" in line][-1]
    rates = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
    record["tokens_per_second"] = statistics.median(rates)
    record["wall"] = json.loads((folder / "wall.json").read_text())
    return record


def training(data_dir: str, rounds: int) -> dict:
    """The recipe against a bare loop, in turn."""
    found, bare = [], []
    file = next(Path(data_dir).glob("*.txt"))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            line = [sys.executable, "-c", BARE, str(file), "600"]
            bare.append(float(subprocess.run(line, check=True, capture_output=True, text=True).stdout))
            found.append(train(Path(folder) / str(number), data_dir))
    rates = [record["tokens_per_second"] / CONTEXT / BATCH for record in found]
    return {
        "validation": round(found[0]["validation"], 4),
        "seconds_from_command_to_model": [round(record["wall"], 1) for record in found],
        "iterations_per_second": [round(rate, 1) for rate in rates],
        "bare_loop": [round(rate, 1) for rate in bare],
        "ratio": [round(ours / theirs, 3) for ours, theirs in zip(rates, bare, strict=True)],
        "steps": found[0]["step"],
        "parameters": found[0]["parameters"],
    }


def random_pipeline(config, dtype=None):
    """A pipeline of random weights; a token is a number."""
    import torch
    from transformers import GPT2LMHeadModel

    from pipelines.language.pipeline_gpt import GPTPipeline
    from training.data.tokens import train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer(["ab"], "characters", 0, config.n_positions)
    model = GPT2LMHeadModel(config)
    return GPTPipeline(model=model.to(dtype or torch.float32), tokenizer=tokenizer)


def time_both(pipe, batch: int, given: int, new: int) -> tuple[float, float, bool]:
    """Tokens/s of the pipeline and of generate(), and whether they wrote the same."""
    import torch

    ids = torch.randint(0, 60, (batch, given), generator=torch.Generator().manual_seed(1))
    began = time.perf_counter()
    for step in pipe._stream(ids.tolist(), new, None, None, []):  # noqa: B007
        pass
    ours = time.perf_counter() - began
    began = time.perf_counter()
    written = pipe.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, pad_token_id=0
    )
    theirs = time.perf_counter() - began
    return batch * new / ours, batch * new / theirs, step._written == written[:, given:].tolist()


def compare(pipe, batch: int, given: int, new: int, rounds: int) -> dict:
    """The median of each figure over rounds."""
    found = [time_both(pipe, batch, given, new) for _ in range(rounds + 1)][1:]  # the first warms up
    return {
        "tokens_per_second": round(statistics.median(ours for ours, _, _ in found)),
        "generate": round(statistics.median(theirs for _, theirs, _ in found)),
        "ratio": round(statistics.median(ours / theirs for ours, theirs, _ in found), 2),
        "lowest_ratio": round(min(ours / theirs for ours, theirs, _ in found), 2),
        "same_tokens": all(same for _, _, same in found),
    }


def decoding(rounds: int) -> dict:
    """Tokens/s of a small network at batch 1 and 16."""
    from transformers import GPT2Config

    pipe = random_pipeline(GPT2Config(vocab_size=66, n_positions=CONTEXT, n_embd=128, n_layer=4, n_head=4,
                              activation_function="gelu", bos_token_id=None, eos_token_id=None))  # fmt: skip
    return {f"batch_{batch}": compare(pipe, batch, 16, CONTEXT - 16, rounds) for batch in (1, 16)}


def bandwidth(dtype) -> float:
    """Bytes/s at which a matrix-vector product reads 512 MB."""
    import torch

    matrix = torch.ones(2**29 // torch.empty((), dtype=dtype).element_size() // 4096, 4096, dtype=dtype)
    vector = torch.ones(4096, dtype=dtype)
    times = []
    for _ in range(7):
        began = time.perf_counter()
        matrix @ vector
        times.append(time.perf_counter() - began)
    return 2**29 / min(times)


def gpt2(rounds: int) -> dict:
    """Tokens/s of GPT-2's smallest configuration, against the limit of reading its weights."""
    import torch
    from transformers import GPT2Config

    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        pipe = random_pipeline(GPT2Config(bos_token_id=None, eos_token_id=None), dtype)
        weights = sum(p.numel() * p.element_size() for p in pipe.model.parameters())
        weights -= pipe.model.transformer.wpe.weight.numel() * pipe.model.dtype.itemsize  # of which one row is read
        limit = bandwidth(dtype) / weights
        rates = compare(pipe, 1, 32, 64, rounds)
        rates |= {
            "limit_by_bandwidth": round(limit, 1),
            "share_of_the_limit": round(rates["tokens_per_second"] / limit, 3),
        }
        found[str(dtype).removeprefix("torch.")] = rates
    return found


def scaling(data_dir: str, keep: Path, picture: Path | None) -> list[dict]:
    """Validation loss of each size after each amount of text."""
    rows = []
    for amount in AMOUNTS:
        for name, (layers, heads, width) in SIZES.items():
            steps = round(EPOCHS * amount / CONTEXT / BATCH)
            record = train(
                keep / f"{layers}x{width}-{amount}", data_dir, "--num_layers", layers, "--num_heads", heads, "--width",
                width, "--max_train_tokens", amount, "--max_steps", steps, "--eval_every", steps, "--sample_every", steps,
            )  # fmt: skip
            seen = steps * CONTEXT * BATCH
            rows.append({
                "size": name, "parameters": record["parameters"], "text": amount, "tokens_seen": seen,
                "compute": 6 * record["parameters"] * seen, "validation": round(record["validation"], 4),
            })  # fmt: skip
    if picture:
        picture.write_bytes(scaling_picture(rows))
    return rows


def scaling_picture(rows: list[dict]) -> bytes:
    """Loss against parameters, a line for each amount of text, and against compute, a line for each size."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    colours = ("#c9a27a", "#e4572e", "#1f2430")
    panels = (("text", "parameters", "{:,} characters"), ("size", "compute", "{}, layers x width"))
    for axes, (kind, along, label) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        for colour, value in zip(colours, dict.fromkeys(row[kind] for row in rows), strict=True):
            line = [(row[along], row["validation"]) for row in rows if row[kind] == value]
            axes.plot(*zip(*line, strict=True), color=colour, marker="o", ms=4, label=label.format(value))
        axes.set(
            xscale="log", xlabel="parameters" if along == "parameters" else "compute, 6 N D floating-point operations"
        )
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.axes[0].set_ylabel("validation loss, nats a character")
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", help="the folder of tiny Shakespeare's input.txt")
    parser.add_argument("--only", choices=("training", "decoding", "gpt2", "scaling"), required=True)
    parser.add_argument(
        "--rounds", type=int, default=9, help="rounds in which both are timed in turn; of training at most 3"
    )
    parser.add_argument("--keep", type=Path, help="folder that keeps the runs of --only scaling")
    parser.add_argument("--picture", type=Path, help="write a picture of --only scaling to this PNG")
    options = parser.parse_args()
    if options.only in ("training", "scaling") and not options.data_dir:
        parser.error("--data_dir: needed, the folder of tiny Shakespeare's input.txt")
    data_dir = options.data_dir and os.path.abspath(options.data_dir)
    if options.only == "training":
        found = training(data_dir, min(options.rounds, 3))
    elif options.only == "scaling":
        with tempfile.TemporaryDirectory() as folder:
            found = scaling(data_dir, (options.keep or Path(folder)).resolve(), options.picture)
    else:
        found = (decoding if options.only == "decoding" else gpt2)(options.rounds)
    from training.evaluate import machine

    print(json.dumps({options.only: found, "machine": machine("cpu")}))


if __name__ == "__main__":
    main()
