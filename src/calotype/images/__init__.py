"""Any picture file to RGB in [-1, 1]; sources of pictures; prepared sets; grids, strips and GIFs."""

from calotype.images.dataset import PictureSet, load_prepared, prepare
from calotype.images.decode import UnreadablePictureError, decode_picture, to_float, to_uint8
from calotype.images.grid import film_strip, plot_images, read_settings, save_gif, save_png, to_pil
from calotype.images.openmoji import SHOWCASE
from calotype.images.source import Picture, Source, open_source

__all__ = [
    "SHOWCASE",
    "Picture",
    "PictureSet",
    "Source",
    "UnreadablePictureError",
    "decode_picture",
    "film_strip",
    "load_prepared",
    "open_source",
    "plot_images",
    "prepare",
    "read_settings",
    "save_gif",
    "save_png",
    "to_float",
    "to_pil",
    "to_uint8",
]
