"""The page about attention, opened in a real browser."""

import re
from dataclasses import replace

import numpy as np
import pytest
from attention_maps import directed, softmax_rows
from browser import Watched, chromium

from slrctl.core.clip import Clip
from slrctl.reports.attention_html import PageRun, write_page
from slrctl.settings import CMCLSettings
from slrctl.studies.attention.measures import MeasuredClip, measure
from slrctl.studies.attention.record import AttentionMap, InspectedClip

# Each opens a page in a browser, which takes two seconds.
pytestmark = pytest.mark.slow

ATTACK = "<script>alert(1)</script>"
T = 9
DIRECTIONS = (
    "left_to_right",
    "left_to_body",
    "right_to_left",
    "right_to_body",
    "body_to_left",
    "body_to_right",
)


def inspected_clip(clip_id, seed=0, num_frames=T, gloss=ATTACK):
    """A clip with peaked random maps; the left hand is missing in its first two frames."""
    generator = np.random.default_rng(seed)
    landmarks = generator.uniform(0.2, 0.8, (num_frames, 54, 2)).astype(np.float32)
    landmarks[:2, 12:33] = np.nan
    there = {
        "left": np.arange(num_frames) >= 2,
        "right": np.ones(num_frames, bool),
        "body": np.ones(num_frames, bool),
    }

    def weights(heads, rows, keys):
        return softmax_rows(3 * generator.normal(size=(heads, rows, num_frames)), keys)

    maps = tuple(
        directed(name, weights(3, num_frames, there[read]), there[reader], there[read])
        for name in DIRECTIONS
        for reader, read in [name.split("_to_")]
    )
    valid = there["body"]
    encoder = tuple(
        AttentionMap(part, part, part, weights(2, num_frames, valid).astype("f4"), valid, valid)
        for part in ("left_hand", "right_hand", "body")
    )
    query = AttentionMap(
        *("class_query", "class_query", "clip"),
        weights(4, 1, valid).astype("f4"),
        np.ones(1, bool),
        valid,
    )
    return InspectedClip(
        clip=Clip(clip_id, gloss, landmarks, signer='"><img src=x onerror=alert(2)>', fps=25.0),
        classes=(ATTACK, "other"),
        logits=np.array([1.0, 0.0], np.float32),
        is_present={
            "left_hand": there["left"],
            "right_hand": there["right"],
            "body": there["body"],
        },
        layers={"fusion": maps, "encoder-1": encoder, "decoder-1": (query,)},
        gates=None,
        norms={
            part: generator.uniform(0.1, 1, (num_frames, 3)).astype(np.float32)
            for part in ("left_hand", "right_hand", "body")
        },
        misplaced=0.0,
    )


def measured(clip_id, seed=0, **changes):
    inspected = inspected_clip(clip_id, seed, **changes)
    return MeasuredClip(inspected, measure(inspected, CMCLSettings()))


CLIPS = [measured("first%SCRIPT%"), measured("second", 1)]


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "attention.html"
    other = [measured(clip.inspected.clip.clip_id, 7 + n) for n, clip in enumerate(CLIPS)]
    write_page(path, [PageRun("cmcl", CMCLSettings(), CLIPS), PageRun("ce", CMCLSettings(), other)])
    return path


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def watched(browser, page_path):
    """The opened page; whatever a test does, nothing may be complained of or asked for."""
    context = browser.new_context(color_scheme="light", viewport={"width": 1400, "height": 1000})
    opened = Watched(context.new_page())
    opened.page.goto(page_path.as_uri())
    opened.page.wait_for_selector("body[data-ready]", timeout=60_000)
    yield opened
    opened.page.wait_for_timeout(50)
    assert opened.complaints == []
    assert opened.requests == [page_path.as_uri()]
    context.close()


@pytest.fixture
def page(watched):
    return watched.page


def frame_number(page):
    return page.locator("#frame-number").text_content()


def chosen(page, name):
    return page.locator(f"#{name} option:checked").text_content()


def hover(page, row, column):
    """Point at a cell of the large map."""
    box = page.locator("#map .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    page.mouse.move(
        box["x"] + box["width"] * (column + 0.5) / T, box["y"] + box["height"] * (row + 0.5) / T
    )


def until(page, condition):
    """Wait for something on the page; Playwright's own way needs an eval that the page forbids."""
    for _ in range(300):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never came true: {condition}")


def found(pattern, text):
    match = re.search(pattern, text)
    assert match is not None
    return match[1]


def drawn(page, chart):
    """The traces that the chart shows now."""
    return page.evaluate(f"document.getElementById('{chart}').data")


def shown_weights(page, head=-1):
    """What the page makes of the map it shows: weights, not relative to anything."""
    return np.array(
        page.evaluate(
            f"(state.head = {head}, Array.from(shownWeights(state.map), (l) => Array.from(l)))"
        )
    )


def test_a_gloss_that_is_a_script_shows_as_text(page, page_path):
    assert ATTACK in page.locator("#prediction").text_content()
    assert page.locator("#prediction script").count() == 0
    assert page.locator("img").count() == 0
    assert page.locator("#facts").text_content().count("<img src=x") == 1
    assert chosen(page, "clip") == f"first%SCRIPT% ({ATTACK})"
    assert ATTACK not in page_path.read_text()


def test_the_policy_runs_no_other_script(page, watched):
    ran = page.evaluate(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        " document.body.append(s); return window.ran === 1; })()"
    )

    assert ran is False
    assert any("Content Security Policy" in text for text in watched.complaints)
    watched.complaints.clear()


def test_weights_on_the_page_are_those_of_the_maps(page):
    fusion = CLIPS[0].inspected.fusion["left_to_right"]
    for head in range(3):
        found = shown_weights(page, head)[fusion.rows_count]
        exact = fusion.weights[head][fusion.rows_count]
        # Half a level at the upper end of the range, where levels are widest.
        assert np.abs(found - exact).max() <= np.ptp(exact) * 1.01 / 255


def test_pointing_at_a_cell_shows_both_frames_and_lines_to_the_other_hand(page):
    hover(page, row=4, column=6)
    until(page, "document.getElementById('readout').textContent.includes('frame 7')")
    page.wait_for_timeout(200)

    weight = CLIPS[0].inspected.fusion["left_to_right"].mean[4, 6]
    text = page.locator("#readout").text_content()
    assert text.startswith("Frame 5 of the left hand gives frame 7 of the right hand ")
    share = float(found(r"([\d.e+-]+) %", text))
    assert share == pytest.approx(100 * weight, abs=0.5)
    assert frame_number(page) == "5 / 9"
    traces = drawn(page, "skeleton")
    lines, skeletons = traces[:8], traces[8:14]
    assert sum(len(trace["x"]) for trace in lines) == 3 * T  # from, to, gap
    assert len({trace["line"]["width"] for trace in lines if trace["x"]}) > 2
    landmarks = CLIPS[0].inspected.clip.landmarks
    x = {round(float(value), 3) for value in landmarks[4, 12:33, 0]}
    own_left_hand = [value for value in skeletons[4]["x"] if value is not None]
    assert {round(value, 3) for value in own_left_hand} <= x
    read = {round(float(value), 3) for value in landmarks[6, 33:54, 0]}
    assert {round(v, 3) for v in skeletons[2]["x"] if v is not None} <= read


def test_widths_of_lines_follow_the_weights(page):
    hover(page, row=4, column=6)
    until(page, "document.getElementById('readout').textContent.includes('frame 7')")
    page.wait_for_timeout(200)

    weights = CLIPS[0].inspected.fusion["left_to_right"].mean[4]
    width_to = {}
    for trace in drawn(page, "threads")[:8]:
        for frame in trace["x"][1::3]:
            width_to[frame - 1] = trace["line"]["width"]
    order = np.argsort(weights)
    widths = [width_to[frame] for frame in order.tolist()]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_the_slider_moves_through_the_readers_frames(page):
    page.locator("#frame").fill("8")

    assert frame_number(page) == "8 / 9"
    best = int(CLIPS[0].inspected.fusion["left_to_right"].mean[7].argmax()) + 1
    assert (
        f"Frame 8 of the left hand gives frame {best} of" in page.locator("#readout").inner_text()
    )


def test_a_frame_without_the_hand_says_so(page):
    page.locator("#frame").fill("1")

    assert page.locator("#readout").inner_text() == (
        "Frame 1 of the left hand: the hand is missing there."
    )


def test_playing_moves_on_and_pauses(page):
    before = frame_number(page)
    page.locator("#play").click()
    until(page, f"document.getElementById('frame-number').textContent !== '{before}'")
    assert page.locator("#play").inner_text() == "Pause"

    page.locator("#play").click()

    stopped = frame_number(page)
    page.wait_for_timeout(200)
    assert frame_number(page) == stopped
    assert page.locator("#play").inner_text() == "Play"


def test_direction_head_layer_clip_and_run_can_be_switched(page):
    page.select_option("#direction", label="body reads right hand")
    assert page.locator("#map-title").inner_text() == "body reads right hand"
    page.select_option("#head", label="head 2")
    fusion = CLIPS[0].inspected.fusion["body_to_right"]
    shown = np.array(drawn(page, "map")[0]["z"])
    assert np.abs(shown / T - fusion.weights[1]).max() < 0.005
    page.select_option("#layer", label="encoder-1")
    assert page.locator("#map-title").inner_text() == "left hand reads itself"
    page.select_option("#layer", label="decoder-1")
    assert len(drawn(page, "map")[0]["z"]) == 4  # its heads
    page.select_option("#clip", "1")
    until(page, "document.getElementById('facts').textContent.includes('second')")
    assert chosen(page, "layer") == "decoder-1"
    page.select_option("#layer", label="fusion")
    before = drawn(page, "map")[0]["z"]
    page.select_option("#run", label="ce")
    until(page, "state.run.name === 'ce' && state.clip.frames")
    page.wait_for_timeout(300)
    assert drawn(page, "map")[0]["z"] != before


def test_one_of_all_maps_can_be_chosen_with_a_click(page):
    page.locator("#overview .nsewdrag").nth(3).click()

    until(page, "document.getElementById('map-title').textContent.startsWith('right')")
    assert chosen(page, "direction") == "right hand reads body"


def test_the_consistency_panel_gives_the_divergence_of_the_loss(page):
    measures = CLIPS[0].measures
    text = page.locator("#agreement-number").inner_text()
    assert float(found(r"KL ([\d.e-]+) nats", text)) == pytest.approx(measures.divergence, rel=0.01)
    assert text.endswith("(heads averaged, as in the loss)")

    page.select_option("#head", label="head 3")

    number = found(r"KL ([\d.e-]+)", page.locator("#agreement-number").inner_text())
    assert float(number) == pytest.approx(measures.head_divergence[2], rel=0.01)


def test_the_panels_are_two_distributions_and_their_difference(page):
    there, back, difference = (
        np.array(trace["z"], float)[2:] for trace in drawn(page, "consistency")
    )
    np.testing.assert_allclose(there.sum(axis=1), T, rtol=0.02)
    np.testing.assert_allclose(back.sum(axis=1), T, rtol=1e-6)
    np.testing.assert_allclose(difference, there - back)


def test_everything_works_from_the_keyboard(page):
    page.keyboard.press("ArrowRight")
    assert frame_number(page) == "4 / 9"
    page.keyboard.press("ArrowDown")
    first = page.locator("#readout").inner_text()
    page.keyboard.press("ArrowUp")
    assert page.locator("#readout").inner_text() != first
    page.keyboard.press("h")
    assert chosen(page, "head") == "head 1"
    page.keyboard.press("d")
    assert chosen(page, "direction") == "left hand reads body"
    page.keyboard.press("l")
    assert chosen(page, "layer") == "encoder-1"
    page.keyboard.press("n")
    until(page, "document.getElementById('facts').textContent.includes('second')")
    page.keyboard.press("p")
    until(page, "document.getElementById('facts').textContent.includes('first')")
    page.keyboard.press("r")
    until(page, "state.run.name === 'ce'")
    page.keyboard.press("s")
    assert not page.locator("#stretch").is_checked()
    page.keyboard.press(" ")
    assert page.locator("#play").inner_text() == "Pause"
    page.keyboard.press(" ")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement !== document.body")


def test_it_has_a_light_and_a_dark_look(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"

    page.locator("#theme").click()

    red, green, blue = map(int, re.findall(r"\d+", page.evaluate(ground)))
    assert max(red, green, blue) < 60
    assert page.evaluate("document.getElementById('map').layout.font.color") == "#e8eaed"


@pytest.mark.parametrize("width", [360, 640, 1000, 1400])
def test_nothing_is_wider_than_the_window(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(600)

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    heights = page.evaluate(
        "['overview', 'consistency'].map((id) => [document.getElementById(id).clientHeight,"
        " document.getElementById(id)._fullLayout.height])"
    )
    for of_box, of_chart in heights:
        assert abs(of_box - of_chart) <= 1


def test_titles_of_maps_do_not_run_into_each_other(page):
    page.set_viewport_size({"width": 420, "height": 800})
    page.wait_for_timeout(600)

    boxes = page.evaluate(
        "[...document.querySelectorAll('#overview .annotation-text, #overview g[class^=g-x] text')]"
        ".map((e) => { const r = e.getBoundingClientRect();"
        " return [r.left, r.top, r.right, r.bottom]; })"
    )
    assert len(boxes) == 12
    for number, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[number + 1 :]:
            is_beside = right <= other[0] or other[2] <= left
            assert is_beside or bottom <= other[1] + 1 or other[3] <= top + 1


def test_dark_is_chosen_where_the_reader_prefers_it(browser, page_path):
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(page_path.as_uri())
    page.wait_for_selector("body[data-ready]", timeout=60_000)

    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    context.close()


def test_it_prints_on_light_paper_and_comes_back(page):
    page.locator("#theme").click()

    paper = page.pdf(prefer_css_page_size=True, print_background=True)

    assert paper.startswith(b"%PDF")
    assert 1 <= paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") <= 3
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("'paper' in document.documentElement.dataset") is False


def test_a_page_of_clips_too_many_for_it_says_what_it_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("slrctl.reports.attention_html.MAX_BYTES", 2_120_000)
    clips = [measured(f"clip {number}", number, num_frames=60) for number in range(4)]
    write_page(tmp_path / "page.html", [PageRun("run", CMCLSettings(), clips)])

    text = (tmp_path / "page.html").read_text()
    assert len(text) <= 2_120_000
    assert "To stay under 15 MB" in text


def test_a_page_shows_fifty_clips_at_most_and_says_so(tmp_path):
    one = CLIPS[0]
    clips = [
        one._replace(
            inspected=replace(
                one.inspected, clip=replace(one.inspected.clip, clip_id=f"clip {number}")
            )
        )
        for number in range(52)
    ]
    write_page(tmp_path / "page.html", [PageRun("run", CMCLSettings(), clips)])

    text = (tmp_path / "page.html").read_text()
    assert "Of 52 clips the page shows the first 50." in text
    assert text.count('"clip_id"') == 50
