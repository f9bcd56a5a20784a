import pytest
import torch

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.training.checks import check_length
from audio_diffusion_pytorch.training.optim import adamw, follow_configured_length


def build(total_steps):
    weight = torch.nn.Parameter(torch.zeros(1))
    made = adamw([weight], 1e-3, (0.95, 0.999), 1e-6, 1e-3, total_steps)
    return made["optimizer"], made.get("lr_scheduler", {}).get("scheduler")


@pytest.mark.parametrize("total_steps", [4, 9, 10, 11, 20, 500])
def test_one_cycle_rises_and_falls(total_steps):
    optimizer, scheduler = build(total_steps)
    rates = []
    for step in range(total_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < total_steps - 1:
            scheduler.step()
    # The schedule begins and ends at a small share of its top, not at zero.
    assert max(rates) == pytest.approx(1e-3) and rates[0] < 1e-4 and rates[-1] < 1e-6


def test_constant_without_a_length():
    assert build(None)[1] is None


def test_too_short():
    with pytest.raises(InputError, match="total_steps=3"):
        build(3)


def test_training_may_not_outlast_the_cycle():
    for steps, total_steps in ((10, 10), (9, 10), (10, None), (float("inf"), None)):
        check_length(steps, total_steps)
    with pytest.raises(
        InputError,
        match=r"takes 11 steps, but total_steps=10 is .*: set total_steps=11, too, or end it",
    ):
        check_length(11, 10)
    with pytest.raises(
        InputError, match=r"has no end, but total_steps=10 is .*: end it with trainer.max_steps=10"
    ):
        check_length(float("inf"), 10)
    with pytest.raises(InputError, match="total_steps=abc must be a whole number"):
        check_length(10, "abc")


def test_a_resumed_schedule_ends_where_the_configuration_says():
    _, first = build(100)
    checkpoint = {"lr_schedulers": [first.state_dict()]}
    follow_configured_length(checkpoint)
    _, second = build(50)
    second.load_state_dict(checkpoint["lr_schedulers"][0])
    assert second.total_steps == 50


def test_fused_steps_are_those_of_the_plain_optimiser_and_may_be_clipped():
    torch.manual_seed(0)
    start, grads = torch.randn(7, 5), torch.randn(4, 7, 5)
    results = []
    for make in (lambda p: adamw(p, 1e-2, (0.95, 0.999), 1e-6, 1e-1)["optimizer"], plain_adamw):
        weight = torch.nn.Parameter(start.clone())
        optimizer = make([weight])
        for grad in grads:
            weight.grad = grad.clone()
            optimizer.step()
        results.append(weight.detach())
    # One step of a learning rate of about 1e-3, rounded.
    assert torch.allclose(*results, atol=1e-7) and not torch.allclose(results[0], start)
    assert not getattr(build(None)[0], "_step_supports_amp_scaling", False)


def plain_adamw(parameters):
    return torch.optim.AdamW(
        parameters, 1e-2, (0.95, 0.999), 1e-6, 1e-1, fused=False, foreach=False
    )
