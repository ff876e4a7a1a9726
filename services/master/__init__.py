"""The central master (k1.5 §2.6): prompts, dispatch, buffer, ledger and state of every run. No tensors.

Read downstream: `prompts` -> `samplers` -> `dispatch` -> (the bus) -> `intake` -> `controller` -> `api`.
Only this service opens the database (`tables`, `store`, `migrations`).
"""
