"""Engines in a process of their own, vLLM and SGLang: the worker's side, the wire, the child and its drivers."""
