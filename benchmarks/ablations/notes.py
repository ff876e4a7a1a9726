"""Says what was thought after the runs were there; tasks, measures and comparisons were written before, in `claims`."""

NOTES: dict[str, str] = {
    "negative-gradients": (
        "Against ReST there is no difference to be seen. A wrong response of this task is mostly one that gave "
        "up, which shares its beginning with the right ones: what makes going on likelier makes giving up less "
        "likely, with or without a negative gradient. And with a rate that was chosen for AdamW and clipped "
        "gradients, both take steps of about one size. Fine-tuning on right samples stays behind on every seed, "
        "by less than what was counted as a difference. A task whose wrong answers do not give up in the same "
        "place would be a better test."
    ),
    "length-grows": ("Going on is what is learnt, and it takes tokens; both grow on every seed."),
    "length-penalty": (
        "The limit that was foreseen: nothing is there to be shortened once the policy goes on to the answer. "
        "Penalising from the start slows learning on every seed, by a little less than what was counted as a "
        "difference; the direction is the paper's."
    ),
}
