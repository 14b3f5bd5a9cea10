"""Runs that are damaged in every way that was thought of, and resumed: is each recovered, or refused in one line?

    python benchmarks/damaged_runs.py

A tiny run of one network, as if killed after eight of its twelve steps, the same one finished, one of two players and one
that is fitted at once. Each file is cut, flipped, removed, emptied, replaced by a folder, a pipe, a link; each JSON file also
rewritten in other encodings, shapes and types, key by key; checkpoints are renamed, exchanged with those of another run, and
rewritten with hashes that fit by someone who knows how. Each damaged copy is resumed in this process, and must end with the
very weights of an unbroken run, or in one line that changes none of its checkpoints. Prints one JSON line of counts; exits
with 1 if a run went on wrongly or ended in a traceback.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from training.adversarial import gan  # noqa: E402
from training.autoencoders import vae  # noqa: E402
from training.classical import density  # noqa: E402
from training.loops.checkpoints import _digest  # noqa: E402
from training.options import UsageError  # noqa: E402

STEPS = ("--max_steps", "12", "--batch_size", "64", "--log_every", "4", "--save_every", "4", "--eval_every", "4",
         "--sample_every", "12", "--lr_warmup_steps", "2", "--keep_checkpoints", "3")  # fmt: skip
NETWORK = (vae.main, (*STEPS, "--width", "16", "--latent_dim", "2"))
RUNS = {  # name: (main, options, steps that a copy has done; all where there is no number)
    "one network, killed": (*NETWORK, 8),
    "one network, finished": (*NETWORK, None),
    "two players, killed": (gan.main, (*STEPS, "--dataset", "ring"), 8),
    "fitted at once": (density.main, ("--num_components", "2", "--max_samples", "300"), None),
}
Damage = Callable[[Path], None]


# Single files


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x55
    file.write_bytes(content)


def zeros(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def grown(file: Path) -> None:
    with open(file, "ab") as opened:
        opened.truncate(10**10)  # a hole: nothing of it lies on the disk


def as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def as_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def link_to_nothing(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.parent / "nowhere")


def link_to_a_device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


OF_ANY_FILE = {
    "cut": cut, "flipped": flipped, "removed": Path.unlink, "emptied": lambda file: file.write_bytes(b""), "zeros": zeros,
    "grown": grown, "a folder": as_folder, "a pipe": as_pipe, "a link to nothing": link_to_nothing,
    "a link to a device": link_to_a_device,
}  # fmt: skip


def rewritten(change: Callable[[str], bytes]) -> Damage:
    return lambda file: file.write_bytes(change(file.read_text(encoding="utf-8")))


OF_JSON = {
    "a mark before it": rewritten(lambda text: b"\xef\xbb\xbf" + text.encode()),
    "UTF-16": rewritten(lambda text: text.encode("utf-16")),
    "Latin-1": rewritten(lambda text: text.replace("{", '{"\u00e9": 1, ', 1).encode("latin-1")),
    "a list": rewritten(lambda text: f"[{text}]".encode()),
    "a text": rewritten(lambda text: json.dumps(text).encode()),
    "null": rewritten(lambda text: b"null"),
    "nested": rewritten(lambda text: b'{"step": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "an endless number": rewritten(lambda text: text.replace("{", '{"more": ' + "9" * 10**6 + ", ", 1).encode()),
    "named twice": rewritten(lambda text: text.replace("{", '{"step": 3, ', 1).encode()),
    "no key": rewritten(lambda text: b"{}"),
}
OTHERS = (None, True, 3, -1, 3.5, "text", [], [1, "a"], {}, {"a": 1}, 10**30)  # instead of what a key holds


def changed(key: str, value) -> Damage:
    def damage(file: Path) -> None:
        found = json.loads(file.read_text())
        file.write_text(json.dumps({**found, key: value}))

    return damage


def without(key: str) -> Damage:
    def damage(file: Path) -> None:
        found = json.loads(file.read_text())
        found.pop(key)
        file.write_text(json.dumps(found))

    return damage


def not_a_number(key: str) -> Damage:
    return changed(key, float("nan"))


def key_by_key(file: Path) -> Iterator[tuple[str, Damage]]:
    """Each key of a JSON file removed, and holding what has another type or is another value of its own."""
    for key, value in json.loads(file.read_text()).items():
        yield f"without {key}", without(key)
        yield f"{key} NaN", not_a_number(key)
        for other in OTHERS:
            if other != value:
                yield f"{key} is {other!r}", changed(key, other)
        if type(value) is int:
            yield f"{key} one more", changed(key, value + 1)


def option_by_option(file: Path) -> Iterator[tuple[str, Damage]]:
    """Each option in run.json removed, and of another type."""
    options = json.loads(file.read_text())["options"]
    for name in options:
        yield f"without --{name}", changed("options", {k: v for k, v in options.items() if k != name})
        for other in ([], {"a": 1}, "text", 10**30, None):
            if other != options[name]:
                yield f"--{name} is {other!r}", changed("options", {**options, name: other})


# Whole checkpoints, of which the newest is damaged


def newest(folder: Path) -> Path:
    return sorted((folder / "checkpoints").glob("step-*"))[-1]


def forge(checkpoint: Path, **changes) -> None:
    """Write the hashes of a checkpoint anew, as someone can who knows how."""
    facts = json.loads((checkpoint / "state.json").read_text())
    facts.pop("digest")
    facts["sha256"] = {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in checkpoint.iterdir() if p.name != "state.json"
    }
    facts = {k: v for k, v in {**facts, **changes}.items() if v is not ...}
    (checkpoint / "state.json").write_text(json.dumps({**facts, "digest": _digest(facts)}))


def forged_weights(change: Callable[[dict], object]) -> Damage:
    def damage(checkpoint: Path) -> None:
        file = sorted(checkpoint.glob("*.safetensors"))[-1]
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)
        forge(checkpoint)

    return damage


def first_of(tensors: dict, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    name = next(name for name, value in tensors.items() if value.is_floating_point())
    tensors[name] = change(tensors[name])


def forged_optimizer(write: Callable[[dict], bytes]) -> Damage:
    def damage(checkpoint: Path) -> None:
        for file in checkpoint.glob("*.pt"):
            file.write_bytes(write(torch.load(file, weights_only=True)))
        forge(checkpoint)

    return damage


def saved(state) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


class Code:
    """What leaves a file behind if it is unpickled as it asks."""

    def __reduce__(self):
        return open, (str(Path(tempfile.gettempdir()) / "genus-was-run"), "w")


def compressed(state: dict) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(state))) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + bytes(10**6))
    return buffer.getvalue()


def changed_state(change: Callable[[dict], object]) -> Damage:
    def write(state: dict) -> bytes:
        change(state)
        return saved(state)

    return forged_optimizer(write)


def first_parameter(change: Callable[[dict], object]) -> Damage:
    return changed_state(lambda state: change(state["state"][0]))


def first_group(**changes) -> Damage:
    return changed_state(lambda state: state["param_groups"][0].update(changes))


OF_WEIGHTS = {
    "NaN": forged_weights(lambda tensors: first_of(tensors, lambda t: t * float("nan"))),
    "infinite": forged_weights(lambda tensors: first_of(tensors, lambda t: t / 0)),
    "a tensor less": forged_weights(lambda tensors: tensors.popitem()),
    "a tensor more": forged_weights(lambda tensors: tensors.update(more=torch.zeros(3))),
    "another shape": forged_weights(lambda tensors: first_of(tensors, lambda t: t.reshape(-1, 1, 1, 1).contiguous())),
    "8-bit numbers": forged_weights(lambda tensors: first_of(tensors, lambda t: t.to(torch.int8))),
    "16-bit numbers": forged_weights(lambda tensors: first_of(tensors, torch.Tensor.half)),
    "no tensors": forged_weights(dict.clear),
}
OF_OPTIMIZERS = {
    "a pickle that runs code": forged_optimizer(lambda state: pickle.dumps(Code())),
    "a file that runs code": forged_optimizer(lambda state: saved({**state, "param_groups": Code()})),
    "compressed": forged_optimizer(compressed),
    "a list": forged_optimizer(lambda state: saved([1, 2])),
    "no groups": forged_optimizer(lambda state: saved({"state": {}})),
    "text for a state": forged_optimizer(lambda state: saved({**state, "state": "text"})),
    "NaN": first_parameter(lambda kept: kept["exp_avg"].fill_(float("nan"))),
    "another shape": first_parameter(lambda kept: kept.update(exp_avg=torch.zeros(3, 1, 1))),
    "text for a tensor": first_parameter(lambda kept: kept.update(exp_avg="text")),
    "other betas": first_group(betas=(0.5, 0.5)),
    "text for betas": first_group(betas="text"),
    "text for a learning rate": first_group(lr="text"),
    "a parameter more": changed_state(lambda state: state["state"].update({10**6: {}})),
}
OF_FACTS = {
    "another step": {"step": 12}, "text for a step": {"step": "8"}, "no step": {"step": ...}, "no run": {"run": ...},
    "another run": {"run": "0" * 16}, "other options": {"options": {"seed": 5}}, "a list of options": {"options": [1]},
    "a best that is text": {"best": "text"}, "a best that is empty": {"best": {}}, "hashes that are a list": {"sha256": []},
    "no hashes": {"sha256": {}}, "another file": {"sha256": {"../../run.json": "0"}}, "no processes": {"processes": ...},
}  # fmt: skip


def as_link(checkpoint: Path) -> None:
    checkpoint.rename(checkpoint.with_name("elsewhere"))
    checkpoint.symlink_to(checkpoint.with_name("elsewhere"))


def link_to_a_folder_around(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.symlink_to(checkpoint.parent)


def as_file(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.write_text("text")


def unreadable(checkpoint: Path) -> None:
    checkpoint.chmod(0)


def named(name: str) -> Damage:
    return lambda checkpoint: checkpoint.rename(checkpoint.with_name(name))


def copied(name: str) -> Damage:
    return lambda checkpoint: shutil.copytree(checkpoint, checkpoint.with_name(name))


def as_the_one_before(checkpoint: Path) -> None:
    before = sorted(checkpoint.parent.glob("step-*"))[-2]
    shutil.rmtree(checkpoint)
    shutil.copytree(before, checkpoint)


OF_CHECKPOINTS = {
    "removed": shutil.rmtree, "a link": as_link, "a link to a folder around it": link_to_a_folder_around,
    "a file": as_file, "unreadable": unreadable, "the one before": as_the_one_before,
    **{f"renamed {name}": named(name) for name in ("step-00000010", "step-abc", "step-", "step-10", "step-٠٠٠٠٠٠١٠")},
    **{f"copied as {name}": copied(name) for name in ("step-abc", "step-", "step-00000011", "step-99999999", "step--0000001")},
}  # fmt: skip


def foreign(other: Path) -> dict[str, Damage]:
    """What another run's files do in this one; each is told the run's folder."""

    def checkpoint(name: str) -> Damage:
        def damage(folder: Path) -> None:
            place = folder / "checkpoints" / name
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(newest(other), place)

        return damage

    def file(name: str) -> Damage:
        def damage(folder: Path) -> None:
            for mine, theirs in zip(*(sorted(place.glob(name)) for place in (folder, other)), strict=True):
                shutil.rmtree(mine) if mine.is_dir() else None
                (shutil.copytree if theirs.is_dir() else shutil.copyfile)(theirs, mine)

        return damage

    return {
        "checkpoint in the place of the newest": lambda folder: checkpoint(newest(folder).name)(folder),
        "checkpoint as a newer one": checkpoint("step-00000099"),
        **{f"{name}": file(name) for name in ("run.json", "log.jsonl", "checkpoints", "checkpoints/best")},
        "weights": lambda folder: shutil.copyfile(
            sorted(newest(other).glob("*.safetensors"))[-1], sorted(newest(folder).glob("*.safetensors"))[-1]
        ),
    }


def several() -> dict[str, Damage]:
    """Damage that meets more than one checkpoint, or what lies beside them."""

    def all_of(pattern: str, damage: Damage) -> Damage:
        return lambda folder: [damage(place) for place in sorted(folder.glob(pattern))]

    return {
        "all checkpoints cut": all_of("checkpoints/step-*/*.safetensors", cut),
        "all checkpoints gone": all_of("checkpoints/step-*", shutil.rmtree),
        "the folder of checkpoints gone": lambda folder: shutil.rmtree(folder / "checkpoints"),
        "the folder of checkpoints a file": lambda folder: as_file(folder / "checkpoints"),
        "every state.json emptied": all_of("checkpoints/*/state.json", lambda file: file.write_text("")),
        "a step-abc beside the others": lambda folder: (folder / "checkpoints" / "step-abc").mkdir(),
        "a file step-00000010": lambda folder: (folder / "checkpoints" / "step-00000010").write_text("text"),
        "a link step-00000016": lambda folder: (folder / "checkpoints" / "step-00000016").symlink_to(newest(folder)),
        "a half-written one": lambda folder: (folder / "checkpoints" / ".step-00000012.tmp").mkdir(),
    }


def damages(folder: Path, other: Path) -> Iterator[tuple[str, Damage]]:
    """(name, damage) for a run's folder, and `other`, another run of the same recipe; a damage is given the folder."""

    def of(place: str, damage: Damage) -> Damage:
        return lambda folder: damage(folder / place)

    yield "nothing", lambda folder: None
    yield "every file cut", lambda folder: [cut(file) for file in folder.rglob("*") if file.is_file()]
    if (folder / "checkpoints").is_dir():
        yield from several().items()
        yield from ((f"of another run: {name}", damage) for name, damage in foreign(other).items())
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        place = file.relative_to(folder).as_posix()
        found = dict(OF_ANY_FILE)
        if file.suffix == ".json":
            found |= OF_JSON
        if file.name in ("run.json", "state.json"):
            found |= dict(key_by_key(file))
        if file.name == "run.json":
            found |= dict(option_by_option(file))
        if file.name == "log.jsonl":
            found |= {name: OF_JSON[name] for name in ("a mark before it", "UTF-16", "a text", "null", "nested")}
            found["other lines"] = lambda file: file.write_text(
                '[1]\n{"loss": 3}\n{"step": "a"}\n{"step": 4, "loss": {}}\n'
            )
        yield from ((f"{place}: {name}", of(place, damage)) for name, damage in found.items())
    if not (folder / "checkpoints").is_dir():
        return
    for place in (f"checkpoints/{newest(folder).name}", "checkpoints/best"):
        if not (folder / place).is_dir():
            continue
        found = (
            {**OF_CHECKPOINTS}
            if "step" in place
            else {k: v for k, v in OF_CHECKPOINTS.items() if k != "the one before"}
        )
        found |= {f"forged weights, {name}": damage for name, damage in OF_WEIGHTS.items()}
        found |= {f"forged facts, {k}": lambda checkpoint, v=v: forge(checkpoint, **v) for k, v in OF_FACTS.items()}
        if "step" in place:
            found |= {f"forged optimizer, {name}": damage for name, damage in OF_OPTIMIZERS.items()}
        yield from ((f"{place}: {name}", of(place, damage)) for name, damage in found.items())


# Resuming


def quietly(main: Callable, folder: Path, *words: str) -> None:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        main(["--output_dir", str(folder), *words])


def made(name: str, folder: Path, seed: int = 0) -> Path:
    """A whole run at `folder`/whole, and at `folder`/run a copy of it that has done fewer steps; the whole one."""
    main, words, done = RUNS[name]
    whole, copy = folder / "whole", folder / "run"
    quietly(main, whole, *words, "--seed", str(seed))
    shutil.copytree(whole, copy)
    record = json.loads((whole / "run.json").read_text())
    if done is not None:  # what a run leaves that is killed after its checkpoint of that step
        for checkpoint in (copy / "checkpoints").glob("step-*"):
            if int(checkpoint.name[5:]) > done:
                shutil.rmtree(checkpoint)
        for part in copy.iterdir():
            if part.name not in ("run.json", "log.jsonl", "checkpoints"):
                shutil.rmtree(part) if part.is_dir() else part.unlink()
        (copy / "run.json").write_text(json.dumps({**record, "status": "running", "step": done}))
    return whole


def weights(folder: Path) -> dict[str, bytes]:
    """The bytes of the finished pipeline's weights."""
    files = [p for p in folder.glob("*/*.safetensors") if p.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def checkpoints(folder: Path) -> dict[str, bytes]:
    """The bytes of all that lies in its checkpoints."""
    files = [p for p in folder.glob("checkpoints/*/*") if p.is_file() and p.stat().st_size < 10**9]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files if not p.is_symlink()}


def outcome(name: str, folder: Path, whole: Path) -> tuple[str, str]:
    """(what became of a damaged run that is resumed, what was said)."""
    main, words, _ = RUNS[name]
    before = weights(folder), checkpoints(folder)

    def too_long(number, frame):
        raise TimeoutError("it hangs")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(60)
    try:
        quietly(main, folder, *words, "--resume", "true")
    except UsageError as error:
        said = str(error)
        if "\n" in said or (weights(folder), checkpoints(folder)) != before:
            return "went on wrongly", f"refused, but changed something: {said}"
        return "refused in one line", said
    except BaseException as error:
        return "tracebacks", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    if weights(folder) != weights(whole):
        return "went on wrongly", "other weights"
    return "recovered bit-equal", ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=RUNS, help="one of the runs; all by default")
    parser.add_argument("--show", action="store_true", help="print what became of each damaged run")
    options = parser.parse_args()
    ran = Path(tempfile.gettempdir()) / "genus-was-run"
    ran.unlink(missing_ok=True)
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in [options.only] if options.only else RUNS:
            place = Path(folder) / name
            whole, other = made(name, place), place / "other" / "run"
            made(name, place / "other", seed=1)
            found = counts[name] = Counter()
            for damage_name, damage in damages(place / "run", other):
                damaged = place / "damaged"
                shutil.copytree(place / "run", damaged, symlinks=True)
                damage(damaged)
                became, said = outcome(name, damaged, whole)
                found[became] += 1
                if options.show or became in ("went on wrongly", "tracebacks"):
                    print(f"{name} | {damage_name[:120]} | {became} | {said[:300]}", file=sys.stderr)
                for place_of in damaged.rglob("*"):
                    if place_of.is_dir() and not place_of.is_symlink():
                        place_of.chmod(0o755)
                shutil.rmtree(damaged)
    total = sum(counts.values(), Counter())
    result = {
        "damaged": sum(total.values()),
        **{key: total[key] for key in ("recovered bit-equal", "refused in one line", "went on wrongly", "tracebacks")},
        "code that was run": int(ran.exists()),
        "by run": {name: dict(found) for name, found in counts.items()},
    }
    print(json.dumps(result))
    sys.exit(bool(total["went on wrongly"] or total["tracebacks"] or ran.exists()))


if __name__ == "__main__":
    main()
