"""The adapters, called as each framework calls them, with the corners that are hard to reach from inside one.

TRL's own trainer calls in test_trl.py, and the others where they are installed (frameworks/). slime is on no registry:
its rm_hub was read, and its call stands here as it is there.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import inspect
import math
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any

import pytest

from perilune.cli import scoring
from perilune.errors import UnavailableError
from perilune.integrations import areal, trl, verl
from perilune.integrations.scorer import UnscoredError
from perilune.integrations.verifiers import reward_function, score_trace
from tests.integration.serving import Running, reward_service

CHAT = [{"role": "user", "content": "1 + 1?"}]
REPLY = [{"role": "assistant", "content": "<think>easy</think> \\boxed{2}"}]
NOWHERE = "127.0.0.1:9"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with reward_service(tmp_path_factory.mktemp("service")) as running:
        yield running


# --- TRL: reward_func(prompts=, completions=, completion_ids=, trainer_state=, log_extra=, log_metric=, **columns) ---


def test_trl_gets_none_where_there_is_no_score(service: Running) -> None:
    logged: dict[str, Any] = {}
    function = trl.RewardFunction(["numeric", {"name": "exact", "weight": 0.5}], service.address, reference="solution")
    rewards = function(
        prompts=["1 + 1?"] * 3,
        completions=["2", "3", "2"],
        completion_ids=[[1], [2], [1]],
        trainer_state=SimpleNamespace(global_step=1),
        log_extra=logged.__setitem__,
        log_metric=logged.__setitem__,
        solution=["2", "2", "many"],
    )
    assert rewards == [1.5, 0.0, None]
    assert logged == {"perilune/status": ["OK", "OK", "GRADER_ERROR"], "perilune/unscored": pytest.approx(1 / 3)}


def test_trl_takes_conversations_and_can_be_pickled(service: Running) -> None:
    function = pickle.loads(pickle.dumps(trl.RewardFunction("math", service.address, name="correct")))  # noqa: S301
    assert function.__name__ == "correct"
    assert function(prompts=[CHAT], completions=[REPLY], completion_ids=[[1]], answer=["2"]) == [1.0]


def test_trl_stops_rather_than_train_on_nothing() -> None:
    with pytest.raises(UnavailableError):
        trl.RewardFunction("math", NOWHERE, deadline_s=0.5)(prompts=["p"], completions=["c"], answer=["a"])


# --- verl: get_custom_reward_fn and NaiveRewardManager.run_single ---------------------------------------------------


async def test_verl(service: Running) -> None:
    assert inspect.iscoroutinefunction(verl.compute_score)
    reward_kwargs = {"graders": ["math"], "address": service.address}

    async def call_with_kwargs(raw: Any, extra: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return await raw(*args, **{**kwargs, **extra})

    compute_score = functools.partial(call_with_kwargs, verl.compute_score, reward_kwargs)
    result = await compute_score(
        data_source="openai/gsm8k",
        solution_str="\\boxed{72}",
        ground_truth="72",
        extra_info={"question": "how many?", "num_turns": None, "rollout_reward_scores": {}},
        reward_router_address="http://x",
        reward_model_tokenizer=None,
    )
    assert result["score"] == 1.0
    with pytest.raises(UnscoredError, match="GRADER_ERROR"):
        await compute_score(data_source="d", solution_str="72", ground_truth="", extra_info={})


# --- AReaL: AsyncRewardWrapper sends partial(reward_fn, prompt, completion, ids, ids, **row) to a process -----------


def test_areal_in_a_process_of_its_own(service: Running) -> None:
    function = areal.RewardFunction("math", service.address)
    row = {"answer": "2", "messages": CHAT}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        call = functools.partial(function, "1 + 1?", "\\boxed{2}<|im_end|>", [1], [2], **row)
        assert pool.submit(call).result(timeout=120) == 1.0
        exact = functools.partial(areal.RewardFunction("exact", service.address), "", "yes <|im_end|>\n", [1], [2])
        assert pool.submit(functools.partial(exact, answer="yes")).result(timeout=120) == 1.0
        failed = pool.submit(functools.partial(function, "", "2", [1], [2], answer=""))
        with pytest.raises(UnscoredError):
            failed.result(timeout=120)
    assert not issubclass(UnscoredError, TimeoutError)  # which AReaL would take for a 0
    assert areal.DEADLINE_S < 15  # AReaL's own


# --- verifiers: Rubric._call_individual_reward_func, Task.score -----------------------------------------------------


async def test_verifiers_rubric(service: Running) -> None:
    async def call_individual(function: Any, state: dict[str, Any]) -> float:
        merged = {key: state.get(key, "") for key in ("prompt", "completion", "answer", "task", "info")}
        merged |= {"state": state, "parser": None}
        signature = inspect.signature(function)
        assert any(p.kind == p.VAR_KEYWORD for p in signature.parameters.values())
        assert not {"states", "prompts", "completions"} & signature.parameters.keys()  # a group's function otherwise
        return float(await function(**merged))

    state: dict[str, Any] = {"prompt": CHAT, "completion": REPLY, "answer": "2", "task": "sums", "info": {}}
    assert await call_individual(reward_function("math", service.address), state) == 1.0
    assert "error" not in state
    assert math.isnan(await call_individual(reward_function("math", service.address), state | {"answer": ""}))
    assert math.isnan(await call_individual(reward_function("math", NOWHERE, deadline_s=0.5), state))
    assert isinstance(state["error"], UnavailableError)


async def test_verifiers_trace(service: Running) -> None:
    task = SimpleNamespace(data=SimpleNamespace(prompt_text="1 + 1?"))
    trace = SimpleNamespace(last_reply="\\boxed{2}", task=task)
    assert await score_trace(trace, "2", "math", service.address) == 1.0
    with pytest.raises(UnscoredError):
        await score_trace(trace, "", "math", service.address)
    assert await score_trace(trace, "3", ["math"], service.address) == 0.0


# --- OpenRLHF and slime: endpoints of the service -------------------------------------------------------------------


def test_openrlhf(service: Running) -> None:
    """agent.py's payload, and what samples_generator.py makes of the answer."""
    prompt = "<|im_start|>user\nWhat is \\boxed{2} + 1?<|im_end|>\n<|im_start|>assistant\n"
    body = {"query": [prompt + "answer: 3<|im_end|>\n<|endoftext|>"], "prompts": [prompt], "labels": ["3"]}
    status, answer = service.post("/openrlhf?grader=math", body)
    assert (status, answer) == (200, {"rewards": [1.0], "scores": [1.0], "extra_logs": {}})
    assert service.post("/openrlhf?grader=math", body | {"labels": ["2"]})[1]["rewards"] == [0.0]


def test_slime(service: Running) -> None:
    """remote_rm's payload; the JSON body is the reward."""
    body = {"prompt": "2 + 1?", "response": "\\boxed{3}", "label": "3"}
    assert service.post("/slime?grader=math", body) == (200, 1.0)
    weighted = '/slime?grader={"name":"numeric","weight":0.5}&grader=math'.replace('"', "%22")
    assert service.post(weighted, body | {"prompt": CHAT, "label": 3}) == (200, 1.5)


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("/slime", {"prompt": "", "response": "3", "label": "3"}, 400, "?grader=math"),
        ("/slime?grader=maths", {"prompt": "", "response": "3", "label": "3"}, 400, "did you mean 'math'"),
        ("/slime?grader=math", {"prompt": "", "response": "3"}, 400, '"label"'),
        ("/slime?grader=math", [], 400, '"label"'),
        ("/slime?grader=math&undecided=half", {"prompt": "", "response": "3", "label": "3"}, 400, "must be numbers"),
        ("/slime?grader=math", {"prompt": "", "response": "3", "label": None}, 422, "GRADER_ERROR"),
        ("/openrlhf?grader=math", {"query": ["a"], "prompts": ["b"], "labels": ["1"]}, 400, "hold its prompt"),
        ("/openrlhf?grader=math", {"query": ["a"], "prompts": [], "labels": ["1"]}, 400, "all as long"),
        ("/openrlhf?grader=math", 5, 400, "the body must be"),
    ],
)
def test_no_score_is_an_error_and_never_a_number(
    service: Running, path: str, body: Any, status: int, detail: str
) -> None:
    found, problem = service.post(path, body)
    assert found == status
    assert detail in problem["detail"]


def test_a_token_can_stand_in_the_url(tmp_path: Any) -> None:
    token = scoring.new_token(tmp_path / "tokens.toml", "slime", ["reward"], None, None)
    body = {"prompt": "", "response": "3", "label": "3"}
    with reward_service(tmp_path, tokens_file=str(tmp_path / "tokens.toml")) as service:
        assert service.post("/slime?grader=math", body)[0] == 401
        basic = base64.b64encode(f"perilune:{token}".encode()).decode()  # as aiohttp sends http://perilune:TOKEN@…
        assert service.post("/slime?grader=math", body, {"authorization": f"Basic {basic}"}) == (200, 1.0)


def test_an_event_loop_has_its_own_client(service: Running) -> None:
    for _ in range(2):
        assert asyncio.run(verl.compute_score("d", "\\boxed{2}", "2", address=service.address))["score"] == 1.0
