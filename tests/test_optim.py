import pytest
import torch

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.optim import adamw, follow_configured_length


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
    assert max(rates) == pytest.approx(1e-3) and rates[0] < 1e-4 and rates[-1] < 1e-6


def test_constant_without_a_length():
    assert build(None)[1] is None


def test_too_short():
    with pytest.raises(InputError, match="total_steps=3"):
        build(3)


def test_a_resumed_schedule_ends_where_the_configuration_says():
    _, first = build(100)
    checkpoint = {"lr_schedulers": [first.state_dict()]}
    follow_configured_length(checkpoint)
    _, second = build(50)
    second.load_state_dict(checkpoint["lr_schedulers"][0])
    assert second.total_steps == 50
