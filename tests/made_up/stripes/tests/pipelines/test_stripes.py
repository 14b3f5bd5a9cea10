"""Stripes: the density of independent pixels, and what every family owes."""

import torch
from pipelines.guessing.modeling_stripes import StripesModel
from pipelines.guessing.pipeline_stripes import StripesPipeline

from tests.contract import BINARY, Instance, image_spec

INSTANCES = {
    "stripes": Instance(
        StripesPipeline,
        lambda: StripesPipeline(StripesModel(image_spec(BINARY))).to("cpu"),
        "exact",
        frozenset({"sample", "log_prob", "elbo"}),
        loss=lambda pipe, x, labels: -pipe.stripes.log_prob(x).mean(),
    )
}


def test_stripes_of_even_chance_have_a_bit_a_pixel():
    pipe = INSTANCES["stripes"].make()
    x = (torch.rand(5, 1, 8, 8) < 0.5).float()
    torch.testing.assert_close(pipe.log_prob(x), torch.full((5,), 64 * -torch.log(torch.tensor(2.0)).item()))
