"""What an author of graders shares with the reward service: plug-ins, labelled answers, judges' prompts, code tests."""
