import math
from dataclasses import replace
from pathlib import Path

import pytest

from grndist.errors import UserError
from grndist.sweeps.ledger import Ledger, Look, SweepError, Trial, opened
from tests.sweeps.sweep_files import sweep_of


def test_a_trial_comes_back_as_it_was_written(tmp_path: Path):
    ledger = Ledger(tmp_path)
    trial = Trial(
        7, {"model.embedding": 4, "x": None}, "stopped", [Look(0.5, {"epr": [1.0, math.nan]})], 12.5, "why", 3
    )
    ledger.write(trial)
    (found,) = ledger.trials()
    assert repr(found) == repr(trial)
    assert math.isnan(found.mean("epr"))
    assert math.isnan(found.mean("another"))


def test_what_has_ended_stays_as_it_is(tmp_path: Path):
    ledger = Ledger(tmp_path)
    ledger.write(Trial(0, {}))
    ledger.end(0, "stopped", "the time was up")
    ledger.end(0, "failed", "later")
    assert (ledger.trial(0).status, ledger.trial(0).error) == ("stopped", "the time was up")


def test_time_is_that_of_the_sessions(tmp_path: Path):
    ledger = Ledger(tmp_path)
    ledger.keep("sessions.json", [[100.0, 160.0], [1000.0, 1030.0]])
    assert ledger.seconds_used() == 90
    assert ledger.since_start(130.0) == 30
    assert ledger.since_start(1010.0) == 70
    ledger.begin_session()
    assert len(ledger.read("sessions.json")) == 3


def test_a_sweep_goes_on_only_when_asked_and_only_as_it_was(tmp_path: Path, store_path: Path):
    sweep = sweep_of(tmp_path, store_path)
    with pytest.raises(SweepError, match="there is no sweep to resume"), opened(sweep, "abc", resume=True):
        pass
    with opened(sweep, "abc", resume=False) as ledger:
        ledger.keep("sweep.json", ledger.read("sweep.json") | {"run_id": "17"})
        with pytest.raises(UserError, match="in use by another process"), opened(sweep, "abc", resume=True):
            pass
    with pytest.raises(SweepError, match="exists already; go on with --resume"), opened(sweep, "abc", resume=False):
        pass
    with opened(sweep_of(tmp_path, store_path, budget={"trials": 9}), "abc", resume=True) as ledger:
        assert ledger.read("sweep.json")["run_id"] == "17"
    more = sweep_of(tmp_path, store_path, replicates=2)
    with pytest.raises(SweepError, match="differs in replicates"), opened(more, "abc", resume=True):
        pass
    longer = sweep_of(tmp_path, store_path, run={"training": {"steps": 9}})
    with pytest.raises(SweepError, match="the run file differs in training"), opened(longer, "abc", resume=True):
        pass
    with pytest.raises(SweepError, match="its digest differs"), opened(sweep, "abd", resume=True):
        pass


def test_another_folder_is_left_alone(tmp_path: Path, store_path: Path):
    sweep = sweep_of(tmp_path, store_path)
    sweep.folder.mkdir(parents=True)
    (sweep.folder / "thesis.txt").write_text("words")
    with pytest.raises(SweepError, match="is not the folder of a sweep"), opened(sweep, "abc", resume=False):
        pass
    assert replace(Trial(0, {}), status="failed").is_over
