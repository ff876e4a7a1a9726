"""`python -m services.trainer.sft FOLDER`: the fine-tuning that the folder's plan says, from where it was left."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from types import FrameType

from perilune.errors import PeriluneError, SettingsError
from perilune.sft.folder import SftFolder


class Signals:
    """Ctrl-C and SIGTERM: the first asks to stop at the next step, the second ends at once."""

    def __init__(self) -> None:
        self.signum = 0
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, _: FrameType | None) -> None:
        if self.signum:
            raise KeyboardInterrupt
        self.signum = signum
        print("stopping after this step", file=sys.stderr, flush=True)

    def asked(self) -> bool:
        """Tests whether to stop."""
        return bool(self.signum)


def main() -> None:
    """Runs the command: 0, 1 for a failure that stderr explains, 2 for a setting, 128 and the signal if stopped."""
    parser = argparse.ArgumentParser(description="Fine-tune a model as a folder's plan says.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    arguments = parser.parse_args()
    signals = Signals()
    try:
        sys.exit(_run(SftFolder(arguments.folder), signals, arguments.json))
    except PeriluneError as error:
        print(f"perilune: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, SettingsError) else 1)
    except KeyboardInterrupt:
        sys.exit(128 + signals.signum)


def _run(folder: SftFolder, signals: Signals, as_json: bool) -> int:
    # torch takes seconds to import: a wrong plan is refused before.
    from transformers.utils.logging import disable_progress_bar

    from services.trainer.learner import InterruptedTraining
    from services.trainer.sft.display import Display
    from services.trainer.sft.training import train

    disable_progress_bar()  # it would mix with ours
    try:
        with Display() as display:
            report = train(folder, signals.asked, display)
    except InterruptedTraining:
        print("perilune: stopped; the same command goes on from there", file=sys.stderr)
        return 128 + signals.signum
    print(json.dumps(report, ensure_ascii=False) if as_json else f"wrote {folder.model}")
    return 0


if __name__ == "__main__":
    main()
