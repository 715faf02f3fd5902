#!/bin/sh
# Builds the wheel, installs it into a new environment outside of the checkout, and runs both programs.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkdir "$place/source"  # a copy: what an earlier build left in build/ must not get into this one
cp -R setup.cfg pyproject.toml README.md LICENSE ploinky twisted agentcore web "$place/source"
"$PYTHON" -m build --wheel --outdir "$place" "$place/source" >/dev/null
"$PYTHON" -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check "$place"/*.whl
cd "$place"
venv/bin/twistd ploinky --help >/dev/null
venv/bin/p-cli --help >/dev/null
venv/bin/python - <<'PY'
from pathlib import Path
import ploinky
engine = Path(ploinky.__file__).parents[1] / "agentcore"
missing = [name for name in ("run.sh", "node", "python", "sh") if not (engine / name).exists()]
assert not missing, f"the wheel lacks agentcore/{missing}"
from ploinky.api.page import Files, web_directory
served = Files.of(web_directory()).others
source = Path("source/web")
lacking = {p.relative_to(source).as_posix() for p in source.rglob("*.*") if p.suffix not in (".html", ".json")} - set(served)
assert served and not lacking, f"the wheel lacks web/{lacking}"
PY
echo "The wheel works outside of the checkout."
