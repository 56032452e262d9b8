"""The dashboards are what their tables say, and such as Grafana takes."""

import json

import pytest

from tests.docs.dashboards import DASHBOARDS, FOLDER, WIDTH_MAX, files

WANTED = {"uid", "title", "description", "schemaVersion", "templating", "panels", "time", "refresh"}
PANEL = {"id", "type", "title", "description", "datasource", "gridPos", "fieldConfig", "targets"}
UNITS = {"short", "s", "bytes", "percentunit", "reqps", "watt", "celsius"}


def test_they_are_current():
    assert {path: path.read_text() for path in sorted(FOLDER.glob("*"))} == files(), "run `make docs`"
    assert {dashboard.name for dashboard in DASHBOARDS} == {"operator", "seller", "buyer"}


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_each_has_what_grafana_needs(path):
    made = json.loads(path.read_text())
    assert made.keys() >= WANTED
    names = {variable["name"] for variable in made["templating"]["list"]}
    taken: set[tuple[int, int]] = set()
    for panel in made["panels"]:
        assert panel.keys() == PANEL
        assert panel["type"] in {"timeseries", "stat"}
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["targets"]
        text = json.dumps(panel)
        used = {name for name in ("datasource", "host") if f"${name}" in text or f"${{{name}}}" in text}
        assert used <= names
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= WIDTH_MAX
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])
