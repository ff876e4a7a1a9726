"""Says when two mathematical answers are equal: the label policy.

Equal value is equal, whatever the notation: interval or inequality, percent or fraction, degrees or radians, units
that convert, a column vector or a tuple, lists in any order, `f(x) = e` or `e`. An exact reference is not met by a
rounded answer; a rounded reference is met by an exact answer that rounds to it. Missing or extra elements, another
unit, another base, open for closed: wrong. A unit that one side leaves out is fine.

A cascade, cheapest first: normal forms (`notation`), exact numbers (`numbers`), structure (`structure`), and for the
pairs of expressions that are left, algebra (`symbolic`), which belongs into a process that can be killed.
"""
