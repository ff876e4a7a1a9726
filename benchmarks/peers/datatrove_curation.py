"""datatrove on rows of questions, for `benchmarks.curation`: exact and MinHash de-duplication, n-gram decontamination.

    python datatrove_curation.py ROWS.jsonl EXAM.jsonl FOLDER

Runs in an environment of its own (`pip install "datatrove[processing]"`): its pins are others than ours. Prints the
seconds of each step and what it kept, as JSON. Two tasks, on two processors.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.decont import NGramsDecontConfig, NGramsDecontFilter
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig, create_hash_func
from datatrove.utils.text import TextNormConfig, ngrams, simplify_text

NUM_TASKS = 2


def split(rows: Path, folder: Path) -> None:
    """Writes the rows as one file a task."""
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack, rows.open() as given:
        files = [stack.enter_context((folder / f"{task}.jsonl").open("w")) for task in range(NUM_TASKS)]
        for number, line in enumerate(given):
            files[number % NUM_TASKS].write(line)


def index_exam(exam: Path, folder: Path, config: NGramsDecontConfig) -> None:
    """The index that its filter reads: hashes of the n-grams of the exam's questions."""
    import numpy as np
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    hashed, tokenizer = create_hash_func(config.hash_config), load_word_tokenizer("en")
    folder.mkdir(parents=True)
    hashes = {
        hashed(" ".join(gram))
        for line in exam.read_text().splitlines()
        for gram in ngrams(
            tokenizer.word_tokenize(simplify_text(json.loads(line)["question"], config.norm_config)), config.n_grams
        )
    }
    np.array(sorted(hashes), dtype=np.uint64).tofile(folder / "exam.index.hashes")


def main(rows: Path, exam: Path, folder: Path) -> None:
    """Runs the steps."""
    seconds: dict[str, float] = {}
    split(rows, folder / "in")
    minhash = MinhashConfig(n_grams=2, num_buckets=16, hashes_per_bucket=4, hash_config=HashConfig(precision=64))
    decont = NGramsDecontConfig(n_grams=13, hash_config=HashConfig(precision=64), norm_config=TextNormConfig())
    index_exam(exam, folder / "index", decont)
    steps = {
        "minhash signatures": [
            JsonlReader(str(folder / "in")),
            MinhashDedupSignature(str(folder / "sig"), config=minhash),
        ],
        "minhash buckets": [MinhashDedupBuckets(str(folder / "sig"), str(folder / "buckets"), config=minhash)],
        "minhash clusters": [MinhashDedupCluster(str(folder / "buckets"), str(folder / "remove"), config=minhash)],
        "minhash filter and 13-grams": [
            JsonlReader(str(folder / "in")),
            MinhashDedupFilter(str(folder / "remove")),
            NGramsDecontFilter(str(folder / "index"), config=decont),
            JsonlWriter(str(folder / "out")),
        ],
    }
    tasks = {"minhash buckets": minhash.num_buckets, "minhash clusters": 1}
    for name, pipeline in steps.items():
        started = time.monotonic()
        num = tasks.get(name, NUM_TASKS)
        LocalPipelineExecutor(
            pipeline, tasks=num, workers=min(num, NUM_TASKS), logging_dir=str(folder / "logs" / name)
        ).run()
        seconds[name] = round(time.monotonic() - started, 1)
    kept = sum(gzip.decompress(path.read_bytes()).count(b"\n") for path in (folder / "out").glob("*.gz"))
    print(json.dumps({**seconds, "all": round(sum(seconds.values()), 1), "kept": kept}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
