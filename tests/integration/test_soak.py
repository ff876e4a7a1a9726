"""The short form of `benchmarks/soak.py`: a few hundred jobs through the API, hostile ones among them."""

from __future__ import annotations

from dataclasses import astuple, replace

from benchmarks.soak import soak

_GROWTH_MIB = 16.0  # an allocator's own; a leak with each job would be more


async def test_jobs_in_a_row_leave_nothing_behind() -> None:
    soaked = await soak(240)
    assert not soaked.wrong
    before, after = (replace(remains, service_mib=0, keepers_mib=0) for remains in (soaked.before, soaked.after))
    assert astuple(after) == astuple(before)
    assert soaked.after.service_mib < soaked.before.service_mib + _GROWTH_MIB
    assert soaked.after.keepers_mib < soaked.before.keepers_mib + _GROWTH_MIB
