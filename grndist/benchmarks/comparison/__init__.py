"""Methods on data sets over seeds, and one table of what came of them.

`config` is the benchmark file, `datasets` makes stores of what it names, `networks` are the methods', `scores` their
scores, and `cells` keeps a file for each (data set, method, seed), by which an interrupted benchmark goes on. `table`
puts them together, `drive` is all of it.
"""
