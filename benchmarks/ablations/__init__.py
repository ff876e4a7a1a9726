"""Ablations: what the paper and its neighbours claim, shown in kind on small models with paired seeds.

claims      the table: each claim, its task, its variants, what is compared; written before any result
loop        one run in one process, made of the services' own parts
store       finished runs, one file each: nothing is run twice
effects     effects with intervals, and a test
page        docs/ablations.md with its pictures, from stored runs
"""
