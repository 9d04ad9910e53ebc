"""SLIC's Triton kernels are translated for real GPUs, which takes no GPU: `make triton`."""

import os

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton is not installed: `make triton` installs it and runs these tests")
backends = pytest.importorskip("triton.backends.compiler")
compiler = pytest.importorskip("triton.compiler")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter translates nothing", allow_module_level=True)

from focusvit.segment import triton_slic as kernels  # noqa: E402
from focusvit.segment.cells import layout_on  # noqa: E402

_FOR_THE_COMPILER = ("num_warps", "enable_fp_fusion", "maxnreg")
_POINTERS = {torch.uint8: "*u8", torch.int32: "*i32", torch.int64: "*i64", torch.float32: "*fp32"}


class _Launches:
    """Stands in for a kernel: keeps what it would be launched with."""

    def __init__(self, kernel, kept):
        self.kernel, self.kept = kernel, kept

    def __getitem__(self, grid):
        return lambda *args, **options: self.kept.append((self.kernel, args, options))


def _launches(monkeypatch, images, tokens):
    """(kernel, arguments, options) of every launch for `images`, none of which runs."""
    kept = []
    with monkeypatch.context() as patch:
        for name in ("reduce_kernel", "lab_kernel", "centres_kernel", "assign_kernel"):
            patch.setattr(kernels, name, _Launches(getattr(kernels, name), kept))
        kernels.triton_slic(images, tokens, iterations=2)
    return kept


def _type(value):
    if isinstance(value, torch.Tensor):
        return _POINTERS[value.dtype]
    if isinstance(value, int):
        return "constexpr" if value == 1 else "i32"  # as Triton does when it is called
    return "fp32"


@pytest.mark.parametrize(
    ("compute", "dtype", "side", "tokens"),
    [
        (80, torch.uint8, 224, 64),
        (90, torch.float32, 224, 49),
        (90, torch.float32, 128, 1),  # one cell of 4096 pixels
        (90, torch.uint8, 16, 64),  # cells of one pixel
    ],
)
def test_every_kernel_is_translated_for_a_gpu(monkeypatch, compute, dtype, side, tokens):
    images, built = torch.zeros(2, 3, side, side, dtype=dtype), {}
    launches = _launches(monkeypatch, images, tokens)
    assert len(launches) == 2 + 1 + 2 * 2  # images to Lab in two, sums of cells, then two a round
    for kernel, args, options in launches:
        told = {name: options[name] for name in _FOR_THE_COMPILER if name in options}
        given = dict(zip(kernel.arg_names, args)) | {name: v for name, v in options.items() if name not in told}
        signature = {name: "constexpr" if name in options else _type(value) for name, value in given.items()}
        fixed = {
            (kernel.arg_names.index(name),): given[name] for name, kind in signature.items() if kind == "constexpr"
        }
        key = (kernel.__name__, *options.values())
        if key not in built:
            source = compiler.ASTSource(kernel, signature, fixed)
            built[key] = triton.compile(source, target=backends.GPUTarget("cuda", compute, 32), options=told)
    assert len(built) == 6  # the round that assigns comes as first, middle and last
    for key, done in built.items():
        assert len(done.asm["cubin"]) > 1000
        if key[0] in ("assign_kernel", "centres_kernel"):  # products are rounded, as where the arithmetic is tested
            assert "fma.rn" not in done.asm["ptx"]
        assert "atom." not in done.asm["ptx"] and "red.global" not in done.asm["ptx"], key


def test_a_round_reads_each_pixel_once(monkeypatch):
    """Memory of one image that a round touches, by the tensors it is given: Lab, sums and centres, no distances."""
    launches = _launches(monkeypatch, torch.zeros(1, 3, 224, 224, dtype=torch.uint8), 64)
    kernel, args, _ = launches[-3]
    assert kernel.__name__ == "assign_kernel"
    lab, _, _, queries, parts = args[:5]
    assert lab.nbytes == 112 * 112 * 3 * 4 == 150_528 and queries.nbytes + parts.nbytes < 20_000


@pytest.mark.parametrize(
    ("most", "block"), [(1, (32, 1)), (64, (64, 1)), (196, (256, 1)), (784, (1024, 4)), (4096, (4096, 16))]
)
def test_a_program_has_a_lane_for_every_pixel(most, block):
    assert tuple(kernels._block(most, 8).values()) == (*block, False)


def test_a_layout_has_the_box_of_every_cell():
    layout = layout_on(torch.device("cpu"), 7, 9, 11)
    for cell, (top, left, height, width) in enumerate(layout.box.tolist()):
        held = layout.order.view(7, -1)[cell][layout.valid.view(7, -1)[cell] > 0]
        y, x = torch.arange(top, top + height), torch.arange(left, left + width)
        assert torch.equal(held, (y[:, None] * 11 + x).flatten())
