"""A GPU whose tensors have no memory, and a record of all that is asked of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CUDA = torch.device("cuda", 0)

# Operations that compute nothing: they make another tensor of the same memory, or memory without content.
_VIEWS = frozenset(
    "view _unsafe_view t transpose permute expand slice select unsqueeze squeeze detach alias as_strided split "
    "split_with_sizes chunk unbind unflatten reshape _reshape_alias diagonal narrow unfold flatten empty empty_like "
    "empty_strided new_empty new_empty_strided lift_fresh is_same_size set_ resize_".split()
)


@dataclass(frozen=True)
class Meta:
    """What can be known of a tensor without its values."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: str
    bytes: int

    @classmethod
    def of(cls, t: Tensor) -> Meta:
        return cls(tuple(t.shape), t.dtype, t.device.type, t.numel() * t.element_size())

    def __str__(self) -> str:
        return f"{self.device} {str(self.dtype).removeprefix('torch.')} {self.shape}"


@dataclass(frozen=True)
class Op:
    """One operation that has to do with the GPU."""

    name: str
    """As ATen has it: 'convolution', 'add_'."""
    inputs: tuple[Meta, ...]
    outputs: tuple[Meta, ...]

    @property
    def is_view(self) -> bool:
        """Whether it computes nothing."""
        return self.name in _VIEWS

    @property
    def bytes(self) -> int:
        """Read and written, if every input and output goes through memory once."""
        return sum(t.bytes for t in (*self.inputs, *self.outputs))

    def __str__(self) -> str:
        return f"{self.name}: {', '.join(map(str, self.inputs))} -> {', '.join(map(str, self.outputs)) or 'host'}"


class _Mode(FakeTensorMode):
    def __deepcopy__(self, memo: Any) -> _Mode:
        """Return itself: a copied tensor, and so a copied network, stays on the same GPU."""
        return self


class FakeGPU(TorchDispatchMode):
    """While it is active, tensors of device 'cuda' have no memory; those of the CPU are as ever.

    What is copied to the CPU arrives as zeros; a number that is read is 0, a truth value True.

    Attributes:
        ops: every operation on the GPU, in order.
        reads: what the host waits for: scalars and tensors that are brought to the CPU.
        uploads: what is copied from the CPU to the GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        # Errors are raised; there is no need to log them too.
        logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
        self._fake = _Mode()
        self.forget()

    def forget(self) -> None:
        """Start a new record."""
        self.ops: list[Op] = []
        self.reads: list[Op] = []
        self.uploads: list[Op] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:  # asked for more often than anything is computed
            return args[0].fake_device
        kwargs = kwargs or {}
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        device = kwargs.get("device")
        to_gpu = device is not None and torch.device(device).type == "cuda"
        if not to_gpu and not any(isinstance(t, FakeTensor) for t in given):
            return func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        inputs = tuple(map(Meta.of, given))
        if name == "_local_scalar_dense":
            self.reads.append(Op(name, inputs, ()))
            dtype = given[0].dtype
            return True if dtype == torch.bool else 0.0 if dtype.is_floating_point else 0
        if name == "copy_" and inputs[0].device == "cpu":
            self.reads.append(Op(name, inputs[1:], inputs[:1]))
            return given[0].zero_()
        if func is torch.ops.aten._fused_adam_.tensor_lr:  # which has no implementation without memory
            self.ops.append(Op(name, inputs, ()))
            return None
        with self._fake:
            if not all(isinstance(t, FakeTensor) for t in given):
                args, kwargs = tree_map_only(Tensor, _without_memory, (args, kwargs))
            result = func(*args, **kwargs)
        outputs = tuple(Meta.of(t) for t in tree_leaves(result) if isinstance(t, Tensor))
        op = Op(name, inputs, outputs)
        if any(t.device == "cpu" for t in outputs):
            self.reads.append(op)
            return tree_map_only(FakeTensor, _arrived, result)
        if name in ("_to_copy", "copy_") and inputs[-1].device == "cpu":
            self.uploads.append(op)
        self.ops.append(op)
        return result


def _without_memory(t: Tensor) -> Tensor:
    """What stands for a tensor of the CPU in an operation on the GPU."""
    return t if isinstance(t, FakeTensor) else torch.empty_strided(t.shape, t.stride(), dtype=t.dtype)


def _arrived(t: FakeTensor) -> Tensor:
    """What a tensor is after its copy to the CPU: zeros, in the same order in memory."""
    return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype).zero_() if t.device.type == "cpu" else t
