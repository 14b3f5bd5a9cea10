"""What becomes of a damaged model: every file of a portable folder is damaged in every way, loaded and drawn from.

    python benchmarks/damaged_models.py                              # all checkpoints
    python benchmarks/damaged_models.py vae-digits ddpm-digits --list

Each weights file is cut, its bits flipped, its tensors taken away, renamed, added, reshaped, swapped, and filled with what
is no number; each value of each config and of the index is taken away, changed, and given another type. Each damage is
loaded with the library's own call, once as it is by default and once with `low_cpu_mem_usage=False`, and drawn from with
one seed. Prints one JSON line; with --list, what drew otherwise too.

    refused         a ValueError of one line that this project's code raises
    by_library      the library raised, in its own words
    same            drew what the whole model draws: the damage is of nothing that counts
    other_model     drew otherwise, and nothing in the folder tells: see below
    otherwise       drew otherwise, and could have been told: must be 0
    late            loaded, and failed at the first call: must be 0
    not_one_line    `training.evaluate`'s loader said anything but one line: must be 0

Nothing in a folder tells that a number is not the one that was trained, as long as it is a number: a flipped bit of a
mantissa, two tensors of one shape that changed places, one tensor of zeros among others (layers begin so). Nor that a
setting is another one which the class allows: an activation, the number of heads, the guidance of a call. Of these only
checksums tell, which `python -m training.publish --verify` compares.
"""

import argparse
import contextlib
import copy
import inspect
import io
import itertools
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# damage that only a checksum tells
UNTOLD = (
    "mantissa",
    "sign",
    "exponent",
    "swapped",
    "one tensor zero",
    "BF16 for F16",
    "another value",
    "tokenizer: a token",
)


def tensors_of(content: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def packed(header: dict, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def damaged_weights(content: bytes) -> Iterator[tuple[str, bytes]]:
    """(what was done, the file) of a safetensors file."""
    header, data = tensors_of(content)
    start = len(content) - len(data)
    yield from (("cut to nothing", b""), ("cut in half", content[: len(content) // 2]), ("cut by a byte", content[:-1]))
    for place in (0, 3, 8, 9, start // 2, start - 2):
        yield f"bit of the header flipped at {place}", flipped(content, place, 4)
    names = [name for name in header if name != "__metadata__"]
    floating = [name for name in names if header[name]["dtype"].startswith(("F", "BF"))]
    for name in dict.fromkeys([names[0], names[len(names) // 2], names[-1]]):
        said = header[name]
        begin, end = said["data_offsets"]
        others = {key: value for key, value in header.items() if key != name}
        yield f"{name}: removed", packed(*repacked(others, data))
        yield f"{name}: renamed", packed({**others, name + "_": said}, data)
        yield f"{name}: reshaped", packed({**header, name: {**said, "shape": [*said["shape"], 1]}}, data)
        if len(set(said["shape"])) > 1:
            yield f"{name}: axes turned", packed({**header, name: {**said, "shape": said["shape"][::-1]}}, data)
        if end == begin:
            continue
        if name in floating:
            size = 2 if said["dtype"] != "F32" else 4
            number = {("F16"): b"\x00\x7e", "BF16": b"\xc0\x7f", "F32": b"\x00\x00\xc0\x7f"}[said["dtype"]]
            infinite = {"F16": b"\x00\x7c", "BF16": b"\x80\x7f", "F32": b"\x00\x00\x80\x7f"}[said["dtype"]]
            for what, word in (("NaN", number), ("infinite", infinite)):
                yield f"{name}: one value {what}", content[: start + begin] + word + content[start + begin + size :]
                filled = word * ((end - begin) // size)
                yield f"{name}: {what}", content[: start + begin] + filled + content[start + end :]
            yield f"{name}: one tensor zero", content[: start + begin] + bytes(end - begin) + content[start + end :]
            yield f"{name}: mantissa flipped", flipped(content, start + begin, 1)
            yield f"{name}: sign flipped", flipped(content, start + begin + size - 1, 128)
            yield f"{name}: exponent flipped", flipped(content, start + begin + size - 1, 32)
            whole = {**header, name: {**said, "dtype": "I16" if size == 2 else "I32"}}
            yield f"{name}: integers", packed(whole, data)
            if said["dtype"] == "F16":
                yield f"{name}: BF16 for F16", packed({**header, name: {**said, "dtype": "BF16"}}, data)
        else:
            yield f"{name}: floats for integers", packed({**header, name: {**said, "dtype": "F64"}}, data)
            yield f"{name}: out of range", content[: start + begin] + b"\xff" * (end - begin) + content[start + end :]
    for one, other in itertools.pairwise(names):
        if header[one]["shape"] == header[other]["shape"] and header[one]["dtype"] == header[other]["dtype"]:
            yield f"{one}: swapped with {other}", packed({**header, one: header[other], other: header[one]}, data)
            break
    more = {"more": {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}}
    yield "a tensor added", packed({**header, **more}, data + bytes(4))
    yield "all zero", content[:start] + bytes(len(data))
    yield "all NaN", content[:start] + b"\xff" * len(data)
    small, at = {}, 0
    for name in names:
        count = 1
        for side in header[name]["shape"]:
            count *= side
        small[name] = {"dtype": "I8", "shape": header[name]["shape"], "data_offsets": [at, at + count]}
        at += count
    yield "all int8", packed(small, bytes(range(1, 5)) * (at // 4) + b"\x01" * (at % 4))


def flipped(content: bytes, place: int, bits: int) -> bytes:
    return content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :]


def repacked(header: dict, data: bytes) -> tuple[dict, bytes]:
    """A header that lost tensors, and the data without theirs: safetensors allows no gaps."""
    kept, parts, at = {}, [], 0
    for name, said in header.items():
        if name == "__metadata__":
            kept[name] = said
            continue
        begin, end = said["data_offsets"]
        kept[name] = {**said, "data_offsets": [at, at + end - begin]}
        parts.append(data[begin:end])
        at += end - begin
    return kept, b"".join(parts)


def damaged_values(value, may_be_huge: bool) -> Iterator[tuple[str, object]]:
    """(what was done, another value) of a value in JSON."""
    if isinstance(value, bool):
        yield "another value", not value
    elif isinstance(value, int | float):
        yield from (("another value", changed) for changed in (value + 1, 2 * value + 3))
        yield from (("negative", -value - 1), ("no number", float("nan")), ("infinite", float("inf")))
        if may_be_huge:
            yield "huge", 10**9
    elif isinstance(value, str):
        yield from (("another word", value + "_"), ("empty", ""))
    elif isinstance(value, list) and value:
        yield from (("shorter", value[:-1]), ("longer", [*value, value[-1]]), ("empty", []))
        yield from ((what, [changed, *value[1:]]) for what, changed in damaged_values(value[0], may_be_huge))
    elif value is None:
        yield "another value", 2
    for what, other in (("a text", "text"), ("a list", [value]), ("an object", {"a": 1}), ("null", None)):
        if other != value:
            yield what, other


def damaged_json(config: dict, own: bool) -> Iterator[tuple[str, dict]]:
    """(what was done, the config): each key removed, each value changed, those of an inner object too."""
    for key, value in config.items():
        yield f"{key} removed", {k: v for k, v in config.items() if k != key}
        yield f"{key} renamed", {(k + "_" if k == key else k): v for k, v in config.items()}
        for what, other in damaged_values(value, own):
            yield f"{key}: {what}", {**config, key: other}
        if isinstance(value, dict):
            yield from ((f"{key}.{what}", {**config, key: inner}) for what, inner in damaged_json(value, own))


def damages(folder: Path) -> Iterator[tuple[Path, str, bytes]]:
    """(file, what was done, its content) of each damage of a portable folder, one at a time."""
    for file in sorted(folder.rglob("*.safetensors")):
        yield from ((file, what, content) for what, content in damaged_weights(file.read_bytes()))
    for file in sorted(folder.rglob("*.json")):
        if file.name in ("run.json", "results.json"):
            continue  # no library reads them
        text = file.read_bytes()
        yield from ((file, "cut in half", text[: len(text) // 2]), (file, "empty", b""), (file, "a list", b"[]"))
        config = json.loads(text)
        if file.name == "tokenizer.json":
            config = {key: config[key] for key in list(config)[:4]}
            vocabulary = json.loads(text)
            word = next(iter(vocabulary["model"]["vocab"]))
            for what in ("removed", "out of range"):
                other = copy.deepcopy(vocabulary)
                number = other["model"]["vocab"].pop(word)
                if what == "out of range":
                    other["model"]["vocab"][word] = number + 10**6
                yield file, f"tokenizer: a token {what}", json.dumps(other).encode()
            continue
        own = "_class_name" not in config or any(file.parent.glob("*.py"))
        for what, other in damaged_json(config, own):
            yield file, what, json.dumps(other).encode()


def clone(folder: Path, to: Path, file: Path, content: bytes) -> Path:
    """The folder, its files linked, with another content of one file."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to, copy_function=os.link)
    (to / file.relative_to(folder)).unlink()
    (to / file.relative_to(folder)).write_bytes(content)
    return to


def loaders(layout: str) -> dict[str, Callable]:
    """How users load a folder: by default, and with low_cpu_mem_usage=False."""
    import torch

    if layout == "transformers":
        from transformers import pipeline

        return {"default": lambda folder: pipeline(model=str(folder), trust_remote_code=True, device="cpu")}
    from diffusers import DiffusionPipeline

    def load(folder: Path, **options):
        pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32, **options)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return {"default": load, "all in memory": lambda folder: load(folder, low_cpu_mem_usage=False)}


def answers(pipe, x) -> list:
    """What a pipeline draws with one seed, and says of x, as tensors or texts."""
    import torch

    found = []
    if x is None:
        generator = torch.Generator().manual_seed(0)
        found.append(pipe("th", max_new_tokens=12, generator=generator)["generated_text"])
        return [*found, pipe.log_prob(["the end"])]
    if "sample" in pipe.calls:
        takes = inspect.signature(pipe.__call__).parameters
        few = {"num_inference_steps": 3} if "num_inference_steps" in takes else {}
        result = pipe(2, generator=torch.Generator().manual_seed(0), output_type="pt", return_dict=False, **few)
        found.append(result[0])
    for call in sorted(pipe.calls & {"classify", "assign", "transform"}):
        found.append(getattr(pipe, call)(x))
    return found


def agree(one: list, other: list) -> bool:
    import torch

    def same(a, b) -> bool:
        if isinstance(a, str):
            return a == b
        return a.shape == b.shape and torch.allclose(a.float(), b.float(), atol=1e-5)

    return len(one) == len(other) and all(map(same, one, other))


def try_model(name: str, work: Path, counts: Counter, listed: list[str], every: int) -> int:
    """Damage a checkpoint in every way; returns how many damages there were."""
    import torch

    from training.layouts.choice import layout_of
    from training.options import UsageError
    from training.publishing.build import build

    build(ROOT / "checkpoints" / name, work / name)
    folder, layout = work / name, layout_of(work / name)
    ways = loaders(layout.__name__.split(".")[-1])
    whole = ways["default"](folder)
    x = None
    if hasattr(whole, "data_spec"):
        x = torch.rand(2, *whole.data_spec["shape"], generator=torch.Generator().manual_seed(1)).round()
    expected, count = answers(whole, x), 0
    for file, what, content in itertools.islice(damages(folder), 0, None, every):
        count += 1
        place = clone(folder, work / "damaged", file, content)
        where = f"{name}/{file.relative_to(folder)}: {what}"
        for way, load in ways.items():
            try:
                pipe = load(place)
            except Exception as error:
                ours = isinstance(error, ValueError) and "\n" not in str(error) and raised_here(error)
                counts["refused" if ours else "by_library"] += 1
                continue
            try:
                outcome = "same" if agree(expected, answers(pipe, x)) else "otherwise"
            except Exception as error:
                outcome = f"late ({type(error).__name__}: {error})"
            if outcome == "otherwise" and any(word in where for word in UNTOLD):
                outcome = "other_model"
            counts[outcome.split()[0]] += 1
            if outcome not in ("same",):
                listed.append(f"{outcome}: {where} ({way})")
        try:
            layout.load(place, "cpu")
        except UsageError as error:
            if "\n" in str(error):
                counts["not_one_line"] += 1
                listed.append(f"not one line: {where}")
        except Exception as error:
            counts["not_one_line"] += 1
            listed.append(f"not one line: {where} ({type(error).__name__})")
    return count


def raised_here(error: Exception) -> bool:
    """Whether code of this project raised it, which runs under a hashed name."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return (
        "diffusers_modules" in trace.tb_frame.f_code.co_filename
        or "transformers_modules" in trace.tb_frame.f_code.co_filename
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", help="names of checkpoints; all of them where none is given")
    parser.add_argument("--list", action="store_true", help="also print each damage that was not refused")
    parser.add_argument("--every", type=int, default=1, help="only each n-th damage, for a first look")
    options = parser.parse_args()
    names = options.models or sorted(file.parent.name for file in (ROOT / "checkpoints").glob("*/run.json"))
    counts, listed, seconds, damaged = Counter(), [], {}, 0
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HF_MODULES_CACHE"] = f"{temporary}/modules"
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        for name in names:
            start = time.perf_counter()
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                damaged += try_model(name, Path(temporary), counts, listed, options.every)
            seconds[name] = round(time.perf_counter() - start, 1)
            if options.list:
                print(f"{name}: {seconds[name]} s", *listed, sep="\n", flush=True)
            listed.clear()
    for key in ("refused", "by_library", "same", "other_model", "otherwise", "late", "not_one_line"):
        counts.setdefault(key, 0)
    print(json.dumps({"damages": damaged, **counts, "seconds": seconds}))


if __name__ == "__main__":
    main()
