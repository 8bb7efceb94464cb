"""Runs the documentation: its SQL gives the output it shows, and its relative links lead somewhere.

In README.md and docs/*.md each ```sql block is executed, all blocks of a file in one psql session on a database of its
own. An ```output block after it is what it must print. A block fenced as ```sql skip is only shown. The directory that
the documents call /var/lib/postgresql/archive is the cluster's own. Run through `make test-docs`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SHOWN_STORAGE = "/var/lib/postgresql/archive"
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#[^)]*)?\)")
MARK = "-- end of block"


class Block(NamedTuple):
    line: int
    sql: str
    output: str | None


def blocks(text):
    fences = [(m[1].strip(), m[2], text.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(text)]
    for (kind, body, line), following in zip(fences, [*fences[1:], ("", "", 0)], strict=False):
        if kind == "sql":
            yield Block(line, body, following[1] if following[0] == "output" else None)


def run(path, storage):
    """Executes one document's blocks; yields what is wrong."""
    found = list(blocks(path.read_text()))
    if not found:
        return
    database = "docs_" + path.stem.lower().replace("-", "_")
    subprocess.run(["createdb", database], check=True)
    script = "".join(f"{b.sql}\\echo {MARK}\n" for b in found).replace(SHOWN_STORAGE, storage)
    psql = subprocess.run(
        ["psql", "-X", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={database}"],
        input=script, text=True, capture_output=True, timeout=300,
    )
    printed = psql.stdout.split(MARK + "\n")
    for block, actual in zip(found, printed, strict=False):
        if block.output is not None and tidy(block.output) != tidy(actual):
            yield f"{path.name}:{block.line}: the output is\n{actual}"
    if psql.returncode != 0:
        failed = found[min(len(printed), len(found)) - 1]
        yield f"{path.name}:{failed.line}: {psql.stderr}"
    print(f"{path.name}: {len(found)} SQL blocks run")


def tidy(output):
    return [line.rstrip() for line in output.strip().splitlines()]


def dead_links(path):
    for target in LINK.findall(FENCE.sub("", path.read_text())):
        if target and not (path.parent / target).exists():
            yield f"{path.name}: {target} does not exist"


def main():
    storage = os.environ["ARCHIVE_EXT_STORAGE"]
    documents = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
    executed = [d for d in documents if d.name == "README.md" or d.parent != ROOT]
    wrong = [w for d in documents for w in dead_links(d)]
    wrong += [w for d in executed for w in run(d, f"{storage}/{d.stem.lower()}")]
    print(*wrong, sep="\n", file=sys.stderr)
    print(f"{len(documents)} documents, {len(wrong)} problems")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
