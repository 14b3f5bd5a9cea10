"""The small files beside a model, damaged in every way: a page leaves their figures out, and says so where it is asked."""

import json
import shutil

import gradio as gr
import pytest

from tests.conftest import ROOT
from tests.spaces.conftest import kit_package, module_at


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    with kit_package(tmp_path_factory.mktemp("kit")) as package:
        yield package


ODD = (None, True, 3, -1.5, "x", [], [[]], {}, {"a": 1}, [1, "a", None, {"rows": 3}], 10**30)
GOOD = {
    "calls": ["sample", "noise", "predict"],
    "data_kind": "image",
    "num_classes": 10,
    "likelihood": "bound",
    "sweeps": {
        "num_inference_steps": {
            "samples": 1000,
            "rows": [{"value": 4, "frechet_distance": 60.5, "coverage": 0.5, "class_accuracy": 0.9}],
        }
    },
}


def damaged() -> dict[str, bytes]:
    """Files that are no JSON, or no object, by what is wrong with them."""
    good = json.dumps(GOOD)
    return {
        "empty": b"",
        "byte order mark": b"\xef\xbb\xbf" + good.encode(),
        "UTF-16": good.encode("utf-16"),
        "Latin-1": '{"é": 1}'.encode("latin-1"),
        "cut": good[: len(good) // 2].encode(),
        "NaN": good.replace("60.5", "NaN").encode(),
        "infinite": good.replace("60.5", "-Infinity").encode(),
        "digits": good.replace("60.5", "9" * 5000).encode(),
        "nested": b"[" * 100_000,
        "zeros": bytes(1000),
        **{
            f"{type(value).__name__} {value}": json.dumps(value).encode()
            for value in ODD
            if not isinstance(value, dict)
        },
    }


def with_odd_values(good) -> list[dict]:
    """An object, of which one value at a time, however deep, is another, or is missing."""
    if isinstance(good, dict):
        made = [{k: v for k, v in good.items() if k != name} for name in good]
        made += [{**good, name: odd} for name in good for odd in ODD]
        return made + [{**good, name: inner} for name, part in good.items() for inner in with_odd_values(part)]
    if isinstance(good, list):
        return [[*good, odd] for odd in ODD] + [[inner] for part in good for inner in with_odd_values(part)]
    return []


def test_what_is_no_record_is_left_out_in_one_line(kit, tmp_path):
    file = tmp_path / "results.json"
    assert kit.records.read_record(file, kit.records.RESULTS) == ({}, "")
    for what, content in damaged().items():
        file.write_bytes(content)
        found, problem = kit.records.read_record(file, kit.records.RESULTS)
        assert found == {} and problem.startswith("results.json ") and "\n" not in problem, what
        assert len(problem) < 300, what
    with open(file, "wb") as large:
        large.truncate(100_000_000)
    assert "100 MB" in kit.records.read_record(file, kit.records.RESULTS)[1]
    file.write_text(json.dumps(GOOD | {"else": 3}))
    assert kit.records.read_record(file, kit.records.RESULTS) == (GOOD, "")


def test_of_a_record_only_what_is_of_the_right_kind_is_kept(kit):
    cases = with_odd_values(GOOD)
    assert len(cases) > 100
    for content in cases:
        kept = kit.records.fitting(content, kit.records.RESULTS)
        assert kit.records.fitting(kept, kit.records.RESULTS) == kept
        assert all(isinstance(call, str) for call in kept.get("calls", []))
        for sweep in kept.get("sweeps", {}).values():
            assert all(isinstance(v, int | float) for row in sweep.get("rows", []) for v in row.values())
    assert kit.records.fitting({"a": [1, True, "x", 2.5]}, {"a": [int], "b": str}) == {"a": [1]}


@pytest.fixture
def quality(kit, tmp_path, monkeypatch):
    """What the diffusion Space says of the samples of a model whose results.json has a given content."""
    folder = tmp_path / "ddpm-x"
    folder.mkdir()
    monkeypatch.setenv("MODEL_ID", str(folder))
    monkeypatch.syspath_prepend(str(ROOT / "spaces" / "diffusion"))
    place = ROOT / "spaces" / "diffusion"
    with module_at(place / "diffusion_models.py"), module_at(place / "diffusion_quality.py") as module:

        def said(content: bytes) -> tuple[str, str]:
            (folder / "results.json").write_bytes(content)
            return module.diffusion_quality("ddpm-x")

        yield said


def test_a_page_shows_what_was_measured_or_one_line(quality):
    figure, text = quality(json.dumps(GOOD).encode())
    assert "<svg" in figure and "| 4 | 60.50 | 90.0% | 50.0% |" in text and "1,000 samples" in text
    for what, content in damaged().items():
        figure, text = quality(content)
        assert figure == "" and text.startswith("What was measured of ddpm-x is left out: results.json "), what
        assert "\n" not in text and "<" not in text
    for content in with_odd_values(GOOD):
        figure, text = quality(json.dumps(content).encode())
        assert text.startswith("Measured") if figure else text == "Nothing about steps was measured of ddpm-x."


def test_a_model_with_damaged_records_is_still_on_the_page(kit, portable, tmp_path, monkeypatch):
    """What it answers then stands in its code."""
    folder = tmp_path / "tiny"
    shutil.copytree(portable, folder)
    monkeypatch.setenv("MODEL_ID", str(folder))
    for number, content in enumerate(damaged().values()):
        for name in ("results.json", "run.json"):
            (folder / name).write_bytes(content)
        kit.models._record.cache_clear()
        kit.facts.read_facts.cache_clear()
        models = kit.models.Models(needs=(("sample", "encode"),), kind="image")
        facts = kit.facts.facts_of(models)["tiny"]
        assert list(models) == ["tiny"] and facts.problem == "" and {"sample", "encode"} <= facts.calls, number


def test_a_folder_that_is_no_model_is_named_on_the_page_in_one_line(kit, portable, tmp_path, monkeypatch):
    folder = tmp_path / "tiny"
    shutil.copytree(portable, folder)
    monkeypatch.setenv("MODEL_ID", str(folder))
    index = json.loads((folder / "model_index.json").read_text())
    contents = [*damaged().values()]
    contents += [json.dumps({**index, "../x": ["diffusers", "UNet2DModel"]}).encode()]
    contents += [json.dumps({**index, "_class_name": ["../../tests/conftest", "A"]}).encode()]
    for spec in (
        "x",
        [1],
        {"kind": "image", "shape": "x"},
        {"shape": [1, "a"]},
        {"num_classes": 10**9},
        {"num_classes": "x"},
    ):
        contents.append(json.dumps({**index, "data_spec": spec}).encode())
    for content in contents:
        (folder / "model_index.json").write_bytes(content)
        kit.facts.read_facts.cache_clear()
        models = kit.models.Models()
        problem = kit.facts.facts_of(models)["tiny"].problem
        assert problem and "\n" not in problem and len(problem) <= 400, content
        with kit.theme.page("test") as demo:
            kit.facts.say_left_out(models, kit.facts.facts_of(models), [[]])
        (line,) = [block.value for block in demo.blocks.values() if isinstance(block, gr.Markdown)]
        assert line.startswith("Named by `MODEL_ID`, but not on this page: `tiny` (") and "<" not in line


def test_whatever_a_load_raises_is_one_line(kit, portable, monkeypatch):
    monkeypatch.setenv("MODEL_ID", str(portable))
    monkeypatch.setattr(kit.models.Models, "loaded", type(kit.models.Models.loaded)())
    models = kit.models.Models()
    for raised in (ValueError(), ValueError("\n\n  "), KeyError("a"), SystemExit(3), RecursionError(), MemoryError(),
                   RuntimeError("first line\nsecond"), OSError("<script>" + "x" * 10**6)):  # fmt: skip

        def load(where, revision, raised=raised):
            raise raised

        monkeypatch.setitem(kit.models.PIPELINES, "diffusers", lambda load=load: load)
        with pytest.raises(gr.Error) as refused:
            models[portable.name]
        message = refused.value.message
        assert "cannot be loaded: " in message and not message.endswith(": ") and len(message) < 700
        assert "\n" not in message and "<" not in message
