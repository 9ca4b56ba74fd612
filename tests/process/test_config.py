"""A process survives being written down."""

import json
import re

import pytest
import torch

from calotype.core.errors import UserError
from calotype.process import Process, RectifiedFlow, VarianceExploding, VariancePreserving, process_from_config
from tests.process.families import FAMILIES

DEFAULTS = {
    "linear": {"num_train_steps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "zero_terminal_snr": False},
    "scaled-linear": {"num_train_steps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "zero_terminal_snr": False},
    "cosine": {"num_train_steps": 1000, "offset": 0.008, "beta_max": 0.999, "zero_terminal_snr": False},
    "angle": {"t_max": 0.999},
}


@pytest.mark.parametrize("schedule", DEFAULTS)
def test_defaults_of_the_schedules(schedule: str) -> None:
    process = process_from_config({"kind": "variance-preserving", "schedule": schedule})
    assert process.config() == {"kind": "variance-preserving", "schedule": schedule, **DEFAULTS[schedule]}
    make = {"scaled-linear": "scaled_linear"}.get(schedule, schedule)
    assert process == getattr(VariancePreserving, make)()


def test_defaults_of_the_other_families() -> None:
    assert RectifiedFlow().config() == {"kind": "rectified-flow"}
    assert process_from_config({"kind": "rectified-flow"}) == RectifiedFlow()
    exploding = {"kind": "variance-exploding", "sigma_min": 0.002, "sigma_max": 80.0}
    assert VarianceExploding().config() == exploding
    assert process_from_config({"kind": "variance-exploding"}) == VarianceExploding()


@pytest.mark.parametrize("process", FAMILIES.values(), ids=FAMILIES.keys())
def test_round_trip_through_json(process: Process) -> None:
    values = json.loads(json.dumps(process.config()))
    again = process_from_config(values)
    assert again == process
    assert values == process.config()  # what was handed in is left alone
    t = torch.linspace(0, 1, 50, dtype=torch.float64) * process.t_max
    assert torch.equal(again.log_snr(t), process.log_snr(t))


def test_every_setting_arrives() -> None:
    for values in (
        {"schedule": "linear", "num_train_steps": 8, "beta_start": 0.1, "beta_end": 0.3, "zero_terminal_snr": True},
        {"schedule": "scaled-linear", "num_train_steps": 7, "beta_start": 0.2, "beta_end": 0.4},
        {"schedule": "cosine", "num_train_steps": 6, "offset": 0, "beta_max": 0.5, "zero_terminal_snr": True},
        {"schedule": "angle", "t_max": 0.9},
    ):
        values = {"kind": "variance-preserving", **values}
        assert values.items() <= process_from_config(values).config().items()
    values = {"kind": "variance-exploding", "sigma_min": 1, "sigma_max": 90}
    assert process_from_config(values).config() == values


VP = {"kind": "variance-preserving"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"kind": "variance-preservin", "schedule": "linear"},
            "unknown process kind 'variance-preservin': did you mean 'variance-preserving'?",
        ),
        (
            {},
            "unknown process kind None: choose from rectified-flow, variance-exploding, variance-preserving",
        ),
        ({"kind": ["rectified-flow"]}, "unknown process kind ['rectified-flow']: did you mean 'rectified-flow'?"),
        ({**VP, "schedule": "cosin"}, "unknown noise schedule 'cosin': did you mean 'cosine'?"),
        (VP, "unknown noise schedule None: choose from angle, cosine, linear, scaled-linear"),
        (
            {**VP, "schedule": "linear", "beta_begin": 1},
            "process: unknown key 'beta_begin': did you mean 'beta_end'?",
        ),
        ({**VP, "schedule": "angle", "t_mx": 1}, "process: unknown key 't_mx': did you mean 't_max'?"),
        ({"kind": "rectified-flow", "shift": 3}, "process: unknown key 'shift': rectified-flow has no settings"),
        ({"kind": "variance-exploding", "sigma_max": "80"}, "process: sigma_max is '80': give a number"),
        ({"kind": "variance-exploding", "sigma_max": True}, "process: sigma_max is True: give a number"),
        ({**VP, "schedule": "linear", "zero_terminal_snr": 1}, "process: zero_terminal_snr is 1: give true or false"),
        (
            {**VP, "schedule": "linear", "num_train_steps": 10.5},
            "num_train_steps is 10.5: give a whole number of at least 1",
        ),
        (
            {"kind": "variance-exploding", "sigma_min": 3, "sigma_max": 2},
            "sigma runs from 3 to 2: it must satisfy 0 < min < max",
        ),
    ],
)
def test_bad_values_are_one_clear_line(values: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        process_from_config(values)
