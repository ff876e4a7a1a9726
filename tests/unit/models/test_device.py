"""Which device a process takes, on machines of every kind, as values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perilune.errors import InvalidInputError, SettingsError
from perilune.models.device import (
    CPU,
    GIB,
    Card,
    DeviceRequest,
    Machine,
    check_precision,
    choose_device,
    parse_device,
    rank_request,
)

BUSY = Card(0, "H100", 80 * GIB, 20 * GIB)
IDLE = Card(1, "H100", 80 * GIB, 79 * GIB)
TWO = Machine((BUSY, IDLE), has_driver=True, torch_cuda="13.0")
FULL = replace(TWO, cards=(replace(BUSY, free_bytes=GIB), replace(IDLE, free_bytes=GIB // 2)))
NOTHING = Machine()
CPU_BUILD = Machine(has_driver=True)
OLD_DRIVER = Machine(has_driver=True, torch_cuda="13.0", error="The NVIDIA driver on your system is too old")
HIDDEN = Machine(has_driver=True, torch_cuda="13.0")


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("auto", DeviceRequest("auto")),
        ("CPU", DeviceRequest("cpu")),
        (" cuda ", DeviceRequest("cuda")),
        ("cuda:0", DeviceRequest("cuda", 0)),
        ("cuda:12", DeviceRequest("cuda", 12)),
    ],
)
def test_the_setting_is_read(text: str, request_: DeviceRequest) -> None:
    assert parse_device(text) == request_


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:-1", "cuda:1.5", "cuda:a", "cuda:²", "cpu:0", "mps"])
def test_any_other_text_is_refused_and_says_what_to_give(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"is no device: give auto .*, cpu, cuda .*, or cuda:N"):
        parse_device(text)


@pytest.mark.parametrize(
    ("machine", "name", "reason"),
    [
        (TWO, "cuda:1", ""),  # the one with more free memory
        (replace(TWO, cards=(BUSY,)), "cuda:0", ""),
        (NOTHING, "cpu", "no NVIDIA driver"),
        (CPU_BUILD, "cpu", "built for CPUs only"),
        (OLD_DRIVER, "cpu", "built for CUDA 13.0, cannot use the driver: The NVIDIA driver on your system is too old"),
        (HIDDEN, "cpu", "CUDA_VISIBLE_DEVICES"),
        (FULL, "cpu", r"no card has room: cuda:0 (H100, 1.0 of 80.0 GiB free), cuda:1 (H100, 0.5 of 80.0 GiB free)"),
    ],
)
def test_auto_takes_a_free_card_or_says_why_not(machine: Machine, name: str, reason: str) -> None:
    device = choose_device(DeviceRequest("auto"), machine)
    assert str(device) == name
    assert reason in device.reason
    assert not reason or reason in device.in_words()


@pytest.mark.parametrize("machine", [NOTHING, CPU_BUILD, OLD_DRIVER, HIDDEN, FULL])
def test_cuda_that_cannot_be_had_is_an_error_that_says_what_to_do(machine: Machine) -> None:
    why = choose_device(DeviceRequest("auto"), machine).reason
    with pytest.raises(SettingsError) as refused:
        choose_device(DeviceRequest("cuda"), machine)
    assert str(refused.value) == f"PERILUNE_DEVICE=cuda: {why}; or set PERILUNE_DEVICE=cpu"


def test_a_card_by_number_is_that_card_or_an_error() -> None:
    assert choose_device(DeviceRequest("cuda", 0), TWO).card == BUSY
    with pytest.raises(SettingsError, match=r"cuda:2: there is no such card: there are cuda:0 \(H100.*cuda:1"):
        choose_device(DeviceRequest("cuda", 2), TWO)
    with pytest.raises(SettingsError, match="no NVIDIA driver"):
        choose_device(DeviceRequest("cuda", 0), NOTHING)


def test_cpu_looks_at_no_card() -> None:
    assert choose_device(DeviceRequest("cpu"), TWO) == CPU
    assert CPU.in_words() == "cpu"


def test_each_rank_has_a_card_of_its_own() -> None:
    auto, cuda = DeviceRequest("auto"), DeviceRequest("cuda")
    assert [rank_request(auto, TWO, rank, 2) for rank in range(2)] == [
        DeviceRequest("cuda", 0),
        DeviceRequest("cuda", 1),
    ]
    assert rank_request(auto, NOTHING, 1, 2) == auto  # all on the CPU
    assert rank_request(DeviceRequest("cpu"), TWO, 1, 4) == DeviceRequest("cpu")
    assert rank_request(DeviceRequest("cuda", 1), TWO, 0, 1) == DeviceRequest("cuda", 1)
    with pytest.raises(SettingsError, match="3 ranks of the trainer are started here, and there are 2 cards"):
        rank_request(auto, TWO, 0, 3)
    with pytest.raises(SettingsError, match="2 ranks cannot share one card"):
        rank_request(DeviceRequest("cuda", 1), TWO, 0, 2)
    with pytest.raises(SettingsError, match="no NVIDIA driver"):
        rank_request(cuda, NOTHING, 0, 2)


def test_a_card_without_bf16_is_refused_what_it_cannot_compute() -> None:
    old = choose_device(DeviceRequest("cuda"), replace(TWO, cards=(replace(IDLE, name="T4", has_bf16=False),)))
    check_precision(old, "fp32")
    check_precision(CPU, "bf16")
    for precision in ("bf16", "bfloat16"):
        with pytest.raises(SettingsError, match=r'T4 does not compute in bf16; train with trainer\.precision = "fp32"'):
            check_precision(old, precision)
