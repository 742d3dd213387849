"""Alert rules: promtool takes them, each fires when it should, and what to do is written down. Metrics: all that is
measured is documented, and nothing else.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local.errors import MissingProgram
from deploy.local.promtool import ensure_promtool

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "alerts"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ALERTS / "vitrine.yaml").read_text())["groups"]
    for rule in group["rules"]
]


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ensure_promtool(), *words], cwd=ALERTS, capture_output=True, text=True, check=False
    )


# --- The rules -------------------------------------------------------------------------------------------


def test_promtool_takes_every_rule() -> None:
    checked = promtool("check", "rules", "vitrine.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"SUCCESS: {len(RULES)} rules found" in checked.stdout


def test_every_rule_fires_when_it_should_and_not_before() -> None:
    tested = promtool("test", "rules", "vitrine.test.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_rule_that_would_not_fire_is_noticed(tmp_path: Path) -> None:
    """The test above would be worth nothing if promtool took anything."""
    rules = (ALERTS / "vitrine.yaml").read_text()
    (tmp_path / "vitrine.yaml").write_text(
        rules.replace("(privacy_requests_overdue) > 0", "(privacy_requests_overdue) > 9")
    )
    tests = yaml.safe_load((ALERTS / "vitrine.test.yaml").read_text())
    (tmp_path / "vitrine.test.yaml").write_text(yaml.safe_dump(tests | {"tests": tests["tests"][:1]}))
    tested = promtool("test", "rules", str(tmp_path / "vitrine.test.yaml"))
    assert tested.returncode != 0
    assert "VitrineRequestOverdue" in tested.stdout + tested.stderr


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_rule_is_tested_and_says_what_to_do(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    assert f'alertname="{name}"' in (ALERTS / "vitrine.test.yaml").read_text()
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
    [written] = re.findall(rf"^### {name}\n\n(.+)", OPERATIONS, re.MULTILINE)
    assert len(written) > 20


def test_a_promtool_that_cannot_be_installed_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgram, match="apt-get install --yes prometheus"):
        ensure_promtool()


# --- The metrics -----------------------------------------------------------------------------------------


def instruments() -> Iterator[tuple[str, str]]:
    """Name and kind, as the documentation writes it, of every instrument that the code makes."""
    for folder in ("libs", "services"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and (
                        made := re.fullmatch(
                            r"create_(?:observable_)?(counter|gauge|histogram)", node.func.attr
                        )
                    )
                ):
                    units = [word.value for word in node.keywords if word.arg == "unit"]
                    unit = [ast.literal_eval(one) for one in units]
                    yield ast.literal_eval(node.args[0]), ", ".join([made[1], *unit])


DOCUMENTED = re.compile(r"^\| `([a-z_.]+)` \| ((?:gauge|counter|histogram)[^|]*?) \|", re.MULTILINE)


def exported(name: str, kind: str) -> set[str]:
    """The names under which the collector's Prometheus exporter writes it."""
    plain = name.replace(".", "_") + ("_seconds" if kind.endswith(", s") else "")
    if kind.startswith("histogram"):
        return {f"{plain}_{part}" for part in ("bucket", "sum", "count")}
    return {f"{plain}_total" if kind == "counter" else plain}


def test_every_metric_is_documented_and_every_documented_one_is_measured() -> None:
    assert sorted(DOCUMENTED.findall(OPERATIONS)) == sorted(instruments())


def test_alerts_ask_for_metrics_that_there_are() -> None:
    known = {one for name, kind in instruments() for one in exported(name, kind)}
    for rule in RULES:
        asked = set(re.findall(r"\b(?:privacy|keyring|outbox|consumer|events|broker)_[a-z_]+", rule["expr"]))
        assert asked and asked <= known, rule["alert"]
