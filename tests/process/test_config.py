"""A process survives being written down."""

import json

import pytest
import torch

from calotype.core.errors import UserError
from calotype.process import Process, process_from_config
from tests.process.families import FAMILIES


@pytest.mark.parametrize("process", FAMILIES.values(), ids=FAMILIES.keys())
def test_round_trip_through_json(process: Process) -> None:
    again = process_from_config(json.loads(json.dumps(process.config())))
    assert again == process
    t = torch.linspace(0, 1, 50, dtype=torch.float64) * process.t_max
    assert torch.equal(again.log_snr(t), process.log_snr(t))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "variance-preservin", "schedule": "linear"}, "did you mean 'variance-preserving'"),
        ({}, "unknown process kind None"),
        ({"kind": "variance-preserving", "schedule": "cosin"}, "did you mean 'cosine'"),
        ({"kind": "variance-preserving"}, "unknown noise schedule None"),
        ({"kind": "variance-preserving", "schedule": "linear", "beta_stop": 1}, "did you mean 'beta_start'|'beta_end'"),
        ({"kind": "rectified-flow", "shift": 3}, "has no settings"),
        ({"kind": "variance-exploding", "sigma_max": "80"}, "give a number"),
        ({"kind": "variance-preserving", "schedule": "linear", "zero_terminal_snr": 1}, "true or false"),
        ({"kind": "variance-preserving", "schedule": "linear", "num_train_steps": 10.5}, "whole number"),
        ({"kind": "variance-exploding", "sigma_min": 3, "sigma_max": 2}, "min < max"),
    ],
)
def test_bad_values_are_one_clear_line(values: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        process_from_config(values)
