"""Says how a fine-tuning goes, for people: a bar in a terminal, a line every few seconds elsewhere. All on stderr."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from services.trainer.stages.runner import StageStep

LINE_EVERY_S = 2.0
SHOWN_CHARACTERS = 200  # of an answer


class Display:
    """Shows steps, held-out losses, and the first answer of each time."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, TextColumn("{task.fields[said]}"), console=self._console)
        self._tasks: dict[int, TaskID] = {}
        self._line_at = 0.0

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, markup=False)

    def __call__(self, step: StageStep) -> None:
        """Shows a step."""
        metrics = step.metrics
        said = f"loss {metrics['loss']:.4f}  {metrics['tokens_per_second']:,.0f} tokens/s"
        if self._console.is_terminal:
            if step.index not in self._tasks:
                self._tasks[step.index] = self._bar.add_task(f"stage {step.index}", total=step.num_steps, said="")
            self._bar.update(self._tasks[step.index], completed=step.step, said=said)
        elif step.step == step.num_steps or time.monotonic() - self._line_at > LINE_EVERY_S:
            self._line_at = time.monotonic()
            self.say(f"stage {step.index} step {step.step}/{step.num_steps}  {said}")
        if "heldout_loss" in metrics:
            self.say(f"stage {step.index} step {step.step}: held-out loss {metrics['heldout_loss']:.4f}")
        for answer in step.generated[:1]:
            self.say(f"  {answer.prompt[-SHOWN_CHARACTERS:]!r} → {answer.response[:SHOWN_CHARACTERS]!r}")
