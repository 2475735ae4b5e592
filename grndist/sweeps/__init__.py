"""Many trainings of one run with other settings: a search space, trials on Ray Tune, results that survive interruption.

`config` is the sweep file, `space` what is tried, `objectives` what it is worth, `plan` what comes next, `ledger` the
folder, `trial` what one process does, `tuning` where Ray is, `drive` all of it, `results` what is said at the end.
"""
