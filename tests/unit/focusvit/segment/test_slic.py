"""Which form of SLIC runs: the kernels where they can, torch where they cannot, and never in silence."""

import logging
import sys
from types import SimpleNamespace

import pytest
import torch

from focusvit.segment import slic as chooser
from focusvit.segment.slic import slic
from focusvit.segment.torch_slic import torch_slic

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
KERNELS = "focusvit.segment.triton_slic"


@pytest.fixture
def kernels(monkeypatch):
    """Stands for the kernels, on a CPU that counts as a GPU."""
    calls = []

    def triton_slic(*args, **settings):
        calls.append((args, settings))
        if stand_in.error is not None:
            raise stand_in.error
        return "by kernels"

    stand_in = SimpleNamespace(triton_slic=triton_slic, calls=calls, error=None)
    monkeypatch.setitem(sys.modules, KERNELS, stand_in)
    monkeypatch.setattr(chooser, "KERNEL_DEVICES", ("cpu",))
    monkeypatch.setattr(chooser, "_refused", set())
    chooser._say.cache_clear()
    return stand_in


def test_the_kernels_get_what_was_asked(kernels):
    assert slic(IMAGES, 5, compactness=3.0, iterations=2, reduce=4) == "by kernels"
    assert kernels.calls == [((IMAGES, 5), {"compactness": 3.0, "iterations": 2, "reduce": 4})]


def test_a_device_without_kernels_gets_the_torch_form_without_a_word(kernels, monkeypatch, caplog):
    monkeypatch.setattr(chooser, "KERNEL_DEVICES", ("cuda",))
    assert torch.equal(slic(IMAGES, 5), torch_slic(IMAGES, 5))
    assert not kernels.calls and not caplog.records


def test_a_failure_is_told_once_in_one_line_and_torch_goes_on(kernels, caplog):
    kernels.error = RuntimeError("Failed to find C compiler.\nPlease specify it")
    with caplog.at_level(logging.WARNING):
        for tokens in (5, 5, 6):
            assert torch.equal(slic(IMAGES, tokens), torch_slic(IMAGES, tokens))
    assert [record.getMessage() for record in caplog.records] == [
        "superpixels are made by torch, slower: the Triton kernels do not run here (RuntimeError: Failed to find C "
        "compiler.)"
    ]
    assert len(kernels.calls) == 2  # what failed is not built again; another number of regions is another kernel


def test_another_reason_is_told_too(kernels, caplog):
    with caplog.at_level(logging.WARNING):
        for tokens, kernels.error in ((5, RuntimeError("one")), (6, NotImplementedError("other")), (7, ValueError())):
            slic(IMAGES, tokens)
    reasons = [record.getMessage().rpartition("(")[2] for record in caplog.records]
    assert reasons == ["RuntimeError: one)", "NotImplementedError: other)", "ValueError: no reason given)"]


def test_without_triton_the_warning_names_it(kernels, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, KERNELS, None)  # as an import that fails
    with caplog.at_level(logging.WARNING):
        assert torch.equal(slic(IMAGES, 5), torch_slic(IMAGES, 5))
    assert "ModuleNotFoundError" in caplog.text and "triton" in caplog.text


def test_out_of_memory_is_left_to_the_caller(kernels):
    kernels.error = torch.OutOfMemoryError("full")
    with pytest.raises(torch.OutOfMemoryError):
        slic(IMAGES, 5)


def test_a_wrong_setting_is_no_failure_of_the_kernels(kernels, caplog):
    with pytest.raises(ValueError, match="tokens is 0"):
        slic(IMAGES, 0)
    assert not kernels.calls and not caplog.records


def test_a_graph_that_is_exported_holds_the_torch_form(kernels):
    class Slic(torch.nn.Module):
        def forward(self, images):
            return slic(images, 5)

    exported = torch.export.export(Slic(), (IMAGES,)).module()
    assert torch.equal(exported(IMAGES), torch_slic(IMAGES, 5)) and not kernels.calls


@pytest.mark.parametrize(("tokens", "dtype"), [(1, torch.uint8), (256, torch.uint8), (257, torch.int32)])
def test_a_map_takes_a_byte_a_pixel_where_that_is_enough(tokens, dtype):
    maps = slic(torch.rand(1, 3, 36, 36, generator=torch.Generator().manual_seed(1)), tokens, iterations=1)
    assert maps.dtype == dtype and maps.unique().tolist() == list(range(tokens))
