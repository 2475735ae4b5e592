"""Bad input, through the command line: one message, exit status 2, and nothing on disk has changed."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata.io import write_elem
from safetensors import SafetensorError
from scipy import sparse

from grndist.genes import NON_TARGETING
from tests.test_cli import Said, done, grndist, process, small_chain

GENES = [f"gene{number:02d}" for number in range(1, 13)]  # of the small chain
EVALUATE = "evaluate small.parquet --reference small.network.tsv"

# what a command writes: to a free name, and to one that is taken
OUTPUTS = {
    "simulate": ("new.h5ad", "small.h5ad --overwrite"),
    "ingest": ("new.zarr", "small.zarr --overwrite"),
    "train": ("name=new", "name=small --overwrite"),
    "infer": ("-o new.tsv", "-o small.parquet --overwrite"),
    "evaluate": ("-o new.json", "-o small.json --overwrite"),
}

Tree = dict[str, bytes | None]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small artefact of every kind, all called small."""
    folder = tmp_path_factory.mktemp("chain")
    small_chain(folder)
    return folder


@pytest.fixture
def here(chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the chain, where one stands."""
    shutil.copytree(chain, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def snapshot(folder: Path) -> Tree:
    """Every file and folder below, hidden ones too, with its bytes; a lock holds only the process that tried last."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    return {
        name: path.read_bytes() if path.is_file() and path.name != ".lock" else None for name, path in files.items()
    }


def refused(said: Said, *words: str) -> None:
    assert said.status == 2, said
    assert said.out == ""
    assert "Traceback" not in said.err, said.err
    assert said.err.startswith("grndist: "), said.err
    assert said.err.endswith("\n")
    assert said.err.count("grndist: ") == 1, said.err
    for word in words:
        assert word in said.err, (word, said.err)


def refused_without_a_trace(line: str, *words: str) -> None:
    before = snapshot(Path())
    refused(grndist(line), *words)
    assert snapshot(Path()) == before


# --- files that go wrong ---


def counts(n_cells: int = 4) -> np.ndarray:
    return np.arange(1, 3 * n_cells + 1, dtype=np.float32).reshape(n_cells, 3)


def with_value(value: float) -> np.ndarray:
    values = counts()
    values[2, 1] = value
    return values


def h5ad(
    name: str, values: np.ndarray | None = None, cells: list[str] | None = None, dense: bool = False, **obs: list
) -> None:
    values = counts() if values is None else values
    cells = cells or [f"cell{number}" for number in range(len(values))]
    genes = pd.DataFrame(index=[f"gene{number:02d}" for number in range(1, values.shape[1] + 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that are not unique are the point
        data = anndata.AnnData(values if dense else sparse.csr_matrix(values), pd.DataFrame(obs, index=cells), genes)
    data.write_h5ad(name)


def text(name: str, content: str | bytes = "") -> None:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


def other_hdf5() -> None:
    with h5py.File("other.h5ad", "w") as file:
        file["pixels/image"] = np.zeros(3)


def store_of_another_version() -> None:
    shutil.copytree("small.zarr", "old.zarr")
    import zarr

    write_elem(zarr.open_group("old.zarr", mode="a"), "uns/grndist/format_version", 99)


def store_without_controls() -> None:
    h5ad("treated.h5ad", perturbation=["gene01", "gene01", "gene02", "gene02"])
    done("ingest treated.h5ad treated.zarr --perturbation-column perturbation")


def store_of_another_panel() -> None:
    h5ad("panel.h5ad", perturbation=[NON_TARGETING, "gene01", "gene02", "gene02"])
    done("ingest panel.h5ad panel.zarr")


def another_store() -> None:
    done("simulate other.h5ad --cells 90 --genes 12 --regulators 4 --seed 4")
    done("ingest other.h5ad other.zarr")


def network(name: str, pairs: list[tuple[str, str]]) -> None:
    text(name, "regulator\ttarget\n" + "".join(f"{one}\t{other}\n" for one, other in pairs))


def complete_network() -> None:
    network("complete.tsv", [(one, other) for one in GENES[:3] for other in GENES if one != other])


def three_edges_and_six_true_ones() -> None:
    network("six.tsv", [("gene01", target) for target in GENES[1:6]] + [("gene02", "gene03")])
    text("short.csv", "regulator,target,weight\ngene01,gene02,3\ngene02,gene04,2\ngene09,gene10,1\n")


@dataclass(frozen=True)
class Case:
    """A mistake: how it comes about, the command line without its output, and what the message must name."""

    what: str
    line: str
    words: tuple[str, ...]
    make: Callable[[], None] = lambda: None


def case(what: str, line: str, *words: str, make: Callable[[], None] = lambda: None) -> Case:
    return Case(what, line, words, make)


VALUES = "finite values of 0 or more were expected"
CASES = [
    # the source
    case("missing source", "ingest nowhere.h5ad", "nowhere.h5ad: no such file", "give the path of an h5ad, 10x, CSV"),
    case(
        "text called h5ad",
        "ingest text.h5ad",
        *("text.h5ad is not readable as HDF5", "check what the file is"),
        make=lambda: text("text.h5ad", "cell,gene01\na,1\n"),
    ),
    case(
        "cut h5ad",
        "ingest cut.h5ad",
        *("cut.h5ad is not readable as HDF5", "truncated", "download or write it again"),
        make=lambda: text("cut.h5ad", Path("small.h5ad").read_bytes()[:5000]),
    ),
    case(
        "HDF5 of other things",
        "ingest other.h5ad",
        *("other.h5ad is neither an h5ad (no obs, var) nor a 10x h5", "'pixels'", "write_h5ad"),
        make=other_hdf5,
    ),
    case("unknown kind", "ingest small.yaml", "small.yaml: unknown kind of file '.yaml'", "known are .h5ad"),
    case(
        "no cells",
        "ingest none.h5ad",
        *("none.h5ad is empty: 0 cells, 3 genes", "at least one of each"),
        make=lambda: h5ad("none.h5ad", np.empty((0, 3), np.float32)),
    ),
    case(
        "no genes",
        "ingest none.h5ad",
        *("none.h5ad is empty: 3 cells, 0 genes", "at least one of each"),
        make=lambda: h5ad("none.h5ad", np.empty((3, 0), np.float32)),
    ),
    case(
        "only zeros",
        "ingest none.h5ad",
        *("none.h5ad is empty", "4 cells and 3 genes are zero"),
        make=lambda: h5ad("none.h5ad", np.zeros((4, 3), np.float32)),
    ),
    case("empty csv", "ingest none.csv --cells-in-rows", "none.csv is empty", make=lambda: text("none.csv")),
    *[
        case(
            f"{shown} in {'a dense' if dense else 'a sparse'} h5ad",
            "ingest bad.h5ad",
            *("bad.h5ad: gene 'gene02' in cell 'cell2' is " + shown, VALUES, "--layer or --raw"),
            make=lambda value=value, dense=dense: h5ad("bad.h5ad", with_value(value), dense=dense),
        )
        for value, shown in [(np.nan, "nan"), (np.inf, "inf"), (-3, "-3.0")]
        for dense in (False, True)
    ],
    *[
        case(
            f"{found} in a csv",
            "ingest bad.csv --cells-in-rows",
            *("bad.csv: gene 'g1' in cell 'b' is " + shown, VALUES),
            make=lambda found=found: text("bad.csv", f"cell,g0,g1\na,1,2\nb,3,{found}\n"),
        )
        for found, shown in [("NaN", "nan"), ("inf", "inf"), ("-1", "-1.0")]
    ],
    case(
        "ragged csv",
        "ingest bad.csv --genes-in-rows",
        *("bad.csv, line 3, row 'g1': 2 fields, but 3 in the lines before", "mend or remove that line"),
        make=lambda: text("bad.csv", "gene,a,b\ng0,1,2\ng1,3\n"),
    ),
    *[
        case(
            f"{found!r} in a csv",
            "ingest bad.csv --genes-in-rows",
            *("bad.csv, line 3, row 'g1', column 'b'", f"{found!r} is not a number", "write 0 for nothing seen"),
            make=lambda found=found: text("bad.csv", f"gene,a,b\ng0,1,2\ng1,3,{found}\n"),
        )
        for found in ("many", "")
    ],
    case(
        "rows not said",
        "ingest good.csv",
        *("good.csv: say what its rows are, --genes-in-rows or --cells-in-rows", "'g0'"),
        make=lambda: text("good.csv", "gene,a,b\ng0,1,2\n"),
    ),
    case(
        "cell names twice",
        "ingest twice.h5ad",
        *("twice.h5ad: 1 cell names are not unique, among them 'a'", "obs_names_make_unique"),
        make=lambda: h5ad("twice.h5ad", cells=["a", "b", "a", "c"]),
    ),
    case(
        "cell names twice in a csv",
        "ingest twice.csv --genes-in-rows",
        *("twice.csv: 1 cell names are not unique, among them 'a'", "make them so"),
        make=lambda: text("twice.csv", "gene,a,a\ng0,1,2\n"),
    ),
    case(
        "absent label column",
        "ingest small.h5ad --perturbation-column guide",
        *("small.h5ad: the table of cells has no column 'guide'", "it has 'perturbation'", "--perturbation-column"),
    ),
    case(
        "absent control label",
        "ingest small.h5ad --perturbation-column perturbation --control scramble",
        *("small.h5ad: no cell has the control label 'scramble' in column 'perturbation'", "--control"),
    ),
    case(
        "option out of bounds",
        "ingest small.h5ad --shuffle-seed -1",
        "shuffle_seed",
        "greater than or equal to 0",
        "-1",
    ),
    case(
        "option of unknown value",
        "ingest small.h5ad --state raw",
        *("state: Input should be 'auto', 'counts', 'log1p' or 'continuous'", "got 'raw'"),
    ),
    case(
        "two options", "ingest good.csv --genes-in-rows --cells-in-rows", "--genes-in-rows or --cells-in-rows, not both"
    ),
    # the simulation
    case(
        "simulation out of bounds",
        "simulate --cells 2 --control-share 1.5",
        *("cells: Input should be greater than or equal to 10", "got 2", "control_share: ", "got 1.5"),
    ),
    case("simulation that does not fit", "simulate --genes 8", "regulators=40 exceeds genes=8", "lower regulators"),
    # the run
    case("missing run file", "train nowhere.yaml", "nowhere.yaml: no such file", "give the path of a run file"),
    case("binary run file", "train small.h5ad", "small.h5ad is not readable as YAML"),
    case(
        "unknown keys and values out of bounds, all at once",
        "train small.yaml training.epoch=5 training.cells_per_step=0 model.hidden=1.5",
        *("small.yaml is not valid", "training.epoch: unknown key; did you mean", "got 5"),
        *("training.cells_per_step: Input should be greater than 0 (got 0)", "model.hidden: ", "less than 1 (got 1.5)"),
    ),
    case(
        "key without its section", "train small.yaml epochs=5", "epochs: unknown key; did you mean 'training.epochs'?"
    ),
    case("unknown preset", "train small.yaml preset=best", "small.yaml: there is no preset 'best'", "dazzle"),
    case("unknown model", "train small.yaml model.kind=gpt", "small.yaml: model.kind is 'gpt'", "catran_d, grn_vae"),
    case(
        "override without =", "train small.yaml training.epochs", "'training.epochs' is not of the form key.path=value"
    ),
    case(
        "missing store", "train small.yaml store=nowhere.zarr", "nowhere.zarr: no such store", "grndist ingest SOURCE"
    ),
    case("no store", "train small.yaml store=runs", "runs is not a grndist store", "make one with `grndist ingest`"),
    case(
        "store of another version",
        "train small.yaml store=old.zarr",
        *("old.zarr: store format version 99", "this grndist reads version 1", "ingest the source again"),
        make=store_of_another_version,
    ),
    case(
        "no controls",
        "train small.yaml store=treated.zarr",
        *("treated.zarr: no control cells", "model.kind=catran", "--control LABEL", "model.interventional_weight=0"),
        make=store_without_controls,
    ),
    case("a file as run root", "train small.yaml runs=small.h5ad", "small.h5ad", "not a folder"),
    # the edge list
    case("missing run", "infer runs/nowhere", "runs/nowhere is not a run directory", "`grndist train`"),
    case("no run", "infer small.zarr", "small.zarr is not a run directory (it has no config.yaml)", "`grndist train`"),
    case(
        "more edges than there are", "infer runs/small -k 133", "runs/small", "133 edges", "only 132", "-k 132 or --all"
    ),
    case("threshold too high", "infer runs/small --threshold 2", "runs/small", "at least 2", "lower --threshold"),
    case("two sizes", "infer runs/small -k 3 --all", "give one of -k, --threshold and --all"),
    # the scores
    case("missing edges", "evaluate nowhere.tsv --reference small.network.tsv", "nowhere.tsv: no such file"),
    case(
        "no edge list",
        "evaluate small.h5ad --reference small.network.tsv",
        "small.h5ad: the ending '.h5ad'",
        ".parquet",
    ),
    case(
        "edges without weights",
        "evaluate pairs.tsv --reference small.network.tsv",
        *("pairs.tsv has no column for weight", "'regulator', 'target'", "Expected regulator, target, weight"),
        make=lambda: network("pairs.tsv", [("gene01", "gene02")]),
    ),
    case("missing reference", "evaluate small.parquet --reference nowhere.tsv", "nowhere.tsv: no such file"),
    case(
        "no gene in common",
        "evaluate small.parquet --reference symbols.tsv",
        *(
            "symbols.tsv shares no gene with",
            "small.parquet",
            "'IRF1', 'JAK2', 'STAT1'",
            "'gene01', 'gene02', 'gene03'",
        ),
        "use the same identifiers",
        make=lambda: network("symbols.tsv", [("JAK2", "STAT1"), ("STAT1", "IRF1"), ("STAT2", "IRF1")]),
    ),
    case(
        "no reference edge in the panel",
        "evaluate small.parquet --reference half.tsv",
        *("half.tsv: none of its 2 edges has both genes", "12 genes of the panel", "use a reference for these genes"),
        make=lambda: network("half.tsv", [("gene01", "IRF1"), ("IRF1", "STAT1")]),
    ),
    case(
        "empty reference",
        "evaluate small.parquet --reference none.tsv",
        "none.tsv is empty",
        make=lambda: text("none.tsv"),
    ),
    case(
        "reference of a header alone",
        "evaluate small.parquet --reference none.tsv",
        *("none.tsv holds no edge", "at least one"),
        make=lambda: network("none.tsv", []),
    ),
    case(
        "reference of self-edges",
        "evaluate small.parquet --reference self.tsv",
        *("self.tsv holds no edge between two different genes", "at least one"),
        make=lambda: network("self.tsv", [("gene01", "gene01")]),
    ),
    case(
        "complete reference",
        "evaluate small.parquet --reference complete.tsv",
        *("complete.tsv is complete: all 33 candidate edges", "use a reference that leaves some pairs out"),
        make=complete_network,
    ),
    case(
        "edge list shorter than k",
        "evaluate short.csv --reference six.tsv --store small.zarr",
        *("short.csv has 2 of the 10 candidate edges", "6 are true in six.tsv", "infer RUN --all"),
        make=three_edges_and_six_true_ones,
    ),
    case(
        "scores without a store", "evaluate small.parquet --reference small.network.tsv --store runs", "runs is not a"
    ),
    case(
        "scores with a store of another version",
        "evaluate small.parquet --reference small.network.tsv --store old.zarr",
        *("old.zarr: store format version 99", "this grndist reads version 1"),
        make=store_of_another_version,
    ),
]


@pytest.mark.parametrize("output", [0, 1], ids=["to a free name", "over what is there"])
@pytest.mark.parametrize("mistake", CASES, ids=lambda mistake: mistake.what)
@pytest.mark.usefixtures("here")
def test_a_mistake_is_one_message_and_leaves_no_trace(mistake: Case, output: int):
    mistake.make()
    command = mistake.line.split()[0]
    refused_without_a_trace(f"{mistake.line} {OUTPUTS[command][output]}", *mistake.words)


def test_every_command_has_cases():
    assert {mistake.line.split()[0] for mistake in CASES} == set(OUTPUTS)
    assert len({mistake.what for mistake in CASES}) == len(CASES)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("simulate small.h5ad", ("small.h5ad exists already", "--overwrite")),
        ("simulate small.zarr", ("small.zarr", "ends in .h5ad")),
        ("simulate no/new.h5ad", ("no/new.h5ad: the folder no does not exist", "create it first")),
        ("ingest small.h5ad small.zarr", ("small.zarr exists already", "--overwrite")),
        ("ingest small.h5ad small.yaml --overwrite", ("small.yaml exists and is not a grndist store", "another name")),
        ("ingest small.h5ad runs --overwrite", ("runs exists and is not a grndist store", "another name")),
        ("ingest small.h5ad small.h5ad --overwrite", ("small.h5ad would be replaced", "a path of its own")),
        ("ingest small.h5ad no/new.zarr", ("no/new.zarr: the folder no does not exist", "create it first")),
        ("train small.yaml", ("runs/small exists already", "--resume", "--overwrite", "name=")),
        ("train small.yaml name=new --resume", ("runs/new: there is no run to resume", "leave out --resume")),
        ("train small.yaml --resume --overwrite", ("--resume", "--overwrite", "not both")),
        ("infer runs/nowhere", ("runs/nowhere is not a run directory", "`grndist train`")),
        ("infer runs/small --all -o small.parquet", ("small.parquet exists already", "--overwrite")),
        ("infer runs/small --all -o new.xlsx", ("new.xlsx: the ending '.xlsx'", ".parquet, .tsv, .csv")),
        ("infer runs/small --all -o no/new.tsv", ("no/new.tsv: the folder no does not exist", "create it first")),
        ("evaluate small.parquet --reference small.network.tsv -o small.json", ("small.json exists", "--overwrite")),
        ("evaluate small.parquet --reference small.network.tsv -o new.txt", ("new.txt", "ends in .json")),
        ("evaluate small.parquet --reference small.network.tsv -o no/s.json", ("no/s.json: the folder no does",)),
    ],
)
@pytest.mark.usefixtures("here")
def test_an_output_that_cannot_be_is_refused(line: str, words: tuple[str, ...]):
    refused_without_a_trace(line, *words)


@pytest.mark.parametrize(
    ("line", "make", "words"),
    [
        ("model.hidden=0.5", None, ("runs/small: --resume", "model.hidden: 0.8 before, 0.5 now", "name=")),
        ("store=other.zarr", another_store, ("runs/small: ", "other.zarr is not the store", "--overwrite")),
        (
            "store=panel.zarr",
            store_of_another_panel,
            ("runs/small", "another gene panel", "has 12 genes, the store 3", "'gene04', 'gene05'", "train anew"),
        ),
    ],
    ids=["settings", "store", "panel"],
)
@pytest.mark.usefixtures("here")
def test_a_run_is_resumed_only_as_it_was(line: str, make: Callable[[], None] | None, words: tuple[str, ...]):
    if make:
        make()
    refused_without_a_trace(f"train small.yaml --resume {line}", *words)


@pytest.mark.usefixtures("here")
def test_a_seed_that_is_none_is_refused():
    before = snapshot(Path())
    said = grndist(f"{EVALUATE} -o new.json --seed -1")
    assert (said.status, said.out) == (2, "")
    assert "seed" in said.err
    assert snapshot(Path()) == before


SHOWN_IN_A_PROCESS = {"nan in a sparse h5ad", "key without its section", "no gene in common"}


@pytest.mark.parametrize("mistake", [one for one in CASES if one.what in SHOWN_IN_A_PROCESS], ids=lambda one: one.what)
@pytest.mark.usefixtures("here")
def test_the_program_itself_prints_no_traceback(mistake: Case):
    mistake.make()
    before = snapshot(Path())
    line = f"{mistake.line} {OUTPUTS[mistake.line.split()[0]][0]}"
    result = process("-m", "grndist.cli", *line.split())
    refused(Said(result.returncode, result.stdout, result.stderr), *mistake.words)
    assert snapshot(Path()) == before


# --- what is accepted, and said ---

LABELS = [NON_TARGETING] * 20 + ["gene01"] * 10 + ["gene02"] * 10 + ["gene01+gene02"] * 10


def labelled_store(name: str, labels: list[str]) -> str:
    """Ingest the same counts under other labels; returns what was printed."""
    values = np.random.default_rng(0).poisson(2, (len(labels), 12)).astype(np.float32)
    h5ad(f"{name}.h5ad", values, perturbation=labels)
    return done(f"ingest {name}.h5ad {name}.zarr")


def interventional_losses(name: str) -> list[float]:
    done(f"train small.yaml store={name}.zarr name={name} training.genes_per_step=12")
    lines = Path("runs", name, "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["interventional"] for line in lines]


def relabelled(to: str) -> list[str]:
    return [to if label == "gene01+gene02" else label for label in LABELS]


@pytest.mark.usefixtures("here")
def test_a_combined_label_is_reported_and_counts_for_none_of_its_genes():
    printed = labelled_store("combined", LABELS)
    assert "such as CaTran-D; others count none): 1, 10 cells" in printed
    assert "'gene01+gene02' (10 cells)" in printed
    assert "20 control, 20 with one perturbed gene" in printed
    losses = interventional_losses("combined")
    assert len(losses) >= 4
    assert min(losses) > 0
    labelled_store("unknown", relabelled("MYC"))
    assert interventional_losses("unknown") == losses
    for wrong in ("gene01", "gene02", NON_TARGETING):
        labelled_store(wrong, relabelled(wrong))
        assert interventional_losses(wrong) != losses


@pytest.mark.usefixtures("here")
def test_perturbed_genes_outside_the_panel_are_reported_and_used_for_nothing():
    printed = labelled_store("unknown", relabelled("MYC"))
    assert "these cells neither as control nor as perturbation): 1, 10 cells: 'MYC' (10 cells)" in printed
    assert "20 control, 20 with one perturbed gene" in printed
    obs = anndata.read_zarr("unknown.zarr").obs
    assert list(obs.loc[obs["perturbation"] == "MYC", "is_control"].unique()) == [False]
    labelled_store("another", relabelled("STAT1"))
    labelled_store("controls", relabelled(NON_TARGETING))
    losses = interventional_losses("unknown")
    assert interventional_losses("another") == losses
    assert interventional_losses("controls") != losses


@pytest.mark.usefixtures("here")
def test_duplicates_and_self_edges_of_a_reference_are_dropped_with_a_count():
    lines = Path("small.network.tsv").read_text().splitlines(keepends=True)
    Path("messy.tsv").write_text("".join([*lines, *lines[1:4], "gene01\tgene01\t1.0\n", "gene02\tgene02\t-1.0\n"]))
    printed = done("evaluate small.parquet --reference messy.tsv -o messy.json")
    assert "dropped: 2 self-edges, 3 duplicates" in printed
    messy, clean = (json.loads(Path(name).read_text()) for name in ("messy.json", "small.json"))
    assert (messy["dropped_self"], messy["dropped_duplicates"]) == (2, 3)
    assert messy["scores"] == clean["scores"]
    assert messy["reference_edges"] == clean["reference_edges"] == len(lines) - 1


# --- a full disk ---

WIDE = "training.epochs=6 model.embedding=40 training.checkpoint_every=4"  # weights beyond 20 kB
LONG = "training.epochs=50 training.checkpoint_every=1000"

# the largest file that may be written, the command line, and the path and remedy that the message must name
FULL_DISK = [
    (4000, "simulate new.h5ad --seed 1", ("new.h5ad: ", "free some space")),
    (4000, "simulate small.h5ad --seed 1 --overwrite", ("small.h5ad: ", "free some space")),
    (6000, "ingest larger.h5ad new.zarr", ("new.zarr: could not be written", "free some space")),
    (6000, "ingest larger.h5ad large.zarr --overwrite", ("large.zarr: could not be written", "free some space")),
    (500, "infer runs/small --all -o new.tsv", ("new.tsv: could not be written", "free some space")),
    (500, "infer runs/small --all -o new.csv.gz", ("new.csv.gz: could not be written", "free some space")),
    (500, "infer runs/small --all -o new.parquet", ("new.parquet: could not be written", "free some space")),
    (500, "infer runs/small -k 9 -o small.parquet --overwrite", ("small.parquet: could not be written", "free some")),
    (500, f"{EVALUATE} -o new.json", ("new.json: could not be written", "free some space")),
    (500, f"{EVALUATE} --all-pairs -o small.json --overwrite", ("small.json: could not be written", "free some space")),
    (200, f"train small.yaml name=settings {LONG}", ("runs/settings/", "free some space")),
    (3000, f"train small.yaml name=metrics {LONG}", ("runs/metrics/", "free some space", "--resume")),
    (
        20_000,
        f"train small.yaml name=full {WIDE}",
        ("full/checkpoints/step-00000004: could not be written", "--resume"),
    ),
]


def large_sources() -> None:
    """A store, and a source for another one, of whose files only the matrix is beyond 6 kB."""
    done("simulate large.h5ad --cells 600 --genes 30 --regulators 6")
    done("simulate larger.h5ad --cells 800 --genes 30 --regulators 6")
    done("ingest large.h5ad large.zarr")


def tried_on_a_full_disk() -> list[dict]:
    """What every line of FULL_DISK said, or a traceback, and which files it changed; run in a process of its own."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    tried = []
    for largest_file, line, _ in FULL_DISK:
        before = snapshot(Path())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
        try:
            said = grndist(line)
        except (OSError, SafetensorError):
            said = Said(1, "", traceback.format_exc())
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        after = snapshot(Path())
        changed = [name for name in before.keys() | after.keys() if before.get(name, b"-") != after.get(name, b"-")]
        tried.append({"said": vars(said), "changed": sorted(changed)})
    return tried


@pytest.fixture(scope="module")
def full_disk(chain: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict]]:
    """The folder in which FULL_DISK was tried, and what came of every line."""
    folder = tmp_path_factory.mktemp("full") / "here"
    shutil.copytree(chain, folder)
    with contextlib.chdir(folder):
        large_sources()
        code = "import json; from tests.test_bad_input import *; print(json.dumps(tried_on_a_full_disk()))"
        result = process("-c", code)
    assert result.returncode == 0, result.stderr
    lines = [line for _, line, _ in FULL_DISK]
    return folder, dict(zip(lines, json.loads(result.stdout), strict=True))


def full(said: Said, *words: str) -> None:
    refused(said, *words)
    assert "File too large" in said.err or "No space left" in said.err


@pytest.mark.parametrize(("line", "words"), [one[1:] for one in FULL_DISK], ids=[one[1] for one in FULL_DISK])
def test_a_full_disk_leaves_what_was_there(full_disk: tuple[Path, dict], line: str, words: tuple[str, ...]):
    tried = full_disk[1][line]
    full(Said(**tried["said"]), *words)
    assert not [name for name in tried["changed"] if ".tmp-" in name or "/step-" in name]
    new_run = ("runs/settings", "runs/metrics", "runs/full") if line.startswith("train") else ()
    new_run += (".new.zarr.ingest", ".large.zarr.ingest")  # finished pieces of an ingest stay: it can go on
    assert [name for name in tried["changed"] if not name.startswith(new_run)] == []


def test_what_does_not_fit_in_mid_ingest_is_the_matrix(full_disk: tuple[Path, dict]):
    store = full_disk[0] / "large.zarr"
    large = {file.relative_to(store).as_posix() for file in store.rglob("*") if file.is_file() and too_large(file)}
    assert large == {"X/data/c/0", "X/indices/c/0"}


def too_large(file: Path) -> bool:
    return file.stat().st_size > 6000


def test_a_run_goes_on_when_the_disk_has_space_again(full_disk: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(full_disk[0])
    done(f"train small.yaml name=full {WIDE} --resume")
    done(f"train small.yaml name=whole {WIDE}")
    assert weights("runs/full") == weights("runs/whole")


def weights(run: str) -> bytes:
    return (checkpoints(run)[-1] / "weights.safetensors").read_bytes()


def checkpoints(run: str) -> list[Path]:
    return sorted(Path(run, "checkpoints").iterdir())


@pytest.fixture
def small_disk(here: Path) -> Iterator[Callable[[int], None]]:
    """`disk` is a file system of its own; call the fixture to give it another size, in kB."""
    Path("disk").mkdir()

    def mount(options: str, *arguments: str) -> bool:
        command = ["mount", "-o", options, *arguments, str(here / "disk")]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if not shutil.which("mount") or not mount("size=8192k", "-t", "tmpfs", "tmpfs"):
        pytest.skip("mounting a small tmpfs takes the rights of root")

    def resize(kilobytes: int) -> None:
        assert mount(f"remount,size={kilobytes}k")

    yield resize
    subprocess.run(["umount", "-l", str(here / "disk")], check=True)


def used_kilobytes() -> int:
    disk = os.statvfs("disk")
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize // 1024


def test_ingest_on_a_disk_that_runs_full(here: Path, small_disk: Callable[[int], None]):
    large_sources()
    done("ingest large.h5ad disk/large.zarr")
    small_disk(used_kilobytes() + 100)
    before = snapshot(here)
    said = grndist("ingest larger.h5ad disk/large.zarr --overwrite")
    full(said, "disk/large.zarr: could not be written", "No space left", "free some space")
    full(grndist("ingest larger.h5ad disk/new.zarr"), "disk/new.zarr: could not be written")
    after = {name: content for name, content in snapshot(here).items() if ".zarr.ingest" not in name}
    assert after == before
    small_disk(8192)
    done("ingest larger.h5ad disk/new.zarr")  # goes on
    shutil.rmtree("disk/new.zarr")
    done("ingest larger.h5ad disk/large.zarr --overwrite")
    assert anndata.read_zarr("disk/large.zarr").shape == (800, 30)
    assert [path.name for path in Path("disk").iterdir()] == ["large.zarr"]


@pytest.mark.usefixtures("here")
def test_training_on_a_disk_that_runs_full(small_disk: Callable[[int], None]):
    line = f"train small.yaml {WIDE} training.checkpoint_every=1"
    done(f"{line} name=whole")
    last = checkpoints("runs/whole")[-1]
    kilobytes = sum(file.stat().st_size for file in last.iterdir()) // 1024
    small_disk(int(2.7 * kilobytes) + 40)  # two checkpoints fit, a third does not
    said = grndist(f"{line} name=full runs=disk")
    full(said, "disk/full/checkpoints/step-00000003: could not be written", "free some space and --resume")
    assert [path.name for path in checkpoints("disk/full")] == ["step-00000001", "step-00000002"]
    small_disk(8192)
    done(f"{line} name=full runs=disk --resume")
    assert [path.name for path in checkpoints("disk/full")] == [path.name for path in checkpoints("runs/whole")]
    assert weights("disk/full") == weights("runs/whole")
