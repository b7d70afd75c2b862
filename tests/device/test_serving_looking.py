"""The page's own routes: what they say is what the pipeline selects, whoever asks for what, and however often."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hired_runtime
from demo.scenes.compose import compose
from demo.scenes.draw import encode
from hired_edge.policies import POLICIES
from hired_edge.selection import Selection
from hired_runtime.model import Model
from hired_runtime.panels import panels
from hired_runtime.pictures import read_picture
from hired_runtime.pipeline import Request
from hired_runtime.serving.looked_pictures import LookedPictures, look
from hired_runtime.serving.media import MediaLimits
from hired_runtime.serving.page_files import PAGE, SAMPLES, read_files
from hired_runtime.serving.policy_words import summary
from tests.tiny.served import BUNDLE, NAME, PICTURE, Reply, Served, encoded, served

GOLDEN = Path(__file__).parents[1] / "golden/bundle"
WIDE = encode(compose(2024, 10))  # 448 x 224 px
FILES = read_files()


@pytest.fixture(scope="module", params=[BUNDLE, GOLDEN], ids=["demo", "golden"])
def bundle(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Served]:
    with served(bundle) as each:
        yield each


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    """The same bundle, asked directly."""
    return hired_runtime.open(bundle, threads=1)


@pytest.fixture(scope="module")
def page() -> Iterator[Served]:
    """Behind a key, which the page's own files do not need."""
    with served(api_key="secret") as each:
        yield each


def send(server: Served, picture: bytes = PICTURE) -> Reply:
    return server.post(picture, {"Content-Type": "image/jpeg"}, "/api/pictures")


def choose(server: Served, **fields: Any) -> Reply:
    return server.post(fields, path="/api/selections")


def expected(model: Model, picture: bytes, **how: Any) -> Selection:
    (selection,) = model.pipeline.look(Request((), [picture], **how))
    return selection


@pytest.mark.parametrize("picture", [PICTURE, WIDE], ids=["2x2", "1x2"])
@pytest.mark.parametrize("policy", [name for name, each in POLICIES.items() if "keys" not in each.needs])
@pytest.mark.parametrize("budget", ["5%", "20%", "66%", 40])
def test_a_selection_is_the_pipelines(
    server: Served, model: Model, picture: bytes, policy: str, budget: str | int
) -> None:
    name = send(server, picture).json["picture"]
    asked = {"policy": policy} if POLICIES[policy].stock else {"policy": policy, "visual_tokens": budget}
    reply = choose(server, picture=name, **asked)
    assert reply.status == 200, reply.body
    told, right = reply.json, expected(model, picture, **asked)
    assert told["indices"] == [indices.tolist() for indices in right.indices]
    assert told["counts"] == right.counts
    assert (told["newlines"], told["budget"]) == (right.newlines, right.budget)
    assert told["visual_tokens"] == right.visual_tokens <= right.budget
    assert told["milliseconds"] > 0


@pytest.mark.parametrize(("alpha", "newlines"), [(0.1, "none"), (0.9, "all-rows"), (0, "kept-rows"), (1, None)])
def test_alpha_and_newlines_are_the_requests_own(
    server: Served, model: Model, alpha: float, newlines: str | None
) -> None:
    how = {"visual_tokens": "30%", "alpha": alpha, "newlines": newlines}
    told, right = choose(server, picture=send(server).json["picture"], **how).json, expected(model, PICTURE, **how)
    assert told["indices"] == [indices.tolist() for indices in right.indices]
    assert told["newlines"] == right.newlines


def test_a_picture_says_where_its_patches_lie(server: Served, model: Model) -> None:
    told, tiling = send(server).json, expected(model, PICTURE, visual_tokens="20%").tiling
    plan = panels(tiling, model.pipeline.manifest.vision.preprocess)
    assert told["size"] == [plan.width, plan.height]
    assert told["frame"] == list(plan.frame)
    assert told["pixels"] == [tiling.width, tiling.height]
    for panel, layout in zip(told["panels"], plan.layouts, strict=True):
        assert panel["name"] == layout.name
        assert panel["index"] == layout.index.tolist()
        assert panel["rows"] == layout.rows.edges().tolist()
        assert panel["columns"] == layout.columns.edges().tolist()
    assert sum(told["eligible"]) == tiling.eligible_tokens


def test_a_picture_has_the_maps_of_the_tower(server: Served, model: Model) -> None:
    told = send(server).json["maps"]
    seen = look(model.pipeline, read_picture(PICTURE))
    for name in ("allocation", "selection"):
        for row, right in zip(told[name], getattr(seen, name), strict=True):
            assert row == pytest.approx(right.tolist(), rel=1e-3)


def test_budgets_are_offered_as_far_as_the_server_was_opened(server: Served, model: Model) -> None:
    told = send(server).json
    tiling = expected(model, PICTURE, visual_tokens="20%").tiling
    assert told["percents"][0] == [1, round(0.01 * tiling.patches)]
    assert told["percents"][-1] == [100, tiling.stock_tokens]
    assert [percent for percent, _ in told["percents"]] == list(range(1, 101))
    for percent, tokens in told["percents"][::20]:
        assert choose(server, picture=told["picture"], visual_tokens=f"{percent}%").json["budget"] == tokens


def test_a_smaller_opening_offers_less() -> None:
    with served(visual_tokens="20%") as server:
        told = send(server, WIDE).json  # 192 patches, of which 64 are 33 %
        assert told["percents"][-1][0] == 33
        assert choose(server, picture=told["picture"], visual_tokens="33%").status == 200
        reply = choose(server, picture=told["picture"], visual_tokens="34%")
        assert reply.status == 400
        assert "at most 64" in reply.error["message"]
        assert choose(server, picture=told["picture"], policy="full").status == 400


def test_settings_name_what_the_page_may_offer(server: Served, model: Model) -> None:
    told = server.get("/api/settings").json
    assert told["model"] == NAME
    assert told["cache_bytes"] == 2 * model.cache_bytes  # two rows
    assert told["limits"]["visual_tokens"] == model.limits.visual_tokens
    assert told["policy"] == "hired"
    names = [each["name"] for each in told["policies"]]
    assert names == [name for name, each in POLICIES.items() if "keys" not in each.needs]  # the bundle has no keys
    assert all(each["summary"] for each in told["policies"])
    for sample in told["samples"]:
        assert server.get(f"/{sample['file']}").headers["content-type"] == "image/jpeg"


def test_every_policy_has_words() -> None:
    words = [summary(name) for name in POLICIES]
    assert all(words)
    assert len(set(words)) == len(words)


def test_the_model_answers_the_samples_questions() -> None:
    model = hired_runtime.open(BUNDLE, threads=1)
    for sample in json.loads((PAGE / SAMPLES).read_text()):
        picture = (PAGE / "samples" / sample["file"]).read_bytes()
        for each in sample["questions"]:
            assert model.ask(each["prompt"], [picture], visual_tokens="20%").text.strip() == each["answer"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "picture"),
        ({"picture": "nobody's", "visual_tokens": "20%"}, "picture"),
        ({"visual_tokens": "120%"}, "visual_tokens"),
        ({"visual_tokens": 2.5}, "visual_tokens"),
        ({"visual_tokens": "20%", "policy": "best"}, "policy"),
        ({"visual_tokens": "20%", "alpha": 2}, "alpha"),
        ({"visual_tokens": "20%", "newlines": "some"}, "newlines"),
        ({"visual_tokens": "20%", "policy": "prumerge"}, None),
        ({"visual_tokens": "20%", "policy": "full"}, None),
        ({"visual_tokens": 100_000}, "visual_tokens"),
        ({"visual_tokens": "20%", "budget": 3}, "budget"),
        ({}, None),
    ],
    ids=str,
)
def test_what_cannot_be_selected_is_refused_in_words(server: Served, body: dict[str, Any], param: str | None) -> None:
    known = send(server).json["picture"]
    reply = server.post(body if param == "picture" else {"picture": known, **body}, path="/api/selections")
    assert reply.status == (404 if param == "picture" else 400)
    if param is not None:
        assert reply.error["param"] == param
    assert choose(server, picture=known, visual_tokens="20%").status == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"picture": "\\ud800"}', b"\xff"], ids=repr)
def test_a_body_that_is_no_object_is_refused(server: Served, body: bytes) -> None:
    reply = server.post(body, path="/api/selections")
    assert reply.status == 400
    assert reply.error["code"] == "invalid_json"


@pytest.mark.parametrize(
    "picture",
    [b"", b"no picture", PICTURE[:1000], encoded("GIF", size=(1, 1))[:20], encoded("TIFF")],
    ids=["empty", "text", "cut off", "cut header", "another format"],
)
def test_what_is_no_picture_is_refused_in_words(server: Served, picture: bytes) -> None:
    reply = send(server, picture)
    assert reply.status == 400
    assert reply.error["message"]
    assert send(server).status == 200


def test_a_picture_over_a_limit_is_refused() -> None:
    with served(media=MediaLimits(max_picture_bytes=5000, max_pixels=2000)) as server:
        assert "at most 5000" in send(server).error["message"]
        assert send(server, encoded("PNG", size=(50, 50))).status == 400
        assert send(server, encoded("PNG", size=(40, 50))).status == 200


def test_a_picture_is_known_by_its_contents(server: Served) -> None:
    first, other, again = send(server), send(server, WIDE), send(server)
    assert first.json == again.json
    assert first.json["picture"] != other.json["picture"]


def test_the_latest_pictures_are_kept_and_no_more(server: Served) -> None:
    names = [send(server, encoded("PNG", size=(30 + n, 40))).json["picture"] for n in range(10)]
    replies = [choose(server, picture=name, visual_tokens="20%") for name in names]
    assert [reply.status for reply in replies] == [404] * 2 + [200] * 8
    assert replies[0].error["code"] == "no_picture"


def test_memory_for_pictures_is_bounded_in_bytes() -> None:
    pipeline = hired_runtime.open(BUNDLE, threads=1).pipeline
    seen = [look(pipeline, read_picture(each)) for each in (PICTURE, WIDE, encoded("PNG"))]
    most = seen[1].bytes + seen[2].bytes
    kept = LookedPictures(most=3, most_bytes=most)
    for each in seen:
        kept.add(each)
    assert [kept.get(each.name) is not None for each in seen] == [False, True, True]
    assert kept.bytes == most < seen[0].bytes
    kept.add(seen[0])  # larger than all together may be: it alone
    assert [kept.get(each.name) is not None for each in seen] == [True, False, False]


def test_the_engine_forgets_a_picture_and_features_are_there_all_the_same(server: Served, model: Model) -> None:
    """More pictures are looked at than the engine has slots for: the tower runs again."""
    name = send(server).json["picture"]
    for size in ((64, 64), (70, 50), (50, 70), (90, 40)):
        send(server, encoded("PNG", size=size))
    told = choose(server, picture=name, visual_tokens="20%", policy="divprune").json
    right = expected(model, PICTURE, visual_tokens="20%", policy="divprune")
    assert told["indices"] == [indices.tolist() for indices in right.indices]


def test_looking_leaves_answers_alone(server: Served) -> None:
    before = server.chat(prompt="How many cards are there?", visual_tokens="20%").json
    name = send(server, WIDE).json["picture"]
    choose(server, picture=name, visual_tokens="20%", policy="scope")
    after = server.chat(prompt="How many cards are there?", visual_tokens="20%").json
    assert before["choices"] == after["choices"]


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in FILES)])
def test_the_pages_files_are_served_with_a_tag(page: Served, path: str) -> None:
    reply = page.get(path)
    content = FILES[path.removeprefix("/page/") if path != "/" else "index.html"].content
    assert (reply.status, reply.body) == (200, content)
    assert reply.headers["cache-control"] == "no-cache"
    again = page.get(path, {"If-None-Match": f'"other", W/{reply.headers["etag"]}'})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", reply.headers["etag"])
    assert page.get(path, method="HEAD").headers["content-length"] == str(len(content))


@pytest.mark.parametrize("path", ["/page/", "/page/nothing.js", "/page/../looking.py", "/page/%2e%2e/looking.py", "/a"])
def test_no_other_file_is(page: Served, path: str) -> None:
    reply = page.get(path, {"Authorization": "Bearer secret"})
    assert reply.status == 404
    assert reply.error["code"] == "not_found"


@pytest.mark.parametrize("path", ["/api/settings", "/api/pictures", "/api/selections"])
def test_what_the_page_asks_for_needs_the_key(page: Served, path: str) -> None:
    assert page.exchange("GET" if path.endswith("settings") else "POST", path, None, {}).status == 401


def test_the_page_names_no_other_host() -> None:
    for name, file in FILES.items():
        if not name.endswith((".jpg", ".svg")):
            assert b"//" not in file.content.replace(b"\n//", b"").replace(b" // ", b""), name


def test_the_page_needs_nothing_inline() -> None:
    """The server's Content-Security-Policy refuses it."""
    page = FILES["index.html"].content.decode()
    assert page.count("<script") == 1
    assert ' src="page/main.js"' in page
    assert not any(word in page for word in ("style=", "<style", "onclick", "onload"))
