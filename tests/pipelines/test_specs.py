"""A data spec is checked as a whole, and the values of a config against the annotations of its class."""

import pytest

from pipelines.adversarial.modeling_gan import GeneratorModel
from pipelines.autoencoders.modeling_vae import VAEModel
from pipelines.specs import DATA_SPEC, check_data_spec
from tests.contract import BINARY, DEQUANTISED, LEVELS, REAL, UNIT_DEQUANTISED, VECTOR_SPEC, image_spec


def test_what_families_declare_is_accepted():
    for spec in (*map(image_spec, (BINARY, LEVELS, DEQUANTISED, UNIT_DEQUANTISED, REAL)), VECTOR_SPEC):
        check_data_spec(spec)
        check_data_spec({**spec, "shape": tuple(spec["shape"]), "num_classes": 0})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "sound"}, r"data_spec\['kind'\] is 'sound'; it must be 'image' or 'vector'"),
        ({"kind": ["image"]}, "'kind'"), ({"kind": "vector"}, r"'shape'\] is \[1, 8, 8\]; of kind 'vector'"),
        ({"shape": [0, 8, 8]}, "it must be an integer from 1"), ({"shape": [1, 8]}, "'shape'"), ({"shape": []}, "'shape'"),
        ({"shape": "188"}, "'shape'"), ({"shape": [1, 8, 8.0]}, "size in"), ({"shape": [True, 8, 8]}, "size in"),
        ({"shape": [1, 10**9, 8]}, "size in"), ({"shape": [3, 2**14, 2**14]}, "at most 268435456 numbers"),
        ({"shape": [1] * 10**5}, "'shape'"), ({"support": "7-bit"}, "'support'"), ({"support": None}, "'support'"),
        ({"range": None}, "'range'"), ({"range": [1, 0]}, "low below high"), ({"range": [0, 0]}, "low below high"),
        ({"range": [0, float("nan")]}, "bound in"), ({"range": [0, "1"]}, "bound in"), ({"range": [0]}, "'range'"),
        ({"range": [-1, 1], **{"support": "binary"}}, r"of support 'binary' it must be \[0, 1\]"),
        ({"dequantization": "some"}, "'dequantization'"),
        ({"support": "binary", "range": [0, 1], "dequantization": "uniform"}, "it must be '8-bit'"),
        ({"num_classes": -1}, "'num_classes'"), ({"num_classes": "10"}, "'num_classes'"),
        ({"num_classes": 10**9}, "'num_classes'"), ({"num_classes": True}, "'num_classes'"),
    ],
)  # fmt: skip
def test_a_data_spec_that_does_not_fit_together_is_refused_in_one_line(changed, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_data_spec({**image_spec(LEVELS), **changed})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@pytest.mark.parametrize("spec", [None, [], "image", 3, {}])
def test_what_is_no_data_spec_is_refused(spec):
    with pytest.raises(ValueError, match="data_spec"):
        check_data_spec(spec)
    for key in DATA_SPEC:
        with pytest.raises(ValueError, match=f"data_spec has no '{key}'"):
            check_data_spec({k: v for k, v in image_spec(BINARY).items() if k != key})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": "8"}, "width is '8'; it must be an integer from 1 to 1048576"),
        ({"latent_dim": 10**9}, "latent_dim is 1000000000; it must be an integer from 1"),
        ({"num_blocks": -1}, "num_blocks is -1; it must be an integer from 0 to 1000"),
        ({"network": "conv", "num_levels": 500}, "num_levels is 500; it must be an integer from 1 to 12"),
        ({"dropout": float("nan")}, "dropout is nan; it must be a number of at least 0"),
        ({"conditional": 1}, "conditional is 1; it must be True or False"),
        ({"encoder_width": 0.5}, "encoder_width is 0.5; it must be an integer from 1 to 1048576 or None"),
        ({"output": None}, "output is None; it must be a text"), ({"width": "8" * 10**6}, "width is '888"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_or_size_is_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        VAEModel(image_spec(BINARY), **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_lists_are_checked_number_by_number():
    assert GeneratorModel(VECTOR_SPEC, 2, width=[4, 8])
    for width in ((), [4, 0], [4, "8"], 8, [10**9], [4.0]):
        with pytest.raises(ValueError, match="it must be a list, each an integer from 1"):
            GeneratorModel(VECTOR_SPEC, 2, width=width)
    assert VAEModel(image_spec(BINARY), width=8, num_blocks=0)
