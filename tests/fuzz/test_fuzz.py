"""A few damaged files with every run of the tests; a thousand with ``make soak``."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import ENVIRONMENT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it forks, and reads /proc")


def fuzz(*arguments: str, seconds: float) -> str:
    result = subprocess.run([sys.executable, "-m", "fuzz", *arguments], capture_output=True, text=True, timeout=seconds,
                            cwd=Path(__file__).parents[1], env=ENVIRONMENT)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_no_mutant_of_a_few_does_harm() -> None:
    """The whole files are taken, else mutants would be refused for another reason than their damage."""
    fuzz("--mutants", "10", "--seed", "22", "--one-door", "--whole", seconds=300)


@pytest.mark.soak
@pytest.mark.alone
def test_no_mutant_of_a_thousand_does_harm() -> None:
    print(fuzz("--mutants", "1000", "--seed", "0", "--whole", seconds=3000))
