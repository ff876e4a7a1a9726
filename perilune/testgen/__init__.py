"""Test cases for coding problems that have none (k1.5 §2.3.5): `perilune testgen`.

Read in the order of the data:

    problem        a row of the input: statement, submissions, generators, validator, checker
    settings       how many cases, and the thresholds of 7 of 10 and 9 of 10
    special_judge  whether outputs can be compared at all: the statement's words, and right submissions that disagree
    mutation       inputs made of examples, where a problem has no generator
    author         a model behind an endpoint writes the generator, validator or checker that a problem lacks
    packages       CYaRon's files, that travel beside a generator into the sandbox
    execution      programs in the sandbox, and what became of them
    inputs         generators run, malformed and repeated inputs dropped
    validity       which cases are valid, whether the problem stays, TPR and TNR: plain functions
    making         one problem from its row to its verdict
    store          one file a problem, written whole or not at all, so that the same command goes on
    report         the funnel, the rates, every problem's reason: as JSON and as a page
    command        the whole set, problems side by side: test cases for the grader `code`, a manifest and reports

No service is imported: programs run in a sandbox that is named by its address, or one that the command starts.
"""
