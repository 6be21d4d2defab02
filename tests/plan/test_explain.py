from __future__ import annotations

import pytest
from torch import nn

from edgecompress.errors import DoesNotFit
from edgecompress.plan.candidates import Problem
from edgecompress.plan.choices import Choices
from edgecompress.plan.explain import explain_infeasible
from edgecompress.plan.network import read_network
from edgecompress.records import Budget
from edgecompress.target import DeviceProfile, load_target

NOTHING_TO_CHOOSE = Choices(widths={}, width_damage={})


def refusal(as_trainable, profile: DeviceProfile, **caps: int) -> DoesNotFit:
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 20, 3, padding=1), nn.Conv2d(20, 2, 3)
    )
    network = read_network(as_trainable(net, (1, 1, 64, 64)))
    return explain_infeasible(Problem(network, profile, Budget(**caps), {}), NOTHING_TO_CHOOSE)


def with_ram(target: str, **sizes: int) -> DeviceProfile:
    document = load_target(target).model_dump()
    for region in document["regions"]:
        region["size"] = sizes.get(region["name"], region["size"])
    return DeviceProfile.model_validate(document)


def test_too_little_ram_names_the_step_its_tensors_and_the_budget_that_would_do(as_trainable):
    found = refusal(as_trainable, load_target("cortex-m7"), ram_bytes=64 * 1024)
    assert "the budget is 64.0 KiB" in found.message or "budget is 64.0 KiB" in found.message
    assert "80.0 KiB" in found.message
    assert "32.0 KiB" in found.message
    assert found.needed > found.limit == 64 * 1024
    assert f"--ram {-(-found.needed // 1024)}K" in str(found.next_step)
    assert "must lie in one of" not in found.message


def test_a_tensor_larger_than_every_memory_names_them(as_trainable):
    profile = with_ram("cortex-m7-tcm", DTCM=65536, AXI=65536)
    found = refusal(as_trainable, profile)
    assert "Each tensor must lie in one of DTCM 59.5 KiB, AXI 64.0 KiB." in found.message
    assert found.needed >= found.limit + 16 * 1024


@pytest.mark.parametrize("size", [65536, 98304])
def test_no_budget_option_is_offered_beyond_the_device(as_trainable, size):
    found = refusal(as_trainable, with_ram("cortex-m7", RAM=size))
    assert "--ram" not in str(found.next_step)
    assert "Choose a target with" in str(found.next_step)
