"""The reward service as the reward of other projects' trainers: one small file for each.

| framework | what it calls | file |
| --- | --- | --- |
| TRL | a reward function of `GRPOTrainer` | trl.py |
| verl | `reward.custom_reward_function` | verl.py |
| AReaL | a workflow's `reward_fn` | areal.py |
| verifiers, prime-rl | a rubric's function, or a task's `@vf.reward` | verifiers.py |
| OpenRLHF | `--reward.remote_url`, an endpoint of the service | openrlhf.py |
| slime | `--rm-url`, an endpoint of the service | slime.py |

None of them needs the framework to be imported, and none turns a failed grader into a number: an answer that got no
score is None where the framework knows that, and an error where it does not.
"""
