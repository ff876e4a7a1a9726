"""An OpenAI-compatible endpoint beside the rollout service's own: outside agents sample the policy that is trained.

`/v1/models`, `/v1/completions` and `/v1/chat/completions`, streamed or not. The model's name is the run's id. A request
shares the engine, its places and its weights with the run's own samples. Beyond OpenAI's format, as vLLM has it,
`"return_token_ids": true` gives the ids of prompt and response, and `prompt` may be a list of ids: a conversation goes
on from the very tokens that were drawn. Every choice says which policy versions wrote it, in `perilune.segments`.

What the engines cannot do is refused by name, never ignored: penalties, biases, tools, alternatives to a token.
"""
