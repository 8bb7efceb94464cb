"""docs/type-matrix.md: which types came back exactly, and as what DuckDB reads them."""

HEAD = """\
# Every type, exact

Each type below was archived with the values of [the corpus](../tests/e2e/type_corpus.py): extremes, NaN, infinities, NULL;
alone, as a domain, in a composite, in arrays of one to six dimensions with lower bounds of their own, in arrays of such
composites. A tick means that every value was identical afterwards, in its text and in its binary form, under session
settings chosen to disturb it.

* *archive*: exported, and read back with `verify => 'deep'`
* *query*: through the foreign table
* *reattach*: loaded again from the files
* *DuckDB*: every value, read natively as the type shown, or, where that cannot hold it, as PostgreSQL's text in the
  sidecar column `<column>__pg`

`make type-matrix` archives it all again and writes this file; it fails if one value of one type is not exact.

| type | values | archive | query | reattach | DuckDB | DuckDB's type |
| --- | --- | --- | --- | --- | --- | --- |
"""


class TypeMatrix:
    def __init__(self):
        self._tried, self._rows = [], {}

    def trying(self, type_):
        self._tried.append(type_)

    def exact(self, type_, values, seen_as):
        """All four ways."""
        self._rows[type_] = f"| `{type_}` | {values} | ✓ | ✓ | ✓ | ✓ | `{seen_as}` |\n"

    def write(self, path):
        missing = [t for t in self._tried if t not in self._rows]
        assert not missing, f"not exact, so {path} was not written: {missing}"
        path.write_text(HEAD + "".join(self._rows.values()) + f"\n{len(self._rows)} types.\n")
