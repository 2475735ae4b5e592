"""The fast form of CaTran against the plain one, which is the definition."""

import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lion_pytorch import Lion
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from grndist.data.stream.batch import Batch
from grndist.models.catran import CaTran, CaTranConfig
from tests.models.batches import batch_of
from tests.models.threads import in_threads

N_GENES = 12
SETTINGS = st.fixed_dictionaries(
    {
        "embedding": st.integers(1, 6),
        "expression_input": st.sampled_from(["concatenate", "add"]),
        "projection": st.booleans(),
        "attention": st.sampled_from(["softmax", "sigmoid"]),
        "attention_threshold": st.sampled_from([0.0, 0.7]),
        "input_layers": st.integers(1, 3),
        "aggregations": st.sampled_from([1, 2, 5, 11]),
        "output_layers": st.sampled_from([1, 2]),
        "hidden": st.sampled_from([0.0, 0.5, 0.8]),
        "corruption": st.sampled_from(["permute", "permute_within_gene", "zero"]),
        "reconstruction_loss": st.sampled_from(["huber", "squared"]),
        "huber_delta": st.sampled_from([0.3, 1.0]),
        "interventional_weight": st.sampled_from([0.0, 10.0]),
        "interventional_loss": st.sampled_from(["huber", "squared"]),
        "interventional_ratio": st.sampled_from(["printed", "inverted"]),
        "interventional_gradient": st.booleans(),
        "interventional_min_cells": st.integers(1, 5),
    }
)


def pair(dtype: torch.dtype, **chosen: Any) -> tuple[CaTran, CaTran]:
    """The fast and the plain model of the same settings and parameters."""
    chosen = {"embedding_std": 0.5, "linear_std": 0.5} | chosen
    return tuple(CaTran(CaTranConfig(form=form, **chosen), N_GENES, seed=1).to(dtype) for form in ("fast", "plain"))


def close(first: Tensor, second: Tensor, tolerance: float, floor: float) -> bool:
    """Whether they differ by at most this share of the largest value; what should be 0 is noise below `floor`."""
    return bool((first - second).abs().max() <= tolerance * second.abs().max() + floor)


@settings(max_examples=60)
@given(
    chosen=SETTINGS,
    genes=st.sets(st.integers(0, N_GENES - 1), min_size=2).map(sorted),
    n_cells=st.integers(2, 40),
    labels=st.lists(st.integers(-2, N_GENES - 1), min_size=40, max_size=40),
)
def test_losses_gradients_and_running_statistics_are_the_plain_forms(
    chosen: dict[str, Any], genes: list[int], n_cells: int, labels: list[int]
):
    fast, plain = pair(torch.float64, **chosen)
    batch = batch_of(n_cells, genes, perturbed=labels[:n_cells], dtype=torch.float64)
    ours, wanted = fast(batch), plain(batch)
    assert ours.keys() == wanted.keys()
    assert all(close(ours[name], wanted[name], 1e-10, 1e-14) for name in wanted)
    sum(ours.values()).backward()
    sum(wanted.values()).backward()
    largest = max(float(parameter.grad.abs().max()) for parameter in plain.parameters())
    for (name, first), second in zip(fast.named_parameters(), plain.parameters(), strict=True):
        # repeated aggregations leave little variance, and BatchNorm magnifies the rounding of what passes through
        assert close(first.grad, second.grad, 1e-10, 1e-13 + 1e-11 * largest), name
    for (name, first), second in zip(fast.named_buffers(), plain.buffers(), strict=True):
        assert close(first, second, 1e-10, 1e-13), name


@pytest.mark.parametrize("attention", ["softmax", "sigmoid"])
def test_a_threshold_that_leaves_no_attention_gives_no_nan(attention: str):
    models = pair(torch.float64, attention=attention, attention_threshold=5.0)
    ours, wanted = (model(batch_of(30, [0, 2, 3, 7], dtype=torch.float64)) for model in models)
    assert all(torch.isclose(ours[name], wanted[name], rtol=1e-10) for name in wanted)
    sum(ours.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in models[0].parameters())


def test_with_running_statistics_predictions_are_the_plain_forms():
    models = pair(torch.float64)
    batches = [batch_of(30, [0, 2, 3, 7, 8], step=step, dtype=torch.float64) for step in range(4)]
    for model in models:
        for batch in batches[:3]:
            model.train()(batch)
    predicted = []
    for model in models:
        model.eval()
        predicted.append(model.predict(batches[3].expression, batches[3].genes, model.attention(batches[3].genes)))
    assert torch.allclose(*predicted, rtol=1e-10)


def test_a_checkpoint_of_one_form_is_one_of_the_other():
    fast, plain = pair(torch.float32)
    plain.load_state_dict(fast.state_dict())
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in fast.state_dict().items())


def trained(model: CaTran, optimizer: torch.optim.Optimizer) -> tuple[list[Tensor], CaTran]:
    losses = []
    for step in range(50):
        optimizer.zero_grad()
        loss = sum(model(batch_of(100, list(range(N_GENES)), step=step)).values())
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses, model


def test_fifty_steps_of_lion_in_float32_give_the_same_losses_and_attention():
    models = pair(torch.float32, embedding=8)
    (ours, fast), (wanted, plain) = (trained(m, Lion(m.parameters(), lr=1e-3, weight_decay=0.05)) for m in models)
    assert wanted[-1] < 0.9 * wanted[0]
    assert torch.allclose(torch.stack(ours), torch.stack(wanted), rtol=0, atol=1e-4)
    every = torch.arange(N_GENES)
    assert torch.allclose(fast.attention(every), plain.attention(every), rtol=0, atol=1e-4)


def test_fifty_steps_of_sgd_in_float32_give_the_same_parameters():
    models = pair(torch.float32, embedding=8)
    (_, fast), (_, plain) = (trained(m, torch.optim.SGD(m.parameters(), lr=1e-2)) for m in models)
    for (name, first), second in zip(fast.named_parameters(), plain.named_parameters(), strict=True):
        assert close(first, second[1], 1e-5, 1e-8), name


def test_raw_counts_far_from_zero_keep_their_precision_in_float32():
    """Variances of data with mean 1,000 and deviation 1: uncentred sums of squares would lose all digits."""
    fast, exact = pair(torch.float32)[0], pair(torch.float64)[1]
    batch = batch_of(200, list(range(N_GENES)), dtype=torch.float64)
    counts = (batch.expression + 1000).float()
    every = torch.arange(N_GENES)
    ours = fast.predict(counts, every, fast.attention(every))
    assert torch.allclose(ours.double(), exact.predict(counts.double(), every, exact.attention(every)), atol=2e-3)


def test_eleven_sigmoid_aggregations_over_many_genes_do_not_overflow():
    config = CaTranConfig(embedding=4, attention="sigmoid", aggregations=11)
    model = CaTran(config, 400)
    terms = model(batch_of(50, list(range(400))))
    sum(terms.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("where", ["expression", "embedding"])
def test_a_value_that_is_no_number_shows_in_the_loss(where: str):
    model, batch = pair(torch.float32)[0], batch_of(30, list(range(N_GENES)))
    (batch.expression if where == "expression" else model.embedding.data)[3, 2] = float("nan")
    assert not torch.isfinite(sum(model(batch).values()))


def test_half_precision_is_used_for_the_large_product_only():
    fast, _ = pair(torch.float32)
    batch = batch_of(100, list(range(N_GENES)))
    exact = fast(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = fast(batch)
    sum(rough.values()).backward()
    assert all(value.dtype == torch.float32 for value in rough.values())
    assert all(rough[name].item() == pytest.approx(exact[name].item(), rel=0.02) for name in exact)
    assert all(torch.isfinite(parameter.grad).all() for parameter in fast.parameters())


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that an operation returned."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.size = max(self.size, value.numel())
        return result


def largest(form: str) -> int:
    model = CaTran(CaTranConfig(form=form, embedding=20, aggregations=3), 64)
    with Largest() as seen:
        sum(model(batch_of(300, list(range(64)))).values()).backward()
    return seen.size


def test_nothing_of_cells_x_genes_x_d_is_made():
    assert largest("plain") >= 300 * 64 * 21
    assert largest("fast") == 300 * 64


def test_neither_does_numpy_hold_so_much():
    model, batch = CaTran(CaTranConfig(embedding=20), 64), batch_of(300, list(range(64)))
    sum(model(batch).values()).backward()
    tracemalloc.start()
    sum(model(batch).values()).backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 * 64 * 21 * 4 / 4


def test_the_number_of_threads_does_not_change_what_the_head_and_the_losses_add_up():
    """With the same predictions; matrix products are PyTorch's own and round by its number of threads."""
    model = CaTran(CaTranConfig(embedding=4), 200)
    batch = batch_of(300, list(range(200)))
    one, three = (in_threads(threads, lambda: gradients(model, batch)) for threads in (1, 3))
    assert all(torch.allclose(first, second, atol=1e-6) for first, second in zip(one, three, strict=True))


def gradients(model: CaTran, batch: Batch) -> list[Tensor]:
    model.zero_grad()
    sum(model(batch).values()).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_losses_are_the_plain_forms():
    for model in pair(torch.float32):
        model.cuda()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            losses = model(_on_gpu(batch_of(64, list(range(N_GENES)))))
        assert all(torch.isfinite(value) for value in losses.values())


def _on_gpu(batch: Batch) -> Batch:
    moved = {name: getattr(batch, name).cuda() for name in ("expression", "genes", "perturbed")}
    return replace(batch, **moved)
