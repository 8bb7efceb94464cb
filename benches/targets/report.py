"""The table of targets: ours, the reference, their ratio, and whether it is what was aimed at."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Line:
    what: str
    unit: str
    ours: float | None
    reference: float | None
    against: str
    target: str
    ratio: float | None
    met: bool | None
    note: str = ""


class Report:
    """Lines in the order in which they come; each is shown at once, as a run takes minutes."""

    def __init__(self, quick):
        self.quick, self.lines = quick, []
        print(f"{'what':44} {'ours':>10} {'reference':>10} {'':8} {'ratio':>7}  {'target':10} met", flush=True)

    def ratio(self, what, unit, ours, reference, against, limit, *, at_least=False, note=""):
        """Ours must be at most `limit` times the reference, or at least."""
        ratio = ours / reference if reference else float("inf")
        met = ratio >= limit if at_least else ratio <= limit
        self._add(Line(what, unit, ours, reference, against, f"{'≥' if at_least else '≤'} {limit:g} ×", ratio, met, note))

    def bound(self, what, unit, ours, limit, note=""):
        """Ours must be at most `limit`."""
        self._add(Line(what, unit, ours, None, "", f"≤ {limit:g} {unit}", None, ours <= limit, note))

    def holds(self, what, met, target, note=""):
        self._add(Line(what, "", None, None, "", target, None, bool(met), note))

    def unmeasured(self, what, target, why):
        self._add(Line(what, "", None, None, "", target, None, None, why))

    def _add(self, line):
        self.lines.append(line)
        number = lambda value: "" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
        met = {True: "yes", False: "NO", None: "–"}[line.met]
        print(f"{line.what:44} {number(line.ours):>10} {number(line.reference):>10} {line.unit:8} {number(line.ratio):>7}  "
              f"{line.target:10} {met}" + (f"   ({line.note})" if line.note else ""), flush=True)

    def write(self, path, postgres):
        facts = {"cores": os.cpu_count(), "machine": platform.machine(), "kernel": platform.release(), "cpu": cpu_model(),
                 "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "postgresql": postgres}
        report = {"quick": self.quick, "machine": facts, "lines": [asdict(line) for line in self.lines]}
        Path(path).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        print(f"\n{facts['cores']} cores, {facts['cpu']}, {facts['memory_bytes'] >> 30} GiB, PostgreSQL {postgres}; as JSON: {path}")
        met = [line.met for line in self.lines]
        print(f"{met.count(True)} met, {met.count(False)} not met, {met.count(None)} not measurable here")


def cpu_model():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
