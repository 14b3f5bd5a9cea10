"""Pictures as levels: the same for training, for pipelines and for Spaces, whatever the file holds."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.autoencoders.modeling_vae import VAEModel
from pipelines.autoencoders.pipeline_vae import VAEPipeline
from pipelines.decoding import as_levels
from training.data.pixels import Stored

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
DEEP = RAMP.astype(np.uint16) * 257


def saved(picture: Image.Image, kind: str = "PNG", **options) -> Image.Image:
    """As it is read from a file."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return Image.open(io.BytesIO(out.getvalue()))


def gray(level: int, size=(4, 4)) -> Image.Image:
    return Image.new("L", size, level)


GRAYS = {
    "8 bits": saved(Image.fromarray(RAMP)),
    "16-bit PNG": saved(Image.fromarray(DEEP)),
    "16-bit TIFF": saved(Image.fromarray(DEEP), "TIFF"),
    "16-bit TIFF of the other order": Image.frombytes("I;16B", (16, 16), DEEP.astype(">u2").tobytes()),
    "float TIFF": saved(Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF"),
    "opaque": saved(Image.merge("LA", [Image.fromarray(RAMP), Image.new("L", (16, 16), 255)])),
    "palette": saved(Image.fromarray(RAMP).convert("RGB").quantize(256), "GIF").convert("L"),
}


@pytest.mark.parametrize("name", GRAYS)
def test_the_same_ramp_in_every_gray_format(name):
    found = as_levels(GRAYS[name])
    assert found.mode == "L" and np.array_equal(np.asarray(found), RAMP)


def test_what_is_transparent_is_laid_on_white_as_far_as_it_is():
    half = Image.merge("LA", [gray(0), gray(128)])
    assert set(np.asarray(as_levels(saved(half))).flatten()) == {127}
    hidden = Image.merge("RGBA", [gray(9), gray(200), gray(30), gray(0)])
    assert np.asarray(as_levels(saved(hidden))).tolist() == np.full((4, 4, 3), 255).tolist()
    by_number = Image.new("P", (4, 4), 1)
    by_number.putpalette([0, 0, 0, 255, 0, 0])
    assert set(np.asarray(as_levels(saved(by_number, transparency=1))).flatten()) == {255}
    named = saved(Image.fromarray(DEEP), transparency=0)  # of 16 bits one level is transparent
    assert np.asarray(as_levels(named))[0, 0] == 255 and np.asarray(as_levels(named))[0, 1] == 1


def test_exif_turns_and_of_an_animation_the_first_frame_is_read():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = as_levels(saved(Image.fromarray(RAMP[:8]), exif=exif))
    assert np.array_equal(np.asarray(turned), np.rot90(RAMP[:8], -1))
    moving = saved(gray(10), "GIF", save_all=True, append_images=[gray(240)])
    assert np.asarray(as_levels(moving).convert("L")).tolist() == np.full((4, 4), 10).tolist()


def test_what_has_no_range_is_refused():
    for picture, message in (
        (Image.fromarray(np.full((2, 2), 2.5, np.float32)), "floating-point pixels from 2.5 to 2.5; they must lie in"),
        (Image.fromarray(np.full((2, 2), np.nan, np.float32)), "floating-point pixels from nan"),
        (Image.fromarray(np.full((2, 2), 70_000, np.int32)), "32-bit whole numbers, whose range is not known"),
    ):
        with pytest.raises(ValueError, match=message):
            as_levels(picture)


def test_a_pipeline_and_a_data_set_read_a_picture_alike(tmp_path):
    spec = {"kind": "image", "shape": [1, 16, 16], "support": "8-bit", "range": [-1, 1], "dequantization": "none",
            "num_classes": 0}  # fmt: skip
    pipe = VAEPipeline(VAEModel(spec, "logistic", latent_dim=2, width=4))
    for number, picture in enumerate(GRAYS.values()):
        picture.save(tmp_path / f"{number}.tif")
        x = pipe._check_x(picture)
        assert torch.equal((x[0, 0] * 255).round().to(torch.uint8), torch.from_numpy(RAMP))
        row = {"bytes": None, "path": str(tmp_path / f"{number}.tif")}
        assert np.array_equal(np.asarray(Stored([str(tmp_path)]).picture(row, "here")), RAMP)
    with pytest.raises(ValueError, match="x holds an image of floating-point pixels from 3 to 3; they must lie in"):
        pipe.encode(Image.fromarray(np.full((16, 16), 3, np.float32)))
