"""What files of all versions share: names of parameters, and the fields of a model's configuration.

Parameters keep the names of version 0.1, where batch and spectral norms were both called 'norm'.

    code                        files
    blocks.0.bn1.scale          blocks.0.norm1.scale
    conv1.sn.u                  conv1.norm.u
        stem.bn.running_mean        stem.norm.running_mean

A name may have a prefix and a suffix, as in checkpoints: 'generator_adam/blocks.0.norm1.scale/exp_avg'.
"""

import re
from collections.abc import Mapping
from typing import Any

# Fields that earlier versions had, and the values with which networks compute what those of this version do.
_REMOVED: dict[str, tuple[Any, ...]] = {
    "spectral_norm_eps": (1e-8, 1e-12),  # added to norms that are far above either
    "spectral_norm_in_evaluation": ("iterate",),
    "class_spectral_norm": ("none",),
    "batch_norm_eps": (1e-5,),
    "output_norm_eps": (None, 1e-5),
}
# Fields that only the architecture 'imported' still has, with their defaults.
_MOVED: dict[str, Any] = {
    "discriminator_halvings": None,
    "discriminator_inner": "out",
    "shortcut": "plain",
    "generator_activation": "relu",
    "discriminator_activation": "relu",
}


def to_disk(name: str) -> str:
    """Return the name that files have for a parameter or buffer of a network."""
    return re.sub(r"\b(?:bn|sn)([12]?)(?=\.)", r"norm\1", name)


def from_disk(name: str) -> str:
    """Return the name that a network has for a parameter or buffer in a file: the inverse of `to_disk`."""
    name = re.sub(r"\bnorm(?=\.u\b)", "sn", name)
    return re.sub(r"\bnorm([12]?)(?=\.)", r"bn\1", name)


def migrate_model(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a model's configuration, which any version wrote, as this version has them.

    Raises:
        ValueError: the networks are imported ones of an earlier version, which this one computes in another way.
    """
    fields = dict(fields)
    if fields.get("architecture", "residual") not in ("residual", "dcgan"):
        return fields
    for name, values in _REMOVED.items():
        value = fields.pop(name, values[0])
        if value not in values:
            raise ValueError(
                f"it was imported by an earlier version of sagan ({name} {str(value)[:80]}): import the other "
                "codebase's file again with sagan import"
            )
    moved = {name: fields.pop(name) for name in _MOVED if name in fields}
    if fields.get("upsampling") == "bilinear":  # a value that only 'imported' still has
        moved["upsampling"] = fields.pop("upsampling")
    differs = any(value != _MOVED.get(name) for name, value in moved.items())
    if differs and fields.get("architecture") != "dcgan":
        return fields | moved | {"architecture": "imported"}
    return fields
