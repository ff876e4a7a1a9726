"""The OpenAPI document says what the protos say, and its examples are true."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format
from jsonschema_rs import Draft202012Validator, meta

from perilune.api.master.v1 import master_pb2
from perilune.api.reward.v1 import reward_pb2
from perilune.api.reward.v1.reward_pb2 import ScoreRequest
from perilune.api.sandbox.v1 import sandbox_pb2
from perilune.runtime.http.face import Method, methods_of
from perilune.runtime.http.openapi import describe
from tests.unit.http.servicer import ScriptedServicer

SERVICES = [
    service
    for module in (reward_pb2, sandbox_pb2, master_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
]


def describe_all() -> dict[str, Any]:
    methods = [
        Method(method, print) for service in SERVICES for method in service.methods if not method.client_streaming
    ]
    return describe("all", methods, with_auth=True)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return describe_all()


def validator(document: dict[str, Any], name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": document["components"]})


def test_every_schema_is_a_schema_and_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        meta.validate(schema | {"$schema": "https://json-schema.org/draft/2020-12/schema"})

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [found for each in value.values() for found in references(each)]
        return [found for each in value for found in references(each)] if isinstance(value, list) else []

    names = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert names <= document["components"]["schemas"].keys()


def test_methods_have_paths_words_and_kinds(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    batch = document["paths"]["/reward/v1/score-batch"]["post"]
    assert batch["operationId"] == "ScoreBatch"
    assert "as soon as it is there" in batch["description"]
    assert "application/x-ndjson" in batch["responses"]["200"]["content"]
    assert set(document["paths"]["/reward/v1/list-graders"]) == {"get", "post"}
    assert "/sandbox/v1/run" in document["paths"]
    assert document["components"]["schemas"]["ScoreRequest"]["properties"]["reference"]["description"] == (
        "What the graders compare with."
    )
    statuses = document["components"]["schemas"]["ScoreStatus"]
    assert "SCORE_STATUS_UNAVAILABLE" in statuses["enum"]
    assert "the plug-in. Try again." in statuses["description"]


@pytest.mark.parametrize("name", ["Score", "ScoreRequest", "ScoreBatchRequest", "RescoreRequest"])
def test_examples_are_of_their_type_and_fit_their_schema(document: dict[str, Any], name: str) -> None:
    (example,) = document["components"]["schemas"][name]["examples"]
    assert "Example:" not in document["components"]["schemas"][name].get("description", "")
    json_format.ParseDict(example, getattr(reward_pb2, name)())
    validator(document, name).validate(example)


def test_what_the_service_sends_fits(document: dict[str, Any]) -> None:
    request = ScoreRequest(
        question="q",
        deadline_s=0.5,
        graders=[reward_pb2.GraderChoice(name="math", weight=2, options={"marker": "answer:"})],
        images=[reward_pb2.Image(media_type="image/png", data=b"\x89PNG")],
        conversation=[reward_pb2.Message(role="user", content="hi")],
    )
    sent = json_format.MessageToDict(request, always_print_fields_with_no_presence=True)
    validator(document, "ScoreRequest").validate(sent)
    both = {"images": [{"data": "aaaa", "uri": "file:x"}]}
    assert not validator(document, "ScoreRequest").is_valid(both)
    assert not validator(document, "ScoreRequest").is_valid({"refrence": "x"})


def test_a_method_for_each_that_http_can_carry() -> None:
    methods = methods_of({reward_pb2.DESCRIPTOR.services_by_name["RewardService"]: ScriptedServicer()})
    assert [method.path for method in methods] == [
        "/reward/v1/score",
        "/reward/v1/score-batch",
        "/reward/v1/rescore",
        "/reward/v1/list-graders",
    ]
