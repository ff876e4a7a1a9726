"""What passes between the service and the keeper."""

from __future__ import annotations

import os

import pytest

from services.sandbox.jail.protocol import (
    JobRequest,
    KeeperReport,
    decode_report,
    encode_report,
    read_request,
    write_request,
)


def test_an_order_is_read_as_it_was_written_and_leaves_its_contents_next() -> None:
    request = JobRequest(["python", "\udcff.py"], {"A": "ü\n"}, True, [["a", 2, False]], ["*"])  # type: ignore[list-item]
    descriptor = write_request(request, [b"\x00\xff"])
    assert read_request(descriptor) == request
    assert os.read(descriptor, 10) == b"\x00\xff"
    os.close(descriptor)


def test_a_report_is_read_with_what_follows() -> None:
    report = KeeperReport(wait_status=9, stopped="cpu", wall_s=1.5, files=[["a", 3, True]])  # type: ignore[list-item]
    assert decode_report(encode_report(report) + b"abc") == (report, b"abc")


@pytest.mark.parametrize("length", [0, 7, 8, 20])
def test_a_report_cut_short_is_none(length: int) -> None:
    with pytest.raises(ValueError, match="the report is"):
        decode_report(encode_report(KeeperReport())[:length])
