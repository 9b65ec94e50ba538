"""`make check` notices stale stubs and a broken contract, and lets additions pass."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import check_protos, protos

Edit = Callable[[str, str], None]


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Edit:
    """Changes the events of billing in a copy of the project, with stubs made anew."""
    copy = tmp_path / "protos"
    shutil.copytree(protos.PROTOS, copy)
    monkeypatch.setattr(protos, "PROTOS", copy)
    for name, value in (("ROOT", tmp_path), ("PROTOS", copy), ("BASELINE", copy / "baseline.binpb")):
        monkeypatch.setattr(check_protos, name, value)
    protos.generate(tmp_path)

    def change(before: str, after: str) -> None:
        events = copy / "tollway/billing/v1/events.proto"
        text = events.read_text()
        assert before in text
        events.write_text(text.replace(before, after))

    return change


FIELD = "  string previous_tier = 3;"


def test_the_project_as_it_is_passes(edit: Edit) -> None:
    assert check_protos.main(["--accept"]) == 0
    assert check_protos.main([]) == 0


def test_stubs_that_lag_behind_are_named(edit: Edit, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    edit(FIELD, FIELD + "\n  string note = 90;")
    (tmp_path / "tollway/quota/v1/left_over_pb2.py").touch()
    assert check_protos.main([]) == 1
    said = capfd.readouterr().err
    assert "tollway/billing/v1/events_pb2.py\n" in said
    assert "tollway/quota/v1/left_over_pb2.py" in said
    assert "tollway/notify" not in said


def test_an_addition_passes_and_a_removal_does_not(
    edit: Edit, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert check_protos.main(["--accept"]) == 0
    edit(FIELD, FIELD + "\n  string note = 90;")
    protos.generate(tmp_path)
    assert check_protos.main([]) == 0
    edit(FIELD, "")
    protos.generate(tmp_path)
    assert check_protos.main([]) == 1
    assert "previous_tier" in "".join(capfd.readouterr())
    assert check_protos.main(["--accept"]) == 0
    assert check_protos.main([]) == 0


def test_a_name_against_the_style_is_refused(edit: Edit, tmp_path: Path) -> None:
    edit(FIELD, FIELD + "\n  string badName = 90;")
    protos.generate(tmp_path)
    assert check_protos.main([]) == 1
