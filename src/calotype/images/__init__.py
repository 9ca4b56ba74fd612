"""Any picture file to RGB in [-1, 1]; sources of pictures; prepared sets; grids, strips and GIFs.

Names are looked up when first used: a process that only decodes loads no torch.
"""

from typing import TYPE_CHECKING

from calotype.core.lazy import lazy_names

if TYPE_CHECKING:
    from calotype.images.dataset import PictureSet, load_prepared, prepare
    from calotype.images.decode import UnreadablePictureError, decode_picture
    from calotype.images.grid import film_strip, plot_images, read_settings, save_gif, save_png, to_pil
    from calotype.images.openmoji import SHOWCASE
    from calotype.images.pixels import to_float, to_uint8
    from calotype.images.source import Picture, Source, open_source

_HOMES = {
    "calotype.images.dataset": ["PictureSet", "load_prepared", "prepare"],
    "calotype.images.decode": ["UnreadablePictureError", "decode_picture"],
    "calotype.images.grid": ["film_strip", "plot_images", "read_settings", "save_gif", "save_png", "to_pil"],
    "calotype.images.openmoji": ["SHOWCASE"],
    "calotype.images.pixels": ["to_float", "to_uint8"],
    "calotype.images.source": ["Picture", "Source", "open_source"],
}

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
