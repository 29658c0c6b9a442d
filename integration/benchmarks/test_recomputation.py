"""The measurement of memory runs, and says what it measured."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "recomputation.py"


def test_each_case_is_a_row_whose_peak_is_no_less_than_what_the_process_had_before() -> None:
    command = [sys.executable, str(SCRIPT), "--backends", "eager", "--lengths", "40", "--every", "8", "--steps", "1"]
    told = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    rows = [line.split() for line in told.splitlines()[1:]]
    assert [row[:3] for row in rows] == [["eager", "40", "8"], ["eager", "40", "none"]]
    assert all(0 < float(before) <= float(peak) for _, _, _, before, peak, _ in rows)
