"""A rollout worker that forges: what it sends decides no score, and ends no sample that it was not given.

Bus, master and reward service are real; the test plays the worker.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, GraderChoice, Score
from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.api.trajectory.v1.trajectory_pb2 import (
    ENDING_BUDGET,
    PURPOSE_EVALUATE,
    DeadLetter,
    Trajectory,
)
from perilune.recipe import check_recipe
from perilune.runtime import subjects
from perilune.runtime.bus import Bus
from perilune.runtime.wholes import text_of, with_score
from tests.integration.test_malformed import letters, reward_on, until_empty
from tests.integration.test_master import RECIPE, answer_to, master_on, trainer_of

LIE = "a lie"


def changed(change: Callable[[Trajectory], object]) -> Callable[[Trajectory], Trajectory]:
    def forged(sample: Trajectory) -> Trajectory:
        made = Trajectory()
        made.CopyFrom(sample)
        made.response = made.prompt.reference = LIE
        change(made)
        return made

    return forged


FORGERIES = [
    changed(lambda sample: None),  # the reference
    changed(lambda sample: sample.prompt.ClearField("seal")),
    changed(lambda sample: setattr(sample.prompt, "seal", "0.0")),
    changed(lambda sample: sample.ClearField("graders")),
    changed(lambda sample: sample.graders.append(GraderChoice(name="format"))),
    changed(lambda sample: sample.graders[0].options.update(case="ignore")),
    changed(lambda sample: setattr(sample, "purpose", PURPOSE_EVALUATE)),
    changed(lambda sample: setattr(sample, "iteration", 7)),
    changed(lambda sample: setattr(sample, "group_id", "run.0.1")),  # with the seal of the group that it was given
    changed(lambda sample: sample.prompt.messages[0].ClearField("content")),
]


SAID = (
    "brings another prompt, reference, purpose or other graders than its task",
    "has no seal",
    "has the seal of another group",
    "is of another text than the trajectory there",
    "refers to the trajectory",
    "a reward worker of a version before",
)


async def test_no_message_of_a_rollout_worker_forges_a_score(nats_url: str, tmp_path: Path) -> None:
    async with (
        master_on(nats_url, tmp_path) as master,
        reward_on(nats_url, tmp_path) as reward,
        Bus.connect(nats_url, "fleet") as bus,
    ):
        await master.submit(check_recipe(RECIPE | {"evaluation": {"num_problems": 1, "modes": ["greedy"]}}))
        async with trainer_of(master):
            await master.commit(0)
            tasks = await tasks_of(bus)
            given = next(task for task in tasks if task.group_id == "run.0.0")
            await forge(bus, answer_to(given, 0).trajectory)
            await until_empty(bus, master.process, reward)
            ledger = (await master.run()).ledger
            assert (ledger.in_flight, ledger.dead) == (6, 0)
            reasons = "\n".join(letter.reason for letter in await letters(bus) if letter.ends_nothing)
            assert all(words in reasons for words in SAID), reasons
            for task in tasks:
                for index in task.sample_indices:
                    sample = answer_to(task, index).trajectory
                    await send_whole(bus, sample, sample, f"honest {sample.id}")
            await until_empty(bus, master.process, reward)
            batch = await master.batch(0)
        assert [scored.score.value for group in batch for scored in group.samples] == [0.0] * 6
        assert not any(scored.trajectory.response for group in batch for scored in group.samples)


async def tasks_of(bus: Bus) -> list[RolloutTask]:
    taken: list[RolloutTask] = []
    async for deliveries in bus.deliveries(subjects.rollout_consumer("run"), RolloutTask):
        for delivery in deliveries:
            taken.append(delivery.message)
            await delivery.ack()
        if len(taken) == 4:
            return taken
    raise AssertionError


async def forge(bus: Bus, honest: Trajectory) -> None:
    """Sends every forgery in every way that there is."""
    for number, forgery in enumerate(FORGERIES):
        forged = forgery(honest)
        await bus.publish(subjects.finished_subject("run"), forged, f"at once {number}")
        forged.response = f"{LIE} as a whole"  # what is graded for the same text is one message
        await send_whole(bus, forged, forged, f"whole {number}")
        forged.response = f"{LIE} in place of another"
        await send_whole(bus, forged, honest, f"graded {number}")
        forged.ending = ENDING_BUDGET
        await bus.publish(subjects.partial_subject("run"), forged, f"partial {number}")
    score_of_a_lie = with_score(text_of(honest, await bus.keep_whole(honest)), Score(status=SCORE_STATUS_OK, value=1.0))
    score_of_a_lie.ClearField("graded")
    await bus.publish(subjects.scored_subject("run"), score_of_a_lie, "a reward worker of a version before")
    for number, letter in enumerate(letters_about_others(honest)):
        await bus.publish(subjects.DEAD_SUBJECT, letter, f"letter {number}")


async def send_whole(bus: Bus, graded: Trajectory, whole: Trajectory, message_id: str) -> None:
    """As workers do; `graded` is what the reward service is shown."""
    message = text_of(graded, await bus.keep_whole(whole))
    await bus.publish(subjects.finished_subject("run"), message, message_id)


def letters_about_others(honest: Trajectory) -> list[DeadLetter]:
    """About groups that the sender was not given, with a seal of the one that it was."""
    others = ["run.0.1/0", "run.0.1/1", "run.0.2/0"]
    task = RolloutTask(run_id="run", group_id="run.0.1", prompt=honest.prompt).SerializeToString()
    return [
        DeadLetter(trajectory_ids=others, run_id="run"),
        DeadLetter(trajectory_ids=others, run_id="run", seal=honest.prompt.seal),
        DeadLetter(trajectory_ids=["run.0.0/0"], run_id="run", seal="0.0"),
        DeadLetter(message_id="run.0.1/1", subject="perilune.run.prompt", payload=task),
        DeadLetter(message_id="run.0.1/0/finished-0", subject="perilune.run.trajectory.finished", payload=task),
    ]
