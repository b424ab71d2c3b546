"""Seeded faults: processes that die, are told to stop or cannot write, at every place of a run.

    python -m tests.faults --faults 1000 --seed 1        # prints a row for each promise
    python -m tests.faults --seed 1 --case NAME          # repeats one of them

Everything runs in forks of one process that has imported the libraries once, so a fault costs a second or two. A run
that met its faults is resumed until it ends and compared, bit for bit, with one that was left alone.
"""
