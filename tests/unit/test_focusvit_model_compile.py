"""torch.compile takes the whole forward as one graph: nothing is read back to the host, no shape depends on values."""

import pytest
import torch
from testkit import model_reference as reference

from focusvit.model import FocusViT

VARIANTS = {**reference.VARIANTS, **reference.CONTROL_VARIANTS}


def compiled_error(name: str, backend: str) -> float:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = reference.shaken(FocusViT(reference.tiny_config(**VARIANTS[name]))).eval()
    inputs = reference.inputs(model.config)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend=backend, dynamic=False)
        return (compiled(**inputs) - model(**inputs)).abs().max().item()


@pytest.mark.parametrize("name", ["default", "hybrid_descriptor", "gather"])
def test_the_forward_is_one_graph(name: str) -> None:
    assert compiled_error(name, "eager") < 1e-5


@pytest.mark.soak
@pytest.mark.parametrize("name", VARIANTS)
def test_the_forward_of_every_variant_is_one_graph(name: str) -> None:
    assert compiled_error(name, "eager") < 1e-5


@pytest.mark.soak
@pytest.mark.parametrize("name", VARIANTS)
def test_the_compiled_model_gives_the_same_logits(name: str) -> None:
    assert compiled_error(name, "inductor") < 1e-4


@pytest.mark.soak
@pytest.mark.parametrize("name", ["default", "hybrid", "merge"])
def test_the_training_step_compiles(name: str) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = reference.shaken(FocusViT(reference.tiny_config(**VARIANTS[name]))).train()
    inputs = reference.inputs(model.config)
    model(**inputs).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    torch.compile(model, fullgraph=True)(**inputs).square().sum().backward()
    for p, grad in zip(model.parameters(), expected):
        torch.testing.assert_close(p.grad, grad, rtol=1e-3, atol=1e-4)
