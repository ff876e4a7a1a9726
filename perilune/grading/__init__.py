"""Shared by authors of graders and the reward service: plug-ins, labelled answers, judges' prompts, code tests."""
