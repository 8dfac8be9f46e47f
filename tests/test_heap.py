"""Freed memory stays with a process that trains: its next step asks the system for no page again."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastrecipes import load_recipe
from fastrecipes.train.run import run

PAGES = 64 * 2**20 // os.sysconf("SC_PAGE_SIZE")  # of one tensor
PROGRAM = """
import resource
import torch
from fastrecipes.train.heap import heap_words, kept_heap

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.zeros(16 * 2**20).add_(1)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 4

def resident():
    return int(open("/proc/self/statm").read().split()[1])

usual = faults()
with kept_heap():
    for _ in range(4):  # until there is a block that holds a tensor wherever it has to begin
        faults()
    with kept_heap():
        pass
    kept, words, held = faults(), heap_words(), resident()
print(usual, kept, held - resident(), words, sep=";")
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def told(**env: str) -> tuple[list[int], str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | env, text=True, capture_output=True, check=True
    )
    *faults, words = done.stdout.strip().split(";")
    return [int(count) for count in faults], words


@glibc
def test_kept_and_given_back() -> None:
    """Pages of a tensor are new each time, but not while the heap is kept, and at its end they go back."""
    (usual, kept, given_back), words = told()
    assert usual > PAGES / 600  # a system with huge pages makes fewer, larger ones
    assert kept < usual / 20
    assert given_back > 0.9 * PAGES
    assert words == "freed memory is kept"


@glibc
def test_given_back_between_epochs() -> None:
    """What is free goes back, though the heap is kept, but no more often than worth it; outside nothing is done."""
    program = """
import fastrecipes.train.heap as heap

with heap.kept_heap():
    faults()
    held = resident()
    heap.give_back()
    soon = resident()
    heap._given_back -= 31
    heap.give_back()
    late = resident()
print(held - soon, held - late, sep=";")
"""
    begin = PROGRAM.partition("usual = ")[0]
    done = subprocess.run([sys.executable, "-c", begin + program], text=True, capture_output=True, check=True)
    soon, late = map(int, done.stdout.split(";"))
    assert soon < 0.1 * PAGES
    assert late > 0.9 * PAGES


@glibc
@pytest.mark.parametrize(
    "env",
    [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}],
)
def test_the_users_own_choice_stands(env: dict[str, str]) -> None:
    """glibc's variables, with which the pages go back."""
    (_, kept, *_), words = told(**env)
    assert kept > PAGES / 600
    assert words == "as it is"


def test_recorded(recipe_file: Callable[..., Path], tmp_path: Path) -> None:
    """In run.json, whichever it was."""
    done = run(load_recipe(recipe_file()), out=tmp_path)
    told = "freed memory is kept" if platform.libc_ver()[0] == "glibc" else "as it is"
    assert json.loads((done.folder / "run.json").read_text())["heap"] == told
