"""Packed matrix: the constant factor of many products, laid out as the processor reads it."""

from functools import cache

import torch
from torch import Tensor, nn
from vllm import _custom_ops as ops


class PackedMatrix(nn.Module):
    """W [D, F] of x W.

    On a CPU torch lays W out anew in each product, which costs more than a product of few tokens;
    vLLM's kernel, the one of the base weights, has it laid out once. That kernel adds nothing to
    what is there, so a sum costs a buffer of its own, which is less.
    """

    def __init__(self, matrix_DF: Tensor) -> None:
        super().__init__()
        self.width = matrix_DF.shape[1]
        self.is_packed = _has_kernel(matrix_DF)
        if self.is_packed:
            self._packed = ops.create_onednn_mm(matrix_DF.contiguous(), 32)
            self._multiply = torch.ops._C.onednn_mm.default
        else:
            self.register_buffer("matrix_DF", matrix_DF.contiguous(), persistent=False)

    def times(self, x_TD: Tensor) -> Tensor:
        """Return x W."""
        if not self.is_packed:
            return x_TD @ self.get_buffer("matrix_DF")
        out_TF = x_TD.new_empty(x_TD.shape[0], self.width)
        self._multiply(out_TF, x_TD, None, self._packed.handler_tensor)
        return out_TF

    def add_to(self, out_TF: Tensor, x_TD: Tensor) -> None:
        """Add x W to `out_TF`, in place."""
        if self.is_packed:
            out_TF.add_(self.times(x_TD))
        else:
            out_TF.addmm_(x_TD, self.get_buffer("matrix_DF"))


def _has_kernel(matrix_DF: Tensor) -> bool:
    # For float16 not every processor that has the kernel has a fast one.
    return (
        matrix_DF.device.type == "cpu"
        and matrix_DF.dtype in (torch.bfloat16, torch.float32)
        and ops._supports_onednn
        and _packs(matrix_DF.dtype)
    )


@cache
def _packs(dtype: torch.dtype) -> bool:
    """Say whether this processor has the kernel for a dtype, which only trying tells.

    One with AVX2 alone has it for float32 and not for bfloat16.
    """
    square = torch.zeros(16, 16, dtype=dtype)
    try:
        packed = ops.create_onednn_mm(square, 1)
        ops.onednn_mm(packed, square, None)
    except RuntimeError:
        return False
    return True
