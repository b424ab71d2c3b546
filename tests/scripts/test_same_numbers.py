"""Laws of the comparison of two commits: equal runs are equal, one changed digit is found, no run is passed over."""

import csv

import pytest

from scripts.same_numbers import SHORT, STAGES, VARIANTS, compare, differences, lines_of
from scripts.smoke import OFFLINE, ROOT


def write(folder, name, table):
    (folder / name).mkdir(parents=True)
    with (folder / name / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


ROWS = [{"step": "1", "train/loss": "2.5", "throughput/images": "9.1"}, {"step": "2", "train/loss": "2.25"}]


def test_equal_runs_are_equal_whatever_their_throughput(tmp_path, capsys):
    write(tmp_path / "a", "run", ROWS)
    write(tmp_path / "b", "run", [{**ROWS[0], "throughput/images": "5"}, ROWS[1]])
    assert compare(tmp_path / "a", tmp_path / "b", ["run"]) == 0
    assert "2 values  identical" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changed",
    [
        [ROWS[0], {**ROWS[1], "train/loss": "2.2500001"}],
        ROWS[:1],
        [{"step": "1", "throughput/images": "9.1"}, {"step": "2"}],
    ],
)
def test_a_changed_digit_row_or_column_is_found(tmp_path, changed):
    write(tmp_path / "a", "run", ROWS)
    write(tmp_path / "b", "run", changed)
    assert compare(tmp_path / "a", tmp_path / "b", ["run"]) == 1


def test_a_run_on_one_side_or_none_at_all_is_no_success(tmp_path):
    write(tmp_path / "a", "run", ROWS)
    assert compare(tmp_path / "a", tmp_path / "b", ["run"]) > 0
    assert compare(tmp_path / "a", tmp_path / "b", []) > 0


def test_metrics_with_a_new_name_are_compared(tmp_path):
    write(tmp_path / "a", "run", [{"val/truth": "0.5"}])
    write(tmp_path / "b", "run", [{"val/fact_f1": "0.5"}])
    assert compare(tmp_path / "a", tmp_path / "b", ["run"]) == 0


def test_a_new_column_is_no_difference():
    assert differences([{"a": "1"}], [{"a": "1", "b": "2"}]) == (1, [])


def test_every_twin_and_variant_trains_briefly(tmp_path):
    lines = lines_of(ROOT, tmp_path, [])
    twins = {path.stem for path in OFFLINE.glob("*.yaml")}
    assert set(lines) == twins | set(VARIANTS)
    for name, line in lines.items():
        if line[0] == "fit":
            assert set(SHORT) <= set(line)
        twin = VARIANTS[name][0] if name in VARIANTS else name
        assert line[line.index("--run_dir") + 1] == str(tmp_path / name)
        assert STAGES.get(twin, ("fit",))[0] == line[0]
