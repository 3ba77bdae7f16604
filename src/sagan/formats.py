"""Parameter names on disk: files keep those of version 0.1, where batch and spectral norms were both called 'norm'.

    code                        files
    blocks.0.bn1.scale          blocks.0.norm1.scale
    conv1.sn.u                  conv1.norm.u
    bn1.scale.sn.transposed.u   norm1.scale.norm.transposed.u
    stem.bn.running_mean        stem.norm.running_mean

A name may have a prefix and a suffix, as in checkpoints: 'generator_adam/blocks.0.norm1.scale/exp_avg'.
"""

import re


def to_disk(name: str) -> str:
    """Return the name that files have for a parameter or buffer of a network."""
    return re.sub(r"\b(?:bn|sn)([12]?)(?=\.)", r"norm\1", name)


def from_disk(name: str) -> str:
    """Return the name that a network has for a parameter or buffer in a file: the inverse of `to_disk`."""
    name = re.sub(r"\bnorm(?=\.(?:transposed\.)?[uv]\b)", "sn", name)
    return re.sub(r"\bnorm([12]?)(?=\.)", r"bn\1", name)
