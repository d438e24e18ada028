"""`make audit`: known holes in the packages that are installed here.

    python tests/audit.py             asks the advisory service, by pip-audit
    python tests/audit.py all.zip     reads advisories in OSV's format, a zip or a folder of JSON

Exit status 1 where something is found.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import Version

__all__ = ["affects", "found_in", "installed"]

ECOSYSTEM = "PyPI"


def installed() -> dict[str, str]:
    """Canonical name -> version of every package of this environment."""
    return {canonicalize_name(one.metadata["Name"]): one.version for one in distributions()}


def advisories(source: Path) -> Iterator[Mapping[str, Any]]:
    if source.is_dir():
        for file in sorted(source.glob("*.json")):
            yield json.loads(file.read_text(encoding="utf-8"))
    else:
        with zipfile.ZipFile(source) as archive:
            for name in archive.namelist():
                yield json.loads(archive.read(name))


def affects(advisory: Mapping[str, Any], packages: Mapping[str, str]) -> Iterator[str]:
    """The packages, as `name version`, that an advisory is about."""
    if "withdrawn" in advisory:
        return
    for of in advisory.get("affected", ()):
        package = of.get("package", {})
        name = canonicalize_name(package.get("name", ""))
        if package.get("ecosystem") != ECOSYSTEM or name not in packages:
            continue
        version = packages[name]
        ranges = (r["events"] for r in of.get("ranges", ()) if r.get("type") == "ECOSYSTEM")
        if version in of.get("versions", ()) or any(_within(version, e) for e in ranges):
            yield f"{name} {version}"


def _within(version: str, events: list[Mapping[str, str]]) -> bool:
    """Is the version between an `introduced` and the `fixed` or `last_affected` after it?"""
    own, inside = Version(version), False
    for event in events:
        (kind, bound), *_ = event.items()
        at = Version(bound)
        if kind == "introduced":
            inside = inside or own >= at
        elif (kind == "fixed" and own >= at) or (kind == "last_affected" and own > at):
            inside = False
    return inside


def found_in(source: Path) -> list[str]:
    """A line for each advisory that is about an installed package."""
    packages = installed()
    return [
        f"{name}: {advisory['id']} {advisory.get('summary', '')}".strip()
        for advisory in advisories(source)
        for name in affects(advisory, packages)
    ]


def main() -> int:
    if len(sys.argv) < 2:
        return subprocess.run([sys.executable, "-m", "pip_audit", "--strict"]).returncode
    lines = found_in(Path(sys.argv[1]))
    print("\n".join(lines) or f"{len(installed())} packages, no known holes")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
