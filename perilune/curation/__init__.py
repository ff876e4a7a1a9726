"""From raw questions to a prompt set for reinforcement learning (k1.5 §2.1), each decision kept with its reason.

text         how questions are compared
duplicates   exact ones and near ones
overlap      questions of evaluation sets
question_types   what cannot be verified or can be guessed by its form; choices.py: options of multiple choice
"""
