"""Folders that would run foreign code, leak a secret or are damaged: how many are approved, published, or end in a traceback.

    python benchmarks/foreign_code.py

Portable folders of committed checkpoints are changed in some dozens of ways, each by a small function below. Prints one JSON
line of counts: what `--verify` approves (a load of it would run other code than this project's), what `publish` lets through
(a token, a file of another folder), which damaged files end in a traceback; and the names of those. All must be 0.
"""

import contextlib
import io
import json
import os
import pickle
import shutil
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from training import evaluate, publish  # noqa: E402
from training.figures import all_tables  # noqa: E402
from training.options import UsageError  # noqa: E402
from training.publishing.build import build  # noqa: E402
from training.publishing.code import hashed_name  # noqa: E402
from training.publishing.verify import verify_folder  # noqa: E402

PLAIN, LIBRARY, LANGUAGE = "vae-digits", "ddpm-digits", "gpt-shakespeare"
INDEX, CONFIG = "model_index.json", "config.json"
EVIL = b"import os\nos.environ['FOREIGN'] = 'ran'\n"
TOKEN = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ012345"  # of no account


def edit(file: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def entry(file: str, *keys: str, value) -> Callable[[Path], None]:
    """Sets an entry of a JSON file."""

    def change(folder: Path) -> None:
        def put(content: dict) -> None:
            for key in keys[:-1]:
                content = content.setdefault(key, {})
            content[keys[-1]] = value

        edit(folder / file, put)

    return change


def added(name: str, content: bytes = EVIL) -> Callable[[Path], None]:
    """Puts a file into the folder."""

    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return change


def linked(name: str, to: str) -> Callable[[Path], None]:
    """Puts a link in the place of a file or a folder."""

    def change(folder: Path) -> None:
        place = folder / name
        if place.exists():
            kept = folder.with_name(f"{folder.name}-{Path(name).name}")
            shutil.move(place, kept)
            place.symlink_to(kept)
        else:
            place.symlink_to(to)

    return change


def pipeline_file(folder: Path) -> Path:
    return next(folder.glob("pipeline_*.py"))


def another_pipeline(folder: Path, name: Callable[[bytes], str]) -> str:
    """A pipeline of the same class that does more, under a name made of its content."""
    old = pipeline_file(folder)
    content = old.read_bytes() + b"\n\n" + EVIL
    (folder / f"{name(content)}.py").write_bytes(content)
    old.unlink()
    return name(content)


def honest_name(folder: Path) -> None:
    module = another_pipeline(folder, lambda content: hashed_name("pipeline_vae", content))
    edit(folder / INDEX, lambda index: index.update(_class_name=[module, "VAEPipeline"]))


def plain_name(folder: Path) -> None:
    module = another_pipeline(folder, lambda content: "pipeline_vae")
    edit(folder / INDEX, lambda index: index.update(_class_name=[module, "VAEPipeline"]))


def old_name(folder: Path) -> None:
    pipeline_file(folder).write_bytes(pipeline_file(folder).read_bytes() + EVIL)


def foreign_component(folder: Path) -> None:
    file = next((folder / "vae").glob("modeling_*.py"))
    content = file.read_bytes() + EVIL
    module = hashed_name("modeling_vae", content)
    file.unlink()
    (folder / "vae" / f"{module}.py").write_bytes(content)
    edit(folder / INDEX, lambda index: index.update(vae=[module, "VAEModel"]))


def one_bit(folder: Path) -> None:
    file = next(folder.rglob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def other_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = next(folder.rglob("*.safetensors"))
    save_file({name: value * 2 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})


def metadata_in_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = next(folder.rglob("*.safetensors"))
    save_file(load_file(file), file, metadata={"format": "pt", "note": "x"})


def text_in_picture(folder: Path) -> None:
    content = (folder / "samples.png").read_bytes()
    body = b"tEXt" + b"Comment\0" + TOKEN.encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (folder / "samples.png").write_bytes(content[:33] + chunk + content[33:])


def behind_picture(folder: Path) -> None:
    (folder / "samples.png").write_bytes((folder / "samples.png").read_bytes() + b"PK\x03\x04" + EVIL)


def without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        place = next(folder.glob(name))
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    return change


def renamed(name: str, to: str) -> Callable[[Path], None]:
    return lambda folder: next(folder.glob(name)).rename(folder / to)


def card_line(line: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "README.md"
        file.write_text(file.read_text().replace("---\n", f"---\n{line}\n", 1))

    return change


def fifo(name: str) -> Callable[[Path], None]:
    return lambda folder: os.mkfifo(folder / name)


def deep(folder: Path) -> None:
    for _ in range(300):
        folder = folder / "x"
        folder.mkdir()
    (folder / "y.py").write_bytes(EVIL)


def crowded(folder: Path) -> None:
    for number in range(600):
        (folder / f"m{number}.json").write_text("{}")


# How a folder may come to run code that is not this project's, by the folder that is changed
TASK = ("custom_pipelines", "next-token")
ATTACKS: dict[str, dict[str, Callable[[Path], None]]] = {
    PLAIN: {
        "pipeline, honest name": honest_name,
        "pipeline, plain name": plain_name,
        "pipeline, name of before": old_name,
        "component, honest name": foreign_component,
        "class of another place": entry(INDEX, "_class_name", value=["../evil", "VAEPipeline"]),
        "class of a hidden folder": entry(INDEX, "_class_name", value=[".evil/pipeline", "VAEPipeline"]),
        "class of another repository": entry(INDEX, "_class_name", value=["other--pipeline", "VAEPipeline"]),
        "class of diffusers": entry(INDEX, "_class_name", value="DDPMPipeline"),
        "class without module": entry(INDEX, "_class_name", value="VAEPipeline"),
        "class, another one of the module": entry(INDEX, "_class_name", value=["pipeline_vae", "Contract"]),
        "component of subprocess": entry(INDEX, "vae", value=["subprocess", "Popen"]),
        "component of os": entry(INDEX, "vae", value=["os", "system"]),
        "component of os by our name": entry(INDEX, "vae", value=["os", "VAEModel"]),
        "component of diffusers, a pipeline": entry(INDEX, "vae", value=["diffusers", "DiffusionPipeline"]),
        "component of diffusers, a function": entry(INDEX, "vae", value=["diffusers", "logging"]),
        "component of transformers": entry(INDEX, "vae", value=["transformers", "pipeline"]),
        "component by a dotted name": entry(INDEX, "vae", value=["diffusers.utils", "VAEModel"]),
        "component beside the folder": entry(INDEX, "../vae", value=["modeling_vae", "VAEModel"]),
        "component at the root": entry(INDEX, "/etc", value=["modeling_vae", "VAEModel"]),
        "component more": entry(INDEX, "safety_checker", value=["evil", "Checker"]),
        "component with three words": entry(INDEX, "vae", value=["modeling_vae", "VAEModel", "x"]),
        "component without a folder": entry(INDEX, "other", value=[None, "VAEModel"]),
        "auto_map of the index": entry(INDEX, "auto_map", value={"AutoModel": "other/repo--modeling.Model"}),
        "auto_map of a config": entry("vae/config.json", "auto_map", value={"AutoModel": "other/repo--modeling.Model"}),
        "auto_map deep in a config": entry("vae/config.json", "data_spec", "auto_map", value={"AutoModel": "o/r--m.M"}),
        "custom_pipelines in a config": entry("vae/config.json", "custom_pipelines", value={"x": {"impl": "o/r--m.M"}}),
        "quantizer in a config": entry("vae/config.json", "quantization_config", value={"quant_method": "evil"}),
        "trust in a config": entry("vae/config.json", "trust_remote_code", value=True),
        "another class in a config": entry("vae/config.json", "_class_name", value="AutoModel"),
        "class of a config elsewhere": entry("vae/config.json", "_class_name", value="../evil.VAEModel"),
        "version that is none": entry(INDEX, "_diffusers_version", value="<script>"),
        "None.py, which diffusers takes": added("None.py"),
        "a module more": added("extra.py"),
        "a module beside the component": added("vae/helper.py"),
        "capitals": added("pipeline_vae.PY"),
        "compiled": added("__pycache__/pipeline_vae.cpython-311.pyc"),
        "a library": added("vae/native.so"),
        "a library of Windows": added("native.pyd"),
        "pickle, protocol 0": added("weights.txt", pickle.dumps({"a": 1}, 0)),
        "pickle, protocol 1": added("vae/scheduler", pickle.dumps({"a": 1}, 1)),
        "pickle, protocol 4, as JSON": added("x.json", pickle.dumps({"a": 1}, 4)),
        "pickle as weights": added("vae/diffusion_pytorch_model.bin", pickle.dumps({"a": 1}, 2)),
        "pickle in the place of weights": added("vae/diffusion_pytorch_model.safetensors", pickle.dumps({}, 0)),
        "hidden": added(".evil/pipeline.py"),
        "hidden beside the client's": added(".cache/evil.py"),
        "start-up of Python": added("sitecustomize.py"),
        "requirements": added("requirements.txt", b"evil\n"),
        "adapter": added("adapter_config.json", b'{"base_model_name_or_path": "other/repo"}'),
        "shards": added("vae/diffusion_pytorch_model.safetensors.index.json", b'{"weight_map": {"a": "../../x"}}'),
        "shell": added("run.sh", b"#!/bin/sh\n"),
        "Jinja": added("chat_template.jinja", b"{{ x }}"),
        "component that is a link": linked("vae", ""),
        "code that is a link": linked("extra.py", "/etc/hostname"),
        "weights that are a link": linked("vae/diffusion_pytorch_model.safetensors", ""),
        "index that is a link": linked(INDEX, ""),
        "card that is a link": linked("README.md", ""),
        "link to nothing": linked("x.json", "/nowhere"),
        "pipe": fifo("x.json"),
        "deep folders": deep,
        "600 files": crowded,
        "one bit of the weights": one_bit,
        "other weights": other_weights,
        "text in the weights": metadata_in_weights,
        "text in a picture": text_in_picture,
        "an archive behind a picture": behind_picture,
        "no picture": added("samples.png", b"<svg onload=x>"),
        "no weights": without("vae/*.safetensors"),
        "no index": without(INDEX),
        "no component": without("vae"),
        "no code": without("pipeline_*.py"),
        "no card": without("README.md"),
        "index under another name": renamed(INDEX, "Model_Index.json"),
        "prior in the card": card_line("prior: other/repo"),
        "base model in the card": card_line("base_model: other/repo"),
        "a new key in the record": entry("run.json", "hub_note", value="x"),
        "HTML in the record": entry("run.json", "device", value="<img src=x onerror=alert(1)>\n# x"),
        "place in the record": entry("run.json", "options", "output_dir", value="/home/somebody"),
        "token in the record": entry("run.json", "command", value=f"python -m x --hub_token {TOKEN}"),
    },
    LIBRARY: {
        "scheduler of subprocess": entry(INDEX, "scheduler", value=["subprocess", "Popen"]),
        "scheduler of transformers": entry(INDEX, "scheduler", value=["transformers", "AutoModel"]),
        "network that is an Auto class": entry(INDEX, "denoiser", value=["diffusers", "AutoModel"]),
        "network that is a pipeline": entry(INDEX, "denoiser", value=["diffusers", "StableDiffusionPipeline"]),
        "network by a private name": entry(INDEX, "denoiser", value=["diffusers", "__builtins__"]),
        "auto_map of a network": entry("denoiser/config.json", "auto_map", value={"AutoModel": "o/r--m.M"}),
        "quantizer of a network": entry("denoiser/config.json", "quantization_config", value={"quant_method": "bitsandbytes"}),
        "code beside a network of diffusers": added("denoiser/unet.py"),
        "code beside the scheduler": added("scheduler/scheduler.py"),
        "a config more": added("scheduler/config.json", b'{"_class_name": "x"}'),
    },
    LANGUAGE: {
        "pipeline of another repository": entry(CONFIG, *TASK, "impl", value="other/repo--pipeline_gpt.GPTPipeline"),
        "pipeline of another place": entry(CONFIG, *TASK, "impl", value="../evil.GPTPipeline"),
        "pipeline of the run": entry(CONFIG, *TASK, "impl", value="pipeline_gpt.GPTPipeline"),
        "pipeline of os": entry(CONFIG, *TASK, "impl", value="os.system"),
        "model by a function": entry(CONFIG, *TASK, "pt", value=["pipeline"]),
        "a task more": entry(CONFIG, "custom_pipelines", "evil", value={"impl": "other/repo--x.Y", "pt": ["AutoModel"]}),
        "auto_map": entry(CONFIG, "auto_map", value={"AutoModelForCausalLM": "other/repo--modeling.Model"}),
        "auto_map of a file": entry(CONFIG, "auto_map", value={"AutoConfig": "evil.Config"}),
        "auto_map, deep": entry(CONFIG, *TASK, "auto_map", value={"AutoConfig": "evil.Config"}),
        "model of no such type": entry(CONFIG, "model_type", value="evil"),
        "architecture of another model": entry(CONFIG, "architectures", value=["LlamaForCausalLM"]),
        "architecture that is no model": entry(CONFIG, "architectures", value=["AutoTokenizer"]),
        "kernel of the Hub": entry(CONFIG, "attn_implementation", value="other/kernel"),
        "kernel of the Hub, private": entry(CONFIG, "_attn_implementation", value="other/kernel"),
        "quantizer": entry(CONFIG, "quantization_config", value={"quant_method": "evil"}),
        "tokenizer's auto_map": entry("tokenizer_config.json", "auto_map", value={"AutoTokenizer": ["o/r--t.T", None]}),
        "tokenizer of another kind": entry("tokenizer_config.json", "tokenizer_class", value="Popen"),
        "tokenizer's processor": entry("tokenizer_config.json", "processor_class", value="other/repo--p.P"),
        "endless template": entry("tokenizer_config.json", "chat_template", value="{{ x }}" * 20_000),
        "tokenizer with more": entry("tokenizer.json", "auto_map", value={"AutoTokenizer": "o/r--t.T"}),
        "generation by code": entry("generation_config.json", "custom_generate", value="other/repo"),
        "generation by an object": entry("generation_config.json", "compile_config", value={"backend": "evil"}),
        "special tokens": added("special_tokens_map.json", b"{}"),
        "added tokens": added("added_tokens.json", b"{}"),
        "adapter": added("adapter_config.json", b'{"base_model_name_or_path": "other/repo"}'),
        "processor": added("preprocessor_config.json", b'{"auto_map": {"AutoProcessor": "o/r--p.P"}}'),
        "generator": added("custom_generate/generate.py"),
        "pickle": added("pytorch_model.bin", pickle.dumps({}, 2)),
        "index of diffusers": added(INDEX, b'{"_class_name": ["evil", "X"]}'),
        "page of a Space": added("app.py"),
        "a module": added("modeling_gpt.py"),
    },
}  # fmt: skip

# What may not be published, by what is done to a checkpoint
SECRETS = {
    "token in the command": entry("run.json", "command", value=f"python -m x --push_token={TOKEN}"),
    "--hub_token": entry("run.json", "command", value="python -m x --hub_token abc"),
    "token= in an option": entry("run.json", "options", "note", value="token=abcdef123456"),
    "token as a field": entry("run.json", "options", "hub_token", value="abc"),
    "GitHub": entry("run.json", "dataset", "licence", value="ghp_" + "a1B2" * 9),
    "GitHub, new": entry("run.json", "device", value="github_pat_" + "a1B2" * 9),
    "OpenAI": entry("results.json", "convention", value="sk-" + "a1B2" * 9),
    "AWS": entry("results.json", "machine", value="AKIA" + "A1B2" * 4),
    "private key": entry("run.json", "options", "key", value="-----BEGIN RSA PRIVATE KEY-----"),
    "address with a password": entry("run.json", "dataset", "id", value="https://me:secret@example.org/data"),
    "in a config": entry("vae/config.json", "network", value=TOKEN),
    "in the index": entry(INDEX, "data_spec", value={"note": TOKEN}),
    "in a warning": entry("run.json", "warnings", value=[{"step": 1, "message": f"Bearer {TOKEN}"}]),
    "in the declaration": entry("run.json", "declaration", "example", value=f'pipe(token="{TOKEN}")'),
    "in an unknown field": entry("run.json", "notes", value=TOKEN),
    "in a picture": text_in_picture,
    "behind a picture": lambda folder: (folder / "curve.png").write_bytes((folder / "curve.png").read_bytes() + TOKEN.encode()),
    "component that is a link": linked("vae", ""),
    "record that is a link": linked("run.json", ""),
    "a link to a file elsewhere": linked("x.png", "/etc/hostname"),
    "component beside the folder": entry(INDEX, "../vae", value=["pipelines.autoencoders.modeling_vae", "VAEModel"]),
}  # fmt: skip

# What a file of JSON may hold instead of what it should
DEPTH = 100_000
DAMAGE = {
    "empty": b"", "cut": b'{"step": 1, "options"', "null": b"null", "list": b"[1]", "text": b'"x"', "number": b"1",
    "nothing in it": b"{}", "mark": b"\xef\xbb\xbf{}", "UTF-16": "{}".encode("utf-16"), "NaN": b'{"step": NaN}',
    "twice": b'{"step": 1, "step": 2}', "deep": b'{"a": ' + b"[" * DEPTH + b"]" * DEPTH + b"}",
    "deep objects": b'{"a": ' * DEPTH + b"1" + b"}" * DEPTH, "half a character": b'{"a": "\\ud800"}',
    "huge integer": b'{"step": ' + b"9" * 5_000 + b"}", "binary": bytes(range(256)),
}  # fmt: skip
KINDS = (None, True, 1, -1, 1.5, 1e308, "x", "", [], [1], [[]], {}, {"x": 1}, {"x": []}, "x" * 20_000, "\u202e\n")


def fields(content: dict, depth: int, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """All fields of an object and of objects in it, so many levels down."""
    found = []
    for name, value in content.items():
        found.append((*above, name))
        if isinstance(value, dict) and depth > 1:
            found += fields(value, depth - 1, (*above, name))
    return found


def said(call: Callable[[], object]) -> str:
    """How a call ended: "done", "refused" in one line, or a "traceback"."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            call()
    except UsageError as error:
        return "refused" if "\n" not in str(error) and TOKEN not in str(error) else "several lines, or a token"
    except SystemExit:
        return "refused"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {error}"[:200]
    return "done"


def changed(original: Path, place: Path, change: Callable[[Path], None]) -> Path:
    """A copy of a folder in a new place, changed."""
    shutil.copytree(original, place)
    change(place)
    return place


def count(ended: dict[str, str], wrong: Callable[[str], bool]) -> dict:
    found = {name: how for name, how in ended.items() if wrong(how)}
    return {"tried": len(ended), "wrong": len(found), "which": found}


def attack(original: Path, attacks: dict, place: Path) -> dict[str, str]:
    """What `--verify` says of each: "approved", "BAD", or how it failed."""
    ended = {}
    for number, (name, change) in enumerate(attacks.items()):
        folder = changed(original, place / str(number) / original.name, change)
        good: list[bool] = []
        how = said(lambda folder=folder, good=good: good.append(verify_folder(folder)[0]))
        ended[name] = how if how != "done" else "approved" if good[0] else "BAD"
        shutil.rmtree(place / str(number))
    return ended


def leak(checkpoint: Path, place: Path) -> dict[str, str]:
    """What becomes of a checkpoint with a secret in it: "published" where the secret lies in the folder that was built."""
    ended = {}
    for number, (name, change) in enumerate(SECRETS.items()):
        folder = changed(checkpoint, place / str(number) / checkpoint.name, change)
        to = place / str(number) / "to" / "built"
        how = said(lambda folder=folder, to=to: build(folder, to))
        if how == "refused" and to.parent.exists():
            how = "refused, but something was left"
        if how == "done":
            words = (TOKEN, "abcdef123456", "ghp_", "sk-a1", "AKIA", "PRIVATE KEY", "secret@")
            texts = [file.read_bytes() for file in to.rglob("*") if file.is_file()]
            how = "published" if any(word.encode() in text for word in words for text in texts) else "left out"
        ended[name] = how
        shutil.rmtree(place / str(number))
    return ended


def break_files(original: Path, names: list[str], calls: dict, place: Path, depth: int = 3) -> dict[str, str]:
    """How each call ends for each way to damage each file, and for each field of another kind or gone."""
    ended = {}
    for name in names:
        content = json.loads((original / name).read_text())
        ways = {said: added(name, text) for said, text in DAMAGE.items()}
        for keys in fields(content, depth):
            for kind in KINDS:
                ways[f"{'.'.join(keys)} = {kind!r:.20}"] = entry(name, *keys, value=kind)
            ways[f"no {'.'.join(keys)}"] = lambda folder, name=name, keys=keys: edit(
                folder / name, lambda c: _drop(c, keys)
            )
        for number, (way, change) in enumerate(ways.items()):
            for called, call in calls.items():
                folder = changed(original, place / f"{number}-{called}" / original.name, change)
                ended[f"{called} {name}: {way}"] = said(lambda folder=folder, call=call: call(folder))
                shutil.rmtree(place / f"{number}-{called}")
    return ended


def _drop(content: dict, keys: tuple[str, ...]) -> None:
    for key in keys[:-1]:
        content = content[key]
    content.pop(keys[-1], None)


def tables(folder: Path) -> None:
    all_tables(folder.parent)


def published(folder: Path) -> None:
    publish.main([str(folder), "--to", str(folder.parent / "built")])


def kept(folder: Path) -> None:
    publish.main([str(folder), "--checkpoint", str(folder.parent / "kept")])


def checked(folder: Path) -> None:
    verify_folder(folder)


def evaluated(folder: Path) -> None:
    evaluate.main([str(folder), "--only", "kept_rows"])


def main() -> None:
    result = {}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        for name, attacks in ATTACKS.items():
            build(ROOT / "checkpoints" / name, place / name)
            assert verify_folder(place / name)[0], name
            result[f"verify {name}"] = count(attack(place / name, attacks, place / "tried"), lambda how: how != "BAD")
        ended = leak(ROOT / "checkpoints" / PLAIN, place / "leaks")
        result["secrets"] = count(ended, lambda how: how not in ("refused", "left out"))
        plain = ROOT / "checkpoints" / PLAIN
        for what, source, names, calls, depth in (
            ("publish", plain, [INDEX, "vae/config.json", "run.json", "results.json"], [published, kept, tables], 3),
            ("publish", ROOT / "checkpoints" / LIBRARY, [INDEX, "scheduler/scheduler_config.json"], [published], 2),
            ("publish", ROOT / "checkpoints" / LANGUAGE, [CONFIG, "tokenizer_config.json"], [published], 3),
            ("verify", place / PLAIN, [INDEX, "run.json", "results.json"], [checked], 2),
            ("evaluate", plain, [INDEX, "vae/config.json", "run.json", "results.json"], [evaluated], 1),
        ):
            named = {call.__name__: call for call in calls}
            ended = break_files(source, names, named, place / "broken", depth)
            wrong = count(ended, lambda how: how not in ("done", "refused"))
            result[f"damaged, {what} {source.name}"] = wrong
    print(json.dumps(result))


if __name__ == "__main__":
    main()
