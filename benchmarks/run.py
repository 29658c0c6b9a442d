"""This project beside its peers on the same work, in one run: a table of ratios, a plot and a JSON document.

    nox -s bench -- [--only a,b] [--quick] [--threads 1,2] [--peers snntorch,sinabs]

docs/benchmarks.md says what each benchmark is and how all are treated alike. Each side is a process in its own
environment; nox makes the peers', or `--python snntorch=PATH` names a Python that has one.
"""

import argparse
import contextlib
import json
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Collection, Dict, List, Mapping, Sequence

import cases
import machine
import plot
import ratios
import table
from coordinator import Side, Worker, first_steps, take_turns
from rich.console import Console

PEERS = ("snntorch", "spikingjelly", "norse", "sinabs")
# what the backend "cpu" asks of glibc for its own process (snn_backend_cpu.memory)
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1)}


def arguments(words: "Sequence[str] | None") -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the project beside its peers; see docs/benchmarks.md.")
    parser.add_argument("--only", default=",".join(cases.CASES), help=f"letters of {', '.join(cases.CASES)}")
    parser.add_argument("--quick", action="store_true", help="sizes that only show that everything works")
    parser.add_argument("--threads", default="1,2", help="numbers of threads; compiled peers, e and f take the largest")
    parser.add_argument("--peers", default=",".join(PEERS), help="libraries to run beside this one; '' for none")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="a Python that has a peer")
    parser.add_argument("--no-compile", action="store_true", help="leave the peers under torch.compile out")
    parser.add_argument("--same-malloc", action="store_true", help="give all sides the cpu backend's malloc settings")
    parser.add_argument("--patience", type=float, default=480, help="seconds after which a side has failed")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of the table, plot and JSON")
    options = parser.parse_args(words)
    options.only = chosen(parser, "--only", options.only, cases.CASES)
    options.peers = chosen(parser, "--peers", options.peers, PEERS)
    options.threads = sorted({int(word) for word in options.threads.split(",")})
    pythons = dict(word.split("=", 1) for word in options.python if "=" in word)
    if len(pythons) != len(options.python):
        parser.error("--python takes PEER=PATH")
    missing = [peer for peer in options.peers if peer not in pythons]
    if missing:
        parser.error(
            f"no Python is named for {', '.join(missing)}: run `nox -s bench`, which makes their environments, or add "
            f"--python {missing[0]}=PATH, or leave peers out with --peers"
        )
    options.python = {**pythons, "ours": sys.executable}
    return options


def chosen(parser: argparse.ArgumentParser, option: str, given: str, allowed: Collection[str]) -> List[str]:
    """The words of a comma-separated option, which must be among those allowed."""
    words = [word for word in given.split(",") if word]
    for word in words:
        if word not in allowed:
            parser.error(f"{option} has {word!r}; it takes {', '.join(allowed)}")
    return words


def sides(options: argparse.Namespace) -> Dict[str, Side]:
    """The sides of this run by label."""
    return {
        label: Side(label, module, mode, options.python[module])
        for label, (module, mode) in cases.LABELS.items()
        if (module == "ours" or module in options.peers) and not (options.no_compile and mode == "compile")
    }


class Run:
    """One comparison: its sides, where its files go, and the rows found so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.sides = sides(options)
        self.out: Path = options.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.environment: Mapping[str, str] = MALLOC if options.same_malloc else {}
        self.rows: List[ratios.Row] = []
        self.about: Dict[str, Any] = {}

    def meet(self) -> None:
        """Ask each side for its versions; its files are then in memory, so that no later start waits for a disk."""
        with contextlib.ExitStack() as stack:
            workers = {
                label: stack.enter_context(Worker(side, self.options.threads[-1], self.out, self.environment))
                for label, side in self.sides.items()
            }
            for worker in workers.values():
                worker.send(do="about")
            self.about = {label: worker.receive(self.options.patience) for label, worker in workers.items()}
        for label, about in self.about.items():
            if "error" in about:
                python = self.sides[label].python
                raise SystemExit(f"{python} cannot run {label}: {about['error']}, in the folder {self.out}")
            if not about["denormals_flushed"]:
                raise SystemExit(f"{label} does not flush denormal numbers, as the others do")

    def measure(self) -> None:
        only, quick, threads = self.options.only, self.options.quick, self.options.threads
        for count in threads:
            self.in_turns([case for case in cases.cases(quick, count == threads[-1]) if case.letter in only], count)
        if "e" in only:
            self.in_turns(cases.steps_and_memory(quick), threads[-1])
        if "f" in only:
            self.from_the_start(threads[-1])

    def in_turns(self, listed: Sequence[cases.Case], threads: int) -> None:
        """Cases one after the other, on the same workers as long as they live."""
        workers: Dict[str, Worker] = {}
        try:
            for case in listed:
                self.case(case, threads, workers)
        finally:
            for worker in workers.values():
                worker.close()

    def case(self, case: cases.Case, threads: int, workers: Dict[str, Worker]) -> None:
        taking = [label for label in case.labels if label in self.sides]
        if not taking:
            return
        for label in taking:
            if label not in workers or not workers[label].alive:
                workers[label] = Worker(self.sides[label], threads, self.out, self.environment)
        start = time.perf_counter()
        some = {label: workers[label] for label in taking}
        found = take_turns(some, case.benchmark, case.settings, case.turns, self.options.patience)
        named = (case.letter, case.title, threads, found)
        if case.letter == "c":
            self.rows += ratios.bandwidth_rows(case.title, threads, case.settings["steps"], found, cases.BASE)
        elif case.letter == "g":
            self.rows.append(ratios.overhead_row(*named))
        else:
            self.rows.append(ratios.row(*named, cases.BASE))
        if case.letter == "e":
            self.rows.append(ratios.memory_row(*named, cases.BASE))
        self.say(f"{case.letter} {case.title}, {threads} threads: {time.perf_counter() - start:.0f} s")

    def from_the_start(self, threads: int) -> None:
        """New processes with empty caches and with filled ones; a compiler is waited for once each way."""
        start = time.perf_counter()
        settings = cases.seed_settings(self.options.quick)
        found: Dict[str, Dict[str, Any]] = {"cold": {}, "warm": {}}
        for compiled in (False, True):
            some = [side for side in self.sides.values() if (side.mode == "compile") == compiled]
            some = [side for side in some if side.label in cases.from_the_start(self.options.quick)]
            count = 1 if compiled or self.options.quick else 2
            repeats, patience = {"cold": count, "warm": count}, self.options.patience
            more = first_steps(some, settings, threads, repeats, self.out, patience, self.environment)
            for kind, outcomes in more.items():
                found[kind].update(outcomes)
        for kind, outcomes in found.items():
            for part, title in (
                ("step", f"first step, {kind} cache"),
                ("network", f"first step, {kind} cache, no imports"),
            ):
                self.rows.append(ratios.row("f", title, threads, outcomes, cases.BASE, unit="s", part=part))
        self.say(f"f: {time.perf_counter() - start:.0f} s")

    def say(self, text: str) -> None:
        """Progress, apart from the result."""
        print(text, file=sys.stderr, flush=True)


def document(run: Run, load_before: Any, started: datetime, seconds: float) -> Dict[str, Any]:
    """All that was found, with what it must be read with."""
    options = {name: str(value) if isinstance(value, Path) else value for name, value in vars(run.options).items()}
    return {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds),
        "commit": machine.commit(),
        "machine": {**machine.facts(), "load_before": load_before, "load_after": machine.load()},
        "options": {**options, "python": sorted(options["python"])},
        "sides": run.about,
        "rows": [row.as_json() for row in run.rows],
    }


def main(words: "Sequence[str] | None" = None) -> None:
    options = arguments(words)
    console = Console(width=None if sys.stdout.isatty() else 190)
    load_before, started, start = machine.load(), datetime.now(timezone.utc), time.perf_counter()
    run = Run(options)
    run.meet()
    run.measure()
    found = document(run, load_before, started, time.perf_counter() - start)
    (run.out / "results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    about = next(iter(run.about.values()))["versions"]
    title = f"torch {about['torch']}, {found['machine']['processor']}, {found['machine']['cores']} cores"
    if options.quick:
        title = f"QUICK: sizes from which nothing can be concluded; {title}"
    with (run.out / "table.txt").open("w", encoding="utf-8") as file:
        for place in (console, Console(file=file, width=190)):
            table.show(place, title, run.rows, list(cases.LABELS))
    plot.save(run.out / "plot.png", title, run.rows, list(cases.LABELS))
    console.print(f"other work on this machine: load {load_before} before the run", highlight=False)
    console.print(f"{run.out}/table.txt, plot.png, results.json; {found['seconds']} s", highlight=False)


if __name__ == "__main__":
    main()
