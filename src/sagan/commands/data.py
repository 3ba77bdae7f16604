"""The command `sagan data`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sagan.commands.arguments import SourceArgument
from sagan.config import CacheOption, CropName, DataConfig, FileOption
from sagan.files import expand_home


@dataclass(frozen=True)
class Data:
    """Show what a run would be trained on: images, classes, sizes, problems, and a contact sheet."""

    source: SourceArgument
    """A folder, a .zip, tar shards (WebDataset), hf:USER/NAME, robots, twins or digits; 'pack' writes shards."""
    resolution: Literal[32, 64, 128, 256] = 64
    """Side of the images, in pixels."""
    image_channels: Literal[1, 3, 4] = 3
    """1 (grey), 3 (RGB) or 4 (RGB and alpha)."""
    out: FileOption = None
    """Path of the contact sheet; default: contact-sheet-SOURCE-KEY.png here (KEY depends on images and options), or
    contact-sheet.png with the packed images if here is the source."""
    labels: bool = True
    """Use the classes that the source names."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Colour under transparent images and of padding: red, green, blue, 0 to 255."""
    crop: CropName = "centre"
    """Make images square: crop the central square, or pad the whole image with the background."""
    cache: CacheOption = ""
    """Folder of the packed image stores; default: $SAGAN_CACHE, or the user's cache folder."""


def data(options: Data) -> None:
    """Run `sagan data`."""
    from sagan.data import prepare
    from sagan.data.summary import summarise
    from sagan.figures.grid import save
    from sagan.render.contact_sheet import contact_sheet

    config = DataConfig(options.source, options.labels, options.background, options.crop, cache=options.cache)
    store = prepare(config, resolution=options.resolution, image_channels=options.image_channels)
    out = options.out or _sheet_path(options.source, store.path, store.key)
    save(contact_sheet(store), out)
    print(summarise(store))
    print(f"contact sheet: {out}")


def _sheet_path(source: str, store: Path, key: str) -> Path:
    """Return the default path of the contact sheet: never in the source, and never that of another sheet."""
    from sagan.data.open import is_path
    from sagan.render.outputs import file_names

    if is_path(source) and Path.cwd().resolve().is_relative_to(expand_home(source).resolve()):
        return store / "contact-sheet.png" if store.is_dir() else store.with_name(f"{store.stem}-contact-sheet.png")
    name = file_names([expand_home(source).absolute().name])[0]
    return Path(f"contact-sheet-{name}-{key[:8]}.png")
