"""Whether a language model, its config and its tokenizer belong together."""

import json
import math
import numbers

import transformers
from transformers import PretrainedConfig, PreTrainedModel

from pipelines.weights import check_weights, folder_of


def check_language_model(model: PreTrainedModel, tokenizer) -> None:
    """Refuse weights as `check_weights` does, tokens that the network does not know, and a config that was cut.

    Raises:
        ValueError: one line that names what does not fit.
    """
    _check_config_file(model.config)
    check_weights("model", model)
    rows = len(model.get_input_embeddings().weight)
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= rows:
        raise ValueError(f"tokenizer has tokens up to {highest}; the model knows 0 to {rows - 1}")
    if not isinstance(tokenizer.model_max_length, numbers.Real):
        raise ValueError(
            f"model_max_length of the tokenizer is {tokenizer.model_max_length!r:.100}; it must be a number"
        )
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        found = getattr(model.config, name, None)
        for token in found if isinstance(found, list | tuple) else [] if found is None else [found]:
            if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < rows:
                raise ValueError(f"{name} is {token!r:.100}; it must be a token of the model, 0 to {rows - 1}")


def _check_config_file(config: PretrainedConfig) -> None:
    """Whether the file of a config has what only its architecture has: transformers writes all of it, default or not.

    One that another version of transformers wrote is not asked.
    """
    folder = folder_of(config)
    if folder is None:
        return
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        owed = type(config)().to_dict().keys() - PretrainedConfig().to_dict().keys()
        if said["transformers_version"] != transformers.__version__ or said["model_type"] != config.model_type:
            return
    except (OSError, ValueError, TypeError, KeyError):  # no such file, or a class that has no defaults
        return
    for key in sorted(owed - said.keys()):
        raise ValueError(f"config.json lacks {key!r}; without it the model is another one")
    for key in sorted(owed):
        if isinstance(said[key], float) and not math.isfinite(said[key]):
            raise ValueError(f"config.json has {key} {said[key]}; it must be finite")
