"""Which versions of diffusers and transformers load and draw what is published.

    python benchmarks/versions.py                                # the oldest and the newest that are supported
    python benchmarks/versions.py --only 0.34.0,4.50.0 0.36.0,4.57.6

Every checkpoint is built. Of each pair of versions, of diffusers and of transformers, both are installed with what they ask
for, in an environment of their own beside torch and numpy of this one; there each built folder is loaded, and drawn from or
asked. Prints what failed, and one JSON line: for each pair how many folders answered, of how many. Exits with 1 if one
did not.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

ANSWER = """
import importlib.metadata, json, sys, warnings
warnings.filterwarnings("ignore")
import torch
from pathlib import Path

def of_diffusers(folder):
    from diffusers import DiffusionPipeline
    pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    if "sample" in pipe.calls:
        pipe(batch_size=2, generator=torch.Generator().manual_seed(0))
    else:
        getattr(pipe, "reconstruct" if "reconstruct" in pipe.calls else "__call__")(torch.zeros(1, *pipe.data_spec["shape"]))

def of_transformers(folder):
    from transformers import pipeline
    pipe = pipeline(model=folder, trust_remote_code=True, device="cpu")
    assert pipe("The ", max_new_tokens=3)["token_ids"]
    from transformers import AutoTokenizer
    assert AutoTokenizer.from_pretrained(folder)("The ")["input_ids"]

wanted, found = json.loads(sys.argv[1]), {}
assert {library: importlib.metadata.version(library) for library in wanted} == wanted
for library, folder in map(str.split, sys.argv[2:]):
    try:
        {"diffusers": of_diffusers, "transformers": of_transformers}[library](folder)
        found[Path(folder).name] = None
    except Exception as error:
        found[Path(folder).name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
print(json.dumps(found))
"""


def built(to: Path) -> list[tuple[str, Path]]:
    """The built folder of each checkpoint, with its library."""
    from training.layouts.choice import layout_of
    from training.publishing.build import build

    sources = sorted(path.parent for path in (ROOT / "checkpoints").glob("*/run.json"))
    for source in sources:
        build(source, to / source.name, is_loaded=False)
    return [(layout_of(source).LIBRARY, to / source.name) for source in sources]


def environment(place: Path, versions: dict[str, str]) -> Path:
    """The python of an environment with these versions; torch and numpy are those of this environment."""
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    interpreter = place / "bin" / "python"
    packages = place / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (packages / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    wanted = [f"{library}=={version}" for library, version in versions.items()]
    install = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(wanted)}: cannot be installed ({done.stderr.strip()[-300:]})")
    return interpreter


def main() -> None:
    from training.publishing.code import SUPPORTED

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ends = [",".join(pair) for pair in zip(*SUPPORTED.values(), strict=True)]
    parser.add_argument("--only", nargs="*", default=ends, help=f"pairs of versions; {' and '.join(ends)} by default")
    options = parser.parse_args()
    counts = {}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        folders = built(place / "built")
        for pair in options.only:
            versions = dict(zip(SUPPORTED, pair.split(","), strict=True))
            python = environment(place / pair, versions)
            done = subprocess.run(
                [python, "-c", ANSWER, json.dumps(versions), *(f"{library} {folder}" for library, folder in folders)],
                capture_output=True, text=True, cwd=place,
                env={"PATH": os.environ["PATH"], "HF_HOME": str(place / f"home-{pair}"), "HF_HUB_OFFLINE": "1"},
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(f"{versions}: {done.stderr.strip()[-1000:]}")
            found = json.loads(done.stdout.splitlines()[-1])
            for name, error in found.items():
                if error:
                    print(f"{versions}: {name}: {error}", flush=True)
            counts[pair] = [sum(error is None for error in found.values()), len(found)]
            print(f"{versions}: {counts[pair][0]} of {counts[pair][1]}", flush=True)
    print(json.dumps(counts))
    sys.exit(any(answered < of for answered, of in counts.values()))


if __name__ == "__main__":
    main()
