"""Every family answers the calls it owes, in the shapes and with the errors that DESIGN's table promises.

Nothing here names a family: each tests/pipelines/test_<family>.py exports `INSTANCES`, tiny untrained pipelines and
what they owe (see tests/contract.py), and all are collected from there. One instance of each pipeline class is asked
everything again as it is published: built, and loaded by remote code.
"""

import ast
import copy
import functools
import importlib
import importlib.util
import inspect
import json
import math
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import convert_outputs_to_fp32
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import nn

from pipelines.specs import DATA_SPEC
from tests.conftest import ROOT
from tests.contract import Instance, damages, result, seeds
from training.publishing.build import build
from training.publishing.compile import compiled

CLOSE = {"atol": 1e-5, "rtol": 0}


def collected() -> dict[str, Instance]:
    """All instances by name."""
    found: dict[str, Instance] = {}
    for file in sorted((ROOT / "tests" / "pipelines").glob("test_*.py")):
        # a part of pipelines/ has tests and no instances; that none is forgotten is asked below
        instances = getattr(importlib.import_module(f"tests.pipelines.{file.stem}"), "INSTANCES", {})
        assert not instances.keys() & found.keys(), file
        found |= instances
    return found


INSTANCES = collected()
FIRST = {instance.pipeline: name for name, instance in reversed(INSTANCES.items())}
BUILT = " (built)"
PUBLISHED = {}
NAMES = [*INSTANCES, *(name + BUILT for name in FIRST.values())]


def asked(*owed: str, also=lambda instance: True, diffusers: bool = True):
    """The question is asked of all that owe these calls."""

    def asks(instance: Instance) -> bool:
        return set(owed) <= set(instance.owes) and also(instance) and instance.is_diffusers >= diffusers

    names = [name for name in NAMES if asks(INSTANCES[name.removesuffix(BUILT)])]
    return pytest.mark.parametrize("name", names, scope="module")


@pytest.fixture(scope="module")
def instance(name) -> Instance:
    return INSTANCES[name.removesuffix(BUILT)]


@pytest.fixture(scope="module")
def make(name, instance, tmp_path_factory):
    """Makes the pipeline; one that is built comes from its portable folder."""
    if not name.endswith(BUILT):
        return instance.make
    if name not in PUBLISHED:
        PUBLISHED[name] = published(instance, tmp_path_factory.mktemp("published"))
    return PUBLISHED[name]


@pytest.fixture(scope="module")
def pipe(make):
    pipeline = make()
    if isinstance(pipeline, DiffusionPipeline):
        pipeline.set_progress_bar_config(disable=True)
    return pipeline


def published(instance: Instance, folder: Path):
    """Makes the pipeline from what is built of it in a folder."""
    pipeline = instance.make()
    if not instance.is_diffusers:  # transformers finds the same file by its config
        file = inspect.getfile(instance.pipeline)
        module = imported(folder / f"built_{instance.pipeline.__name__.lower()}.py", compiled(ROOT / file))
        kind = getattr(module, instance.pipeline.__name__)
        return lambda: kind(model=instance.make().model, tokenizer=pipeline.tokenizer, device="cpu")
    pipeline.save_pretrained(folder / "saved")
    build(folder / "saved", folder / "built")
    return lambda: DiffusionPipeline.from_pretrained(folder / "built", trust_remote_code=True).to("cpu")


def imported(file, source: str):
    file.write_text(source)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What there is


def classes_of(kind: str, base: str) -> set[str]:
    trees = [ast.parse(p.read_text(encoding="utf-8")) for p in ROOT.glob(f"pipelines/*/{kind}_*.py")]
    return {
        node.name
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.ClassDef) and any(base in ast.unparse(part) for part in node.bases)
    }


def test_every_pipeline_and_every_model_has_an_instance():
    assert {instance.pipeline.__name__ for instance in INSTANCES.values()} == classes_of("pipeline", "Pipeline")
    made = [instance.make() for instance in INSTANCES.values() if instance.is_diffusers]
    parts = {type(part).__name__ for pipeline in made for part in pipeline.components.values()}
    assert classes_of("modeling", "ModelMixin") <= parts and len(classes_of("modeling", "ModelMixin")) > 5


@asked(diffusers=False)
def test_it_says_what_it_answers(pipe, instance, name):
    assert pipe.likelihood == instance.likelihood in ("exact", "bound", "implicit", "none")
    assert set(instance.owes) <= pipe.calls
    for call in pipe.calls - {"sample"}:
        assert callable(getattr(pipe, call)), call
    assert ("sample" in pipe.calls) == (pipe.likelihood != "none")
    if instance.is_diffusers:
        assert pipe.num_classes == instance.classes
        assert type(pipe).__module__.startswith("diffusers_modules") == name.endswith(BUILT)


@asked()
def test_what_it_does_not_answer_it_refuses_with_the_reason(pipe, instance):
    refusals = getattr(pipe, "refusals", {})
    assert not pipe.calls & refusals.keys()
    x = instance.x(pipe)
    for call in refusals:
        given = {"interpolate": (x[:1], x[1:2])}.get(call, () if call == "sample" else (x,))
        with pytest.raises(NotImplementedError, match=refusals[call][:30].replace("(", r"\(").replace(")", r"\)")):
            (pipe if call == "sample" else getattr(pipe, call))(*given)
    for call in {"log_prob", "elbo"} - pipe.calls:
        assert call in refusals
    if "log_prob" not in pipe.calls:
        with pytest.raises(NotImplementedError, match=instance.reason):
            pipe.log_prob(x)


def a_batch(pipe, instance):
    """Eight rows to train on, with their classes; of text the loss makes its own."""
    labels = instance.labels(8)
    x = instance.x(pipe, 8) if instance.is_diffusers else None
    return x, None if labels is None else torch.tensor(labels)


def parts_of(pipe, instance):
    """The pipeline's components by name, or its one model."""
    return pipe.components if instance.is_diffusers else {"model": pipe.model}


@asked(diffusers=False)
def test_every_named_parameter_gets_a_gradient(make, instance):
    """Within three steps: layers behind a zero-initialised one get theirs from the second on."""
    pipe = make()
    modules = {part: module for part, module in parts_of(pipe, instance).items() if isinstance(module, nn.Module)}
    parameters = {
        f"{part}.{name}": p
        for part, module in modules.items()
        for name, p in module.named_parameters()
        if p.requires_grad
    }
    if instance.loss is None:
        assert not parameters
        return
    x, labels = a_batch(pipe, instance)
    optimizer = torch.optim.Adam(parameters.values(), 1e-2)
    reached = set()
    for _ in range(3):
        optimizer.zero_grad()
        instance.loss(pipe, x, labels).backward()
        reached |= {name for name, p in parameters.items() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
    assert parameters and not parameters.keys() - reached


@asked(diffusers=False)
def test_what_a_network_gives_can_be_cast_for_mixed_precision(make, instance):
    """accelerate makes each output anew from its fields in float32; the loss is the same."""
    if instance.loss is None:
        return
    pipe = make()
    x, labels = a_batch(pipe, instance)
    torch.manual_seed(0)
    plain = instance.loss(pipe, x, labels)
    for part in parts_of(pipe, instance).values():
        if isinstance(part, nn.Module):
            part.forward = convert_outputs_to_fp32(part.forward)
    torch.manual_seed(0)
    assert instance.loss(pipe, x, labels) == plain


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(BUILT)], scope="module")
def test_what_is_built_is_one_file_whose_classes_pickle(make, instance):
    pipe = make()  # loading again makes the classes of a module anew
    file = Path(inspect.getfile(type(pipe)))
    modules = {node.module for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)}
    assert not any(module.startswith(("pipelines", "training")) for module in modules)
    assert f"class {instance.pipeline.__name__}" in file.read_text()
    module = sys.modules[type(pipe).__module__]
    own = [kind for kind in vars(module).values() if inspect.isclass(kind) and kind.__module__ == module.__name__]
    # by its name: a second load of the same folder, as of other questions, executes the module anew
    assert type(pipe).__name__ in {kind.__name__ for kind in own}
    assert all(pickle.loads(pickle.dumps(kind)) is kind for kind in own)


# What is damaged


@pytest.fixture(scope="module")
def saved(instance, tmp_path_factory):
    """The folder of a pipeline that learned something: some layers begin as zeros."""
    pipeline, folder = instance.make(), tmp_path_factory.mktemp("saved")
    pipeline.save_pretrained(folder)
    return folder


firsts = pytest.mark.parametrize(
    "name", [name for name in FIRST.values() if INSTANCES[name].is_diffusers], scope="module"
)


@firsts
def test_damaged_weights_are_refused_in_one_line(saved, instance):
    """At construction, whatever the library made of them; the error names the component."""
    files = sorted(saved.glob("*/*.safetensors"))
    for file in files:
        whole = file.read_bytes()
        for what, tensors in damages(load_file(file)).items():
            save_file(tensors, file, metadata={"format": "pt"})
            for options in ({}, {"low_cpu_mem_usage": False}):
                with pytest.raises((ValueError, RuntimeError)) as caught:
                    instance.pipeline.from_pretrained(saved, **options)
                if what == "reshaped" or (what == "integers" and options):
                    continue  # diffusers says so itself, in its own words
                assert isinstance(caught.value, ValueError) and "\n" not in str(caught.value)
                assert str(caught.value).startswith(f"{file.parent.name}: "), (what, caught.value)
        file.write_bytes(whole)
    assert files and instance.pipeline.from_pretrained(saved)


@firsts
def test_weights_that_come_in_later_are_checked_too(saved, instance):
    pipe = instance.pipeline.from_pretrained(saved)
    for part, module in pipe.components.items():
        if isinstance(module, nn.Module):
            broken = copy.deepcopy(module)
            name, weights = next((n, w) for n, w in broken.state_dict().items() if w.is_floating_point())
            weights.fill_(torch.nan)
            with pytest.raises(ValueError, match=f"{part}: {name} holds NaN or infinite values"):
                setattr(pipe, part, broken)
            assert getattr(pipe, part) is module
            setattr(pipe, part, copy.deepcopy(module))


@firsts
def test_a_config_that_lacks_a_value_is_refused(saved, instance):
    """A default would be taken for it, and another model drawn from."""
    for file in [saved / "model_index.json", *sorted(saved.glob("*/*config.json"))]:
        text = file.read_text()
        config = json.loads(text)
        for key in [key for key in config if not key.startswith("_")][:6]:
            file.write_text(json.dumps({k: v for k, v in config.items() if k != key}))
            # some of it Python and diffusers say themselves: no argument, no component, weights of another shape
            with pytest.raises((ValueError, TypeError), match=rf"\b{key}\b|expected shape"):
                instance.pipeline.from_pretrained(saved)
        file.write_text(text)


@firsts
def test_a_value_that_no_model_has_is_refused_before_anything_is_made(instance):
    pipe = instance.make()
    for part in pipe.components.values():
        if not type(part).__module__.startswith("pipelines."):
            continue
        config = {key: value for key, value in part.config.items() if not key.startswith("_")}
        assert type(part)(**config)
        for key in config:
            for bad in ({"a": 1}, -1, float("nan"), [-1], 1e9 if isinstance(config[key], int) else -1, []):
                with pytest.raises(ValueError, match=key):
                    type(part)(**{**config, key: bad})
        if "data_spec" in config:
            for key in DATA_SPEC:
                less = {k: v for k, v in config["data_spec"].items() if k != key}
                with pytest.raises(ValueError, match=f"data_spec has no '{key}'"):
                    type(part)(**{**config, "data_spec": less})


# Sampling


@asked("sample")
def test_samples_have_the_shape_and_range_of_the_data_spec(pipe):
    shape = tuple(pipe.data_spec["shape"])
    samples = result(pipe(batch_size=4, generator=torch.Generator().manual_seed(0), output_type="pt"))
    assert samples.shape == (4, *shape) and samples.isfinite().all()
    array = result(pipe(batch_size=4, generator=torch.Generator().manual_seed(0), output_type="np"))
    if pipe.data_spec["kind"] == "image":
        assert samples.min() >= 0 and samples.max() <= 1
        np.testing.assert_allclose(array, samples.permute(0, 2, 3, 1).numpy(), atol=1e-6)
        picture = result(pipe(generator=torch.Generator().manual_seed(0)))[0]
        assert picture.size == (shape[2], shape[1])
    assert torch.equal(pipe(batch_size=2, generator=seeds(0, 1), output_type="pt", return_dict=False)[0],
                       result(pipe(batch_size=2, generator=seeds(0, 1), output_type="pt")))  # fmt: skip


@asked("sample")
def test_two_draws_with_one_seed_agree_whatever_their_batch(pipe, instance):
    labels = instance.labels(4)
    together = result(pipe(class_labels=labels, generator=seeds(5, 6, 7, 8), output_type="pt"))
    again = result(pipe(class_labels=labels, generator=seeds(5, 6, 7, 8), output_type="pt"))
    torch.testing.assert_close(again, together, **CLOSE)
    one = [result(pipe(3, generator=torch.Generator().manual_seed(5), output_type="pt")) for _ in range(2)]
    torch.testing.assert_close(*one, **CLOSE)
    for i in range(4):
        alone = result(pipe(class_labels=labels and labels[i : i + 1], generator=seeds(5 + i), output_type="pt"))
        torch.testing.assert_close(alone[0], together[i], **CLOSE)


@asked(
    "sample", also=lambda i: i.is_diffusers and "decoder_output" in inspect.signature(i.pipeline.__call__).parameters
)
def test_what_is_drawn_in_steps_of_levels_agrees_but_at_their_borders(pipe, instance, monkeypatch):
    """x ~ p(x|z): a level changes with the batch only where a uniform number lies at its border."""
    drawn, noise = [], type(pipe)._noise

    def recorded(self, shape, generator, uniform=False):
        drawn.append(noise(self, shape, generator, uniform))
        return drawn[-1]

    monkeypatch.setattr(type(pipe), "_noise", recorded)
    labels = instance.labels(3)
    draw = {"class_labels": labels, "output_type": "pt", "decoder_output": "sample"}
    together = result(pipe(generator=seeds(5, 6, 7), **draw))
    last = drawn[-1]
    mean = result(pipe(generator=seeds(5, 6, 7), **{**draw, "decoder_output": "mean"}))
    for i in range(3):
        alone = result(pipe(generator=seeds(5 + i), **{**draw, "class_labels": labels and labels[i : i + 1]}))[0]
        if pipe.data_spec["support"] == "binary":
            clear = (last[i] - mean[i]).abs() > 1e-5
            assert torch.equal(alone[clear], together[i][clear]) and clear.float().mean() > 0.99
        elif pipe.data_spec["support"] == "8-bit":
            different = (alone - together[i]).abs()
            assert different.max() <= 1 / 255 + 1e-6 and (different < 1e-6).float().mean() > 0.99
        else:
            torch.testing.assert_close(alone, together[i], **CLOSE)


@asked(also=lambda instance: instance.draw is not None, diffusers=False)
def test_discrete_draws_with_one_seed_agree_but_where_two_tokens_tie(pipe, instance):
    together = instance.draw(pipe, [5, 6, 7])
    for number, (tokens, margins) in zip([5, 6, 7], together, strict=True):
        clear = next((place for place, margin in enumerate(margins) if margin < 1e-5), len(margins))
        for other in (instance.draw(pipe, [number]), instance.draw(pipe, [number, 9])):
            assert other[0][0][:clear] == tokens[:clear] and clear > 0


@asked("sample")
def test_stream_yields_what_the_call_returns_and_the_callback_sees_each_step(pipe):
    steps = list(pipe.stream(batch_size=2, generator=seeds(0, 1), output_type="pt"))
    seen = []
    final = pipe(batch_size=2, generator=seeds(0, 1), output_type="pt",
                 callback_on_step_end=lambda pipe, step, timestep, inputs: seen.append((step, set(inputs))))  # fmt: skip
    last = steps[-1]
    assert torch.equal(last.images if "images" in last else last.samples, result(final))
    assert [s.step for s in steps] == list(range(steps[0].num_steps)) == [step for step, _ in seen]
    assert all("latents" in names for _, names in seen)


@asked("sample")
def test_a_callback_may_change_the_latents_and_stop(pipe, instance):
    draw = functools.partial(pipe, batch_size=2, class_labels=instance.labels(2), output_type="pt")
    plain = result(draw(generator=seeds(0, 1)))
    others = draw(generator=seeds(2, 3), output_type="latent")

    def replace(pipe, step, timestep, inputs):
        """The latents of the last step are those of another draw."""
        return {"latents": result(others)} if inputs["latents"].shape == result(others).shape else {}

    changed = result(draw(generator=seeds(0, 1), callback_on_step_end=replace))
    torch.testing.assert_close(changed, result(draw(generator=seeds(2, 3))), **CLOSE)
    assert not torch.equal(changed, plain)
    seen = []

    def stop(pipe, step, timestep, inputs):
        seen.append(step)
        pipe._interrupt = True

    stopped = draw(generator=seeds(0, 1), callback_on_step_end=stop)
    assert seen == [0] and result(stopped).isfinite().all()
    assert torch.equal(result(draw(generator=seeds(0, 1))), plain)  # the next call is not stopped
    none = []
    draw(callback_on_step_end_tensor_inputs=[], callback_on_step_end=lambda *given: none.append(given[-1]))
    assert all(given == {} for given in none) and none


@asked("sample")
def test_latents_are_an_output_type(pipe):
    last = list(pipe.stream(batch_size=2, generator=seeds(0, 1)))[-1]
    given = pipe(batch_size=2, generator=seeds(0, 1), output_type="latent", return_dict=False)
    assert len(given) == 1 and torch.equal(given[0], last.latents)


@asked("sample")
def test_class_labels_set_the_batch_size(pipe, instance):
    if not instance.classes:
        with pytest.raises(ValueError, match="class_labels is 3, but this model was trained without classes"):
            pipe(class_labels=3)
        return
    for labels in ([1, 2, 3], torch.tensor([1, 2, 3])):
        assert len(result(pipe(class_labels=labels, output_type="pt"))) == 3
    assert len(result(pipe(class_labels=3, output_type="pt"))) == 1
    assert len(result(pipe(batch_size=5, class_labels=np.int64(3), output_type="pt"))) == 5
    fixed = pipe(class_labels=[3] * 5, generator=seeds(*range(5)), output_type="pt")
    single = pipe(batch_size=5, class_labels=3, generator=seeds(*range(5)), output_type="pt")
    assert torch.equal(result(fixed), result(single))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be an integer of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"batch_size": 3, "generator": seeds(0, 1)}, "batch_size gives 3, generator gives 2"),
        ({"output_type": "jpeg"}, "output_type is 'jpeg'; it must be"),
        ({"class_labels": []}, "class_labels"),
        ({"class_labels": "3"}, "class_labels is '3'"),
        ({"generator": 5}, "generator is 5; it must be a torch.Generator"),
        ({"latents": "z"}, "latents is str; it must be a tensor"),
        ({"callback_on_step_end_tensor_inputs": ["z"]}, "callback_on_step_end_tensor_inputs holds 'z'"),
    ],
)
@asked("sample")
def test_sampling_names_the_argument_that_is_wrong(pipe, arguments, message):
    if arguments.keys() - inspect.signature(pipe.__call__).parameters.keys():
        return  # without such an argument nothing can be wrong with it
    with pytest.raises(ValueError, match=message):
        pipe(**arguments)


@pytest.mark.parametrize("label", [-1, 10, [0, 10]])
@asked("sample", also=lambda instance: instance.classes == 10)
def test_a_class_outside_the_range_is_refused(pipe, label):
    with pytest.raises(ValueError, match=r"class_labels holds (-1|10); classes go from 0 to 9"):
        pipe(class_labels=label)


# Likelihoods, and what there is instead


@asked(also=lambda instance: {"log_prob", "elbo"} & set(instance.owes))
def test_likelihoods_are_nats_per_sample(pipe, instance):
    x = instance.x(pipe)
    for labels in (None, instance.labels(3)):
        for call in instance.measures(pipe):
            count = {"num_samples": 2} if "num_samples" in inspect.signature(call).parameters else {}
            value = call(x, **count, class_labels=labels, generator=torch.Generator().manual_seed(0))
            assert value.shape == (3,) and value.dtype == torch.float32 and value.isfinite().all()


@asked()
def test_an_answer_about_x_is_the_same_in_another_batch(pipe, instance):
    x = instance.x(pipe)
    together = instance.measure(pipe, x, generator=seeds(1, 2, 3))
    for i in range(3):
        alone = instance.measure(pipe, x[i : i + 1], generator=seeds(i + 1))
        torch.testing.assert_close(alone[0], together[i], atol=1e-3, rtol=1e-5)


@asked()
def test_it_refuses_what_it_cannot_measure(pipe, instance):
    x, support = instance.x(pipe), pipe.data_spec["support"]
    calls, has_likelihood = instance.measures(pipe), bool({"log_prob", "elbo"} & pipe.calls)
    wrong = {
        "shape": (x[..., :-1], r"x has shape .* this model takes \(B, "),
        "rank": (x[0], "x has shape"),
        "empty": (x[:0], "with B at least 1"),
        "dtype": (x.to(torch.uint8), r"x has dtype torch.uint8; it must be floating point"),
        "infinite": (torch.full_like(x, math.inf), "x holds (NaN or )?infinite values"),
        "type": ("a string", "x is a str"),
        "list": ([1, "a"], "x is a list"),
    }
    if not instance.may_miss:
        wrong["nan"] = (torch.full_like(x, math.nan), "x holds NaN")
    if support != "real":
        wrong["range"] = (x * 255, "x has values from .* they must lie in")
    if support == "binary":
        wrong["support"] = (x * 0.5, "binarise first")
    if support == "8-bit" and has_likelihood:
        wrong["support"] = (torch.full_like(x, 0.5 / 255), "not on the 256 levels")
    if pipe.data_spec["kind"] == "image":
        wrong["order"] = (np.zeros((2, 9, *x.shape[1:3]), np.float32), r"x has shape .* this model takes arrays \(B, ")
    for bad, message in wrong.values():
        for call in calls:
            with pytest.raises(ValueError, match=message):
                call(bad)
    for call in calls:
        if "num_samples" in inspect.signature(call).parameters:
            with pytest.raises(ValueError, match="num_samples is 0"):
                call(x, num_samples=0)


@asked()
def test_images_go_in_as_pictures_and_arrays(pipe, instance):
    if pipe.data_spec["kind"] != "image":
        return
    x = (instance.x(pipe) > 0.5).float()
    pictures = pipe.image_processor.postprocess(x, output_type="pil")
    array = x.permute(0, 2, 3, 1).numpy()
    given = [0, 0, 0] if instance.classes else None
    expected = instance.measure(pipe, x, given, seeds(1, 2, 3))
    torch.testing.assert_close(instance.measure(pipe, pictures, given, seeds(1, 2, 3)), expected)
    torch.testing.assert_close(instance.measure(pipe, array, given, seeds(1, 2, 3)), expected)
    with pytest.raises(ValueError, match="x holds images of"):
        instance.measures(pipe)[-1](pictures[0].resize((5, 5)))


@asked()
def test_what_np_returns_every_call_takes(pipe, instance):
    """Of a call that takes x, an array as `output_type="np"` gives it says the same as the tensor."""
    x, labels = instance.x(pipe, 2), [0, 0] if instance.classes else None
    array = x.permute(0, 2, 3, 1).numpy() if pipe.data_spec["kind"] == "image" else x.numpy()
    if "sample" in pipe.calls and pipe.data_spec["kind"] == "image":
        assert pipe(2, output_type="np", return_dict=False)[0].shape == array.shape
    found = 0
    for call in sorted(pipe.calls - {"sample"}):
        first, *others = inspect.signature(getattr(pipe, call)).parameters.values() or [None]
        needed = {p.name for p in others if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD}
        if getattr(first, "name", None) != "x" or needed - instance.options.get(call, {}).keys() - {"mask"}:
            continue
        if call in ("reconstruct", "complete") and instance.paths_of_codes:
            continue  # codes by a long search, which rounding moves
        mask = {"mask": torch.arange(math.prod(x.shape[1:])).view(x.shape[1:]) % 2 == 0} if "mask" in needed else {}
        answers = [
            instance.ask(pipe, call, given, class_labels=labels, generator=seeds(1, 2), **mask) for given in (x, array)
        ]
        for a, b in zip(*map(tensors, answers), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        found += 1
    assert found


def tensors(answer) -> list[torch.Tensor]:
    parts = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, tuple | list) else [answer]
    return [t for part in parts for t in (part if isinstance(part, list) else [part])]


@asked()
def test_half_precision_weights_still_measure_in_float32(make, instance):
    x = instance.x(whole := make())
    labels = instance.labels(3)
    value = instance.measure(make().to("cpu", torch.bfloat16), x, labels, seeds(1, 2, 3))
    assert value.dtype == torch.float32
    reference = instance.measure(whole, x, labels, seeds(1, 2, 3))
    torch.testing.assert_close(value, reference, rtol=0.05, atol=0.5)


# Codes and what is filled in


@asked("encode", "decode", "reconstruct", "interpolate", also=lambda instance: not instance.paths_of_codes)
def test_codes_go_there_and_back(pipe, instance):
    x, labels, ask = instance.x(pipe), instance.labels(3), functools.partial(instance.ask, pipe)
    z = ask("encode", x, class_labels=labels)
    assert z.shape[0] == 3 and z.ndim >= 2
    decoded = result(ask("decode", z, class_labels=labels))
    assert decoded.shape == x.shape
    assert torch.equal(decoded, result(ask("reconstruct", x, class_labels=labels)))
    one = 0 if instance.classes else None
    path = result(ask("interpolate", x[:1], x[1:2], steps=5, class_labels=one))
    assert path.shape == (5, *x.shape[1:])
    same = [0, 0] if instance.classes else None
    ends = result(ask("decode", ask("encode", x[:2], class_labels=same), class_labels=same))
    torch.testing.assert_close(path[[0, -1]], ends, **CLOSE)
    for arguments, message in (
        ({"steps": 1}, "steps is 1"),
        ({"class_labels": [0]}, "class_labels is a list; interpolate keeps one class"),
    ):
        with pytest.raises(ValueError, match=message):
            ask("interpolate", x[:1], x[1:2], **{"class_labels": one, **arguments})
    with pytest.raises(ValueError, match="a and b hold 2 and 1 codes; interpolate takes one each"):
        ask("interpolate", x[:2], x[:1], class_labels=one)
    if instance.codes_need_class:
        with pytest.raises(ValueError, match="encoding needs the class"):
            pipe.encode(x)
    else:
        assert ask("encode", x).shape == z.shape


@asked("decode", "interpolate", also=lambda instance: instance.paths_of_codes)
def test_paths_lead_from_code_to_code(pipe, instance):
    first, last = pipe.stream(1, generator=seeds(0)), pipe.stream(1, generator=seeds(1))
    a, b = next(first).latents, next(last).latents
    one, same = (0, [0, 0]) if instance.classes else (None, None)
    path = result(instance.ask(pipe, "interpolate", a, b, steps=5, class_labels=one))
    ends = result(instance.ask(pipe, "decode", torch.cat([a, b]), class_labels=same))
    torch.testing.assert_close(path[[0, -1]], ends, **CLOSE)
    for bad, arguments, message in (
        (b, {"steps": 1}, "steps is 1"),
        (b, {"class_labels": [0]}, "class_labels is a list; interpolate keeps one class"),
        (torch.cat([b, b]), {}, "a and b hold 1 and 2 codes; interpolate takes one each"),
        (-a, {}, "opposite directions"),
    ):
        with pytest.raises(ValueError, match=message):
            instance.ask(pipe, "interpolate", a, bad, **{"class_labels": one, **arguments})


@asked("complete")
def test_what_is_known_of_x_stays(pipe, instance):
    x, labels = instance.x(pipe), instance.labels(3)
    complete = functools.partial(instance.ask, pipe, "complete", x, class_labels=labels)
    mask = torch.zeros(x.shape[1:], dtype=torch.bool)
    mask[..., : x.shape[-1] // 2] = True
    filled = result(complete(mask=mask, generator=seeds(1, 2, 3)))
    torch.testing.assert_close(filled[:, mask], x[:, mask], atol=1e-6, rtol=0)
    assert (filled[:, ~mask] - x[:, ~mask]).abs().mean() > 0.01 and filled.isfinite().all()
    nothing, everything = torch.zeros_like(mask), torch.ones_like(mask)
    for bad, message in (
        (mask[..., :-1], "mask has shape"),
        (mask.float(), "mask has dtype torch.float32; it must be bool"),
        (nothing, "mask is False everywhere|has no known entry"),
        *(((everything, "mask is True everywhere"),) if "sample" in pipe.calls else ()),
    ):
        with pytest.raises(ValueError, match=message):
            complete(mask=bad)


@asked()
def test_of_its_components_alone_the_same_pipeline_is_made(make, instance):
    """By the names of the components, and by `from_pipe`."""
    first = make()
    x, labels = instance.x(first), instance.labels(3)
    expected = instance.measure(first, x, labels, seeds(1, 2, 3))
    of_config = {name: value for name, value in first.config.items() if not name.startswith("_")}
    for again in (type(first)(**first.components), type(first).from_pipe(first)):
        assert {name: value for name, value in again.config.items() if not name.startswith("_")} == of_config
        assert all(again.components[name] is part for name, part in first.components.items())
        torch.testing.assert_close(instance.measure(again, x, labels, seeds(1, 2, 3)), expected)


class Fetched(ModelHook):
    """Weights are there from the first call of the network on; before they are zeros, as offload leaves them away."""

    def __init__(self, module: nn.Module):
        self.away = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        for tensor in module.state_dict().values():
            tensor.zero_()

    def pre_forward(self, module, *args, **kwargs):
        module.load_state_dict(self.away)
        return args, kwargs


@asked()
def test_each_call_fetches_weights_that_are_offloaded(make, instance):
    """What `enable_model_cpu_offload` counts on: a call of another method than forward runs the hook too."""
    x, labels = instance.x(plain := make()), instance.labels(3)
    answers = {"measure": lambda pipe: instance.measure(pipe, x, labels, seeds(1, 2, 3))}
    if "sample" in instance.owes:
        answers["sample"] = lambda pipe: instance.ask(pipe, "sample", 2, generator=seeds(1, 2))
    if {"encode", "reconstruct"} <= set(instance.owes):
        answers["encode"] = lambda pipe: instance.ask(pipe, "encode", x, class_labels=labels, generator=seeds(1, 2, 3))
    for answer in answers.values():
        offloaded = make()
        for name, part in offloaded.components.items():
            if isinstance(part, nn.Module) and name not in offloaded._exclude_from_cpu_offload:
                add_hook_to_module(part, Fetched(part))
        for first, second in zip(*(tensors(answer(pipe)) for pipe in (plain, offloaded)), strict=True):
            torch.testing.assert_close(first, second, **CLOSE)


@asked()
def test_saved_and_loaded_it_draws_and_says_the_same(pipe, instance, name, tmp_path):
    if name.endswith(BUILT):
        return  # it was saved and loaded
    pipe.save_pretrained(tmp_path)
    again = type(pipe).from_pretrained(tmp_path)
    x, labels = instance.x(pipe), instance.labels(3)
    torch.testing.assert_close(*(instance.measure(p, x, labels, seeds(1, 2, 3)) for p in (pipe, again)))
    if "sample" in pipe.calls:
        draw = {"batch_size": 2, "output_type": "pt"}
        assert torch.equal(*(result(p(**draw, generator=seeds(0, 1))) for p in (pipe, again)))
