"""Two rewards of one's own: how bright an image is, and how near its mean colour is to the one that the prompt's metadata asks for."""
import numpy
from marble_reward import reward


@reward("bright", range=(0, 1))
def bright(images, prompts, metadata):
    return [image.mean() / 255 for image in images]


@reward("mean_color", range=(0, 1))
def mean_color(images, prompts, metadata):
    return [1 - numpy.abs(image.mean((0, 1)) - m["rgb"]).mean() / 255 if "rgb" in m else (None, "no rgb in the metadata")
            for image, m in zip(images, metadata)]
