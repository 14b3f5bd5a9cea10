"""What may stand in an index or a config: what the classes that read it take, and nothing else.

A model's files name classes, and its libraries import, fetch and run what is named: `auto_map`, `custom_pipelines`, a
library of an index, a quantizer, a kernel. A build therefore writes only what the class that is built takes; other entries
are left out, and a class that is none of the libraries' own models is refused.
"""

import ast
import inspect
from functools import cache

from training.folders import is_plain
from training.options import UsageError

MARKS = ("_class_name", "_diffusers_version")  # of diffusers, in each index and config
# of transformers' configs: what fetches or runs code, or names a place
NOT_OF_CONFIGS = ("_name_or_path", "auto_map", "quantization_config", "attn_implementation", "_attn_implementation")
# what asks a library to run or fetch something, wherever it stands
ASKING = ("auto_map", "custom_pipelines", "impl", "quantization_config", "trust_remote_code", "_class_name")
TOKENIZER = (
    "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model",
)  # fmt: skip
TOKENIZER_CONFIG = (
    "add_bos_token", "add_eos_token", "add_prefix_space", "added_tokens_decoder", "backend", "bos_token", "chat_template",
    "clean_up_tokenization_spaces", "cls_token", "eos_token", "errors", "extra_special_tokens", "legacy", "mask_token",
    "model_input_names", "model_max_length", "pad_token", "padding_side", "sep_token", "split_special_tokens",
    "tokenizer_class", "truncation_side", "unk_token",
)  # fmt: skip
LONGEST_TEMPLATE = 50_000  # characters of a chat template, which transformers runs in a sandbox


def only(content: dict, names, where: str) -> dict:
    """The entries of these names.

    Raises:
        UsageError: inside of one stands what would make a library run code.
    """
    found = {name: value for name, value in content.items() if name in names}
    todo = [found[name] for name in found]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            asking = [name for name in value if name in ASKING]
            if asking:
                raise UsageError(f"{where}: holds {asking[0]}, which is of no model of this project")
        todo += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return found


# Our own classes


@cache
def arguments(text: str, class_name: str) -> frozenset[str]:
    """The arguments of a class that a published module defines: what its config may hold."""
    classes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
    todo = [class_name]
    while todo:
        node = classes.get(todo.pop(0))
        if node is None:
            continue
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                given = part.args
                return frozenset(a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)) - {"self"}
        todo += [base.id for base in node.bases if isinstance(base, ast.Name)]
    return frozenset()


# Classes of the libraries


def library_class(library: str, name: str, where: str) -> type:
    """A model, scheduler or tokenizer of diffusers or transformers.

    Raises:
        UsageError: it is none.
    """
    found = None
    if library == "diffusers" and is_plain(name):
        import diffusers
        from diffusers import ModelMixin, SchedulerMixin

        found, kinds = getattr(diffusers, name, None), (ModelMixin, SchedulerMixin)
    elif library == "transformers" and is_plain(name):
        import transformers
        from transformers import PreTrainedModel, PreTrainedTokenizerBase

        found, kinds = getattr(transformers, name, None), (PreTrainedModel, PreTrainedTokenizerBase)
    if not isinstance(found, type) or not issubclass(found, kinds):
        raise UsageError(
            f"{where}: names {library}.{name}; it must be a model of diffusers, transformers or this project"
        )
    return found


def taken_by(kind: type) -> frozenset[str]:
    """What the config of a class of diffusers may hold."""
    return frozenset(inspect.signature(kind.__init__).parameters) - {"self", "kwargs"}


def transformers_config(content: dict, where: str) -> dict:
    """What a config of transformers may hold, without the pipelines that it names.

    Raises:
        UsageError: it is of no model of transformers.
    """
    from transformers import AutoConfig

    try:
        known = AutoConfig.for_model(content["model_type"]).to_dict()
    except (KeyError, ValueError, TypeError):
        name = content.get("model_type")
        raise UsageError(f"{where}: model_type is {name!r}; it must be one of transformers' own") from None
    found = only(content, known.keys() - set(NOT_OF_CONFIGS), where)
    classes = found.get("architectures") or []
    if not isinstance(classes, list):
        raise UsageError(f"{where}: architectures is {classes!r}; it must be a list of classes of transformers")
    for name in classes:
        kind = library_class("transformers", name, where)
        if getattr(getattr(kind, "config_class", None), "model_type", None) != content["model_type"]:
            raise UsageError(f"{where}: names {name}, which is no {content['model_type']}")
    return found


def custom_task(task: str, content, where: str) -> dict:
    """A pipeline that a config of transformers names: the classes that load its model, and the kind of its data.

    Raises:
        UsageError: it is not as a run names it.
    """
    classes = content.get("pt") if isinstance(content, dict) else None
    good = is_plain(task) and isinstance(classes, list) and classes and all(map(is_plain, classes))
    if not good or not is_plain(content.get("type", "text")) or not isinstance(content.get("impl"), str):
        raise UsageError(f"{where}: custom_pipelines names the task {task!r} otherwise than a run of this project")
    import transformers

    for name in classes:
        if not name.startswith("AutoModel") or not hasattr(transformers, name):
            raise UsageError(f"{where}: names {name}; it must be an Auto class of transformers")
    return only(content, ("impl", "pt", "type"), where)


def cleaned(name: str, content: dict, where: str) -> dict:
    """A file beside the config of a model of transformers, by its name: what such a file may hold.

    Raises:
        UsageError: it names a class that is no tokenizer of transformers, or its chat template is endless.
    """
    if name == "tokenizer.json":
        return {key: value for key, value in content.items() if key in TOKENIZER}  # its words may be any
    if name == "generation_config.json":
        from transformers import GenerationConfig

        plain = {k: v for k, v in content.items() if not isinstance(v, dict)}
        return only(plain, GenerationConfig().to_dict(), where)
    found = only(content, TOKENIZER_CONFIG, where)
    template = found.get("chat_template") or ""
    if not isinstance(template, str) or len(template) > LONGEST_TEMPLATE:
        raise UsageError(f"{where}: chat_template must be a text of at most {LONGEST_TEMPLATE} characters")
    if "tokenizer_class" in found:
        library_class("transformers", found["tokenizer_class"], where)
        if found["tokenizer_class"] == "TokenizersBackend":  # what transformers 4 knows, and 5 too
            found["tokenizer_class"] = "PreTrainedTokenizerFast"
    return found
