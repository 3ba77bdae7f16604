"""Names of the classes, where their number says what they are."""

IMAGENET = 1000


def class_names(count: int) -> tuple[str, ...]:
    """Names of so many classes: ImageNet's for 1000 if torchvision, which has them, is there; else their numbers."""
    if count == IMAGENET:
        try:
            from torchvision.models import ResNet18_Weights
        except (ImportError, RuntimeError):  # it raises the latter when it does not fit the installed torch
            pass
        else:
            return _distinct(ResNet18_Weights.DEFAULT.meta["categories"])
    return tuple(str(i) for i in range(count))


def _distinct(names: list[str]) -> tuple[str, ...]:
    """The names, two that are alike told apart by their class's number: ImageNet has two cranes and two maillots."""
    return tuple(f"{name} {i}" if names.count(name) > 1 else name for i, name in enumerate(names))
