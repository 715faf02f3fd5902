"""This server beside its rivals, on this machine, in one run: ``make bench``.

A module a row of docs/performance.md (`ROWS` in ``__main__``), each with a `TITLE` and a
``run(bench)`` that gives a `report.Result`.  Under them: `machine` (cores, processes), `children`
(what is started is ended), `rivals` and `product` (what is measured), `load` (how), `rounds`
(interleaving, medians, ratios) and `report`.

An absolute figure means nothing on a machine that others use too; a ratio of two neighbouring
runs does.  So all variants of a row take turns, and what is reported is the median of the
ratios within each turn.
"""
