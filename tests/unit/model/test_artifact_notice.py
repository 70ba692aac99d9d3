"""Terms of use travel with an exported model only where its maker gave some."""

from __future__ import annotations

import json
from pathlib import Path

from model.artifact import DESCRIPTION
from model.export import export


def test_a_notice_is_the_maker_s_own(trained: Path, artifact: Path, tmp_path: Path) -> None:
    notice = tmp_path / "terms.txt"
    notice.write_text("Only on Sundays.")
    with_notice = export(trained / "checkpoint", tmp_path / "a", notice=notice)
    assert (with_notice / "NOTICE").read_text() == "Only on Sundays."
    assert not (artifact / "NOTICE").exists()
    licences = [
        json.loads((folder / DESCRIPTION).read_text())["licences"] for folder in (with_notice, artifact)
    ]
    assert "weights" in licences[0]
    assert "weights" not in licences[1]
    assert all("Flickr8k" not in json.dumps(found) for found in licences)
