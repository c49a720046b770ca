"""Write the benchmarks' tables into README.md: ``python -m streamdream_bench.readme``.

Each runs as the command a reader would type, in a process of its own, and replaces what stands between the two markers.
"""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
COMMANDS = (
    ("step",),
    ("step", "--model", "bvlc_googlenet", "--layers", "inception_4d/3x3_reduce", "--width", "512", "--height", "384",
     "--octaves", "2"),
    ("render",),
    ("quality",),
    ("web",),
)


def main(readme: Path) -> None:
    blocks = []
    for command in COMMANDS:
        result = subprocess.run([sys.executable, "-m", "streamdream", "bench", *command], stdout=subprocess.PIPE,
                                text=True, check=True)
        blocks.append(f"`streamdream bench {' '.join(command)}`\n\n```\n{result.stdout.rstrip()}\n```\n")
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n" + "\n".join(blocks) + f"{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "README.md"))
