"""The page about attention, opened in a real browser."""

import re

import numpy as np
import pytest
from attention_maps import measured_clip
from browser import Watched, chromium

from slrctl.reports.attention_page import PageRun, write_page
from slrctl.settings import CMCLSettings

pytestmark = pytest.mark.slow  # a page opens in two seconds

ATTACK = "<script>alert(1)</script>"
T = 9
OTHER_ATTACK = '"><img src=x onerror=alert(2)>'
CLIPS, OTHER_CLIPS = (
    [
        measured_clip(clip_id, seed, gloss=ATTACK, signer=OTHER_ATTACK)
        for seed, clip_id in enumerate(("first%SCRIPT%", "second"), start)
    ]
    for start in (0, 7)
)
LEFT_TO_RIGHT = CLIPS[0].inspected.fusion["left_to_right"]


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "attention.html"
    runs = [PageRun("cmcl", CMCLSettings(), CLIPS), PageRun("ce", CMCLSettings(), OTHER_CLIPS)]
    write_page(path, runs)
    return path


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def watched(browser, page_path):
    """Open the page; no test may make it complain or ask for anything."""
    context = browser.new_context(color_scheme="light", viewport={"width": 1400, "height": 1000})
    opened = Watched(context.new_page())
    opened.page.goto(page_path.as_uri())
    opened.page.wait_for_selector("body[data-ready]", timeout=60_000)
    yield opened
    opened.page.wait_for_timeout(50)
    assert opened.complaints == []
    assert set(opened.requests) == {page_path.as_uri()}
    context.close()


@pytest.fixture
def page(watched):
    return watched.page


def frame_number(page):
    return page.locator("#frame-number").text_content()


def readout(page):
    return page.locator("#readout").inner_text()


def resized(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(600)
    return page


def chosen(page, name):
    return page.locator(f"#{name} option:checked").text_content()


def until(page, condition):
    """Wait for something on the page; Playwright's own way needs an eval that the page forbids."""
    for _ in range(300):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never came true: {condition}")


@pytest.fixture
def pointed(page):
    """Point at the cell of the left hand's frame 5 and the right's 7."""
    box = page.locator("#map .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    x, y = box["width"] * 6.5 / T, box["height"] * 4.5 / T
    page.mouse.move(box["x"] + x, box["y"] + y)
    until(page, "document.getElementById('readout').textContent.includes('frame 7')")
    page.wait_for_timeout(200)
    return page


def number_in(text, pattern):
    match = re.search(pattern, text)
    assert match is not None
    return float(match[1])


def drawn(page, chart):
    """Return the traces that the chart shows now."""
    return page.evaluate(f"document.getElementById('{chart}').data")


def x_values(trace):
    """Return the places of a trace's points, gaps left out, as exact as the page has landmarks."""
    return {round(float(value), 3) for value in trace["x"] if value is not None}


def test_a_gloss_that_is_a_script_shows_as_text(page, page_path):
    assert ATTACK in page.locator("#prediction").text_content()
    assert page.locator("#prediction script").count() == page.locator("img").count() == 0
    assert OTHER_ATTACK in page.locator("#facts").text_content()
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
    shown = page.evaluate("state.map.heads.map((head) => head.map((line) => Array.from(line)))")

    rows = LEFT_TO_RIGHT.rows_count
    exact = LEFT_TO_RIGHT.weights[:, rows]
    # Half a level at the upper end of a head's range, where levels are widest.
    bounds = np.ptp(exact, axis=(1, 2)) * 1.01 / 255
    assert (np.abs(np.array(shown)[:, rows] - exact).max(axis=(1, 2)) <= bounds).all()


def test_pointing_at_a_cell_shows_both_frames_and_lines_to_the_other_hand(pointed):
    share = number_in(readout(pointed), r"([\d.e+-]+) %")
    assert share == pytest.approx(100 * LEFT_TO_RIGHT.mean[4, 6], abs=0.5)
    assert frame_number(pointed) == "5 / 9"
    traces = drawn(pointed, "skeleton")
    lines, skeletons = traces[:8], traces[8:14]
    assert sum(len(trace["x"]) for trace in lines) == 3 * T  # from, to, gap
    assert len({trace["line"]["width"] for trace in lines if trace["x"]}) > 2
    landmarks = CLIPS[0].inspected.clip.landmarks.round(3).astype(float)
    own_left_hand, read_right_hand = x_values(skeletons[4]), x_values(skeletons[2])
    assert own_left_hand <= {round(x, 3) for x in landmarks[4, 12:33, 0]}
    assert read_right_hand <= {round(x, 3) for x in landmarks[6, 33:54, 0]}
    assert own_left_hand
    assert read_right_hand


def test_widths_of_lines_follow_the_weights(pointed):
    width_to = {
        frame - 1: trace["line"]["width"]
        for trace in drawn(pointed, "threads")[:8]
        for frame in trace["x"][1::3]
    }

    widths = [width_to[frame] for frame in np.argsort(LEFT_TO_RIGHT.mean[4]).tolist()]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_the_slider_moves_through_the_readers_frames_and_names_one_without_the_hand(page):
    page.locator("#frame").fill("8")

    assert frame_number(page) == "8 / 9"
    best = int(LEFT_TO_RIGHT.mean[7].argmax()) + 1
    assert readout(page).startswith(f"Frame 8 of the left hand gives frame {best} of")
    page.locator("#frame").fill("1")
    assert readout(page).startswith("Frame 1 of the left hand:")
    assert "missing" in readout(page)


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
    page.select_option("#head", label="head 2")
    shown = np.array(drawn(page, "map")[0]["z"])
    exact = CLIPS[0].inspected.fusion["body_to_right"].weights[1]
    assert np.abs(shown / T - exact).max() < 0.005
    page.select_option("#layer", label="encoder-1")
    assert page.locator("#map-title").inner_text() == "left hand reads itself"
    page.select_option("#layer", label="decoder-1")
    assert len(drawn(page, "map")[0]["z"]) == 4  # its heads
    assert " of all streams " in readout(page)
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


def test_the_consistency_panel_has_the_divergence_of_the_loss_and_what_it_compares(page):
    forth, back, difference = (
        np.array(trace["z"], float)[2:] for trace in drawn(page, "consistency")
    )
    np.testing.assert_allclose(forth.sum(axis=1), T, rtol=0.02)
    np.testing.assert_allclose(back.sum(axis=1), T, rtol=1e-6)
    np.testing.assert_allclose(difference, forth - back)
    measures = CLIPS[0].measures
    pattern, number = r"KL ([\d.e-]+) nats", page.locator("#agreement-number")
    mean = number_in(number.inner_text(), pattern)
    page.select_option("#head", label="head 3")
    head = number_in(number.inner_text(), pattern)

    assert mean == pytest.approx(measures.divergence, rel=0.01)
    assert head == pytest.approx(measures.head_divergence[2], rel=0.01)


def test_everything_works_from_the_keyboard(page):
    page.keyboard.press("ArrowRight")
    assert frame_number(page) == "4 / 9"
    page.keyboard.press("ArrowDown")
    first = readout(page)
    page.keyboard.press("ArrowUp")
    assert readout(page) != first
    for key, name, choice in (
        ("h", "head", "head 1"),
        ("d", "direction", "left hand reads body"),
        ("l", "layer", "encoder-1"),
    ):
        page.keyboard.press(key)
        assert chosen(page, name) == choice
    for key, clip_id in (("n", "second"), ("p", "first")):
        page.keyboard.press(key)
        until(page, f"document.getElementById('facts').textContent.includes('{clip_id}')")
    page.keyboard.press("r")
    until(page, "state.run.name === 'ce'")
    page.keyboard.press("s")
    assert not page.locator("#stretch").is_checked()
    page.keyboard.press(" ")
    assert page.locator("#play").inner_text() == "Pause"
    page.keyboard.press(" ")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement !== document.body")


def test_it_has_a_light_and_a_dark_look_and_takes_the_one_preferred(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"

    page.locator("#theme").click()

    assert max(map(int, re.findall(r"\d+", page.evaluate(ground)))) < 60
    assert page.evaluate("document.getElementById('map').layout.font.color") == "#e8eaed"
    page.emulate_media(color_scheme="dark")
    page.reload()
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize("width", [360, 640, 1000, 1400])
def test_nothing_is_wider_than_the_window(page, width):
    resized(page, width)

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    gaps = page.evaluate(
        "['overview', 'consistency'].map((id) => document.getElementById(id).clientHeight"
        " - document.getElementById(id)._fullLayout.height)"
    )
    assert max(map(abs, gaps)) <= 1


def test_titles_of_maps_do_not_run_into_each_other(page):
    boxes = resized(page, 420).evaluate(
        "[...document.querySelectorAll('#overview .annotation-text, #overview g[class^=g-x] text')]"
        ".map((e) => { const r = e.getBoundingClientRect();"
        " return [r.left, r.top, r.right, r.bottom]; })"
    )
    assert len(boxes) == 12
    left, top, right, bottom = np.array(boxes).T
    is_beside = (right[:, None] <= left) | (left[:, None] >= right)
    is_above = (bottom[:, None] <= top + 1) | (top[:, None] >= bottom - 1)
    assert (is_beside | is_above | np.eye(12, dtype=bool)).all()


def test_it_prints_on_light_paper_and_comes_back(page):
    page.locator("#theme").click()

    paper = page.pdf(prefer_css_page_size=True, print_background=True)

    assert paper.startswith(b"%PDF")
    assert 1 <= paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") <= 3
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("'paper' in document.documentElement.dataset") is False


def test_a_page_of_clips_too_large_for_it_says_what_it_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("slrctl.reports.attention_page.MAX_BYTES", 2_120_000)
    clips = [measured_clip(f"clip {number}", number, num_frames=60) for number in range(4)]
    write_page(tmp_path / "page.html", [PageRun("run", CMCLSettings(), clips)])

    text = (tmp_path / "page.html").read_text()
    assert len(text) <= 2_120_000
    assert "To stay under 15 MB" in text


def test_a_page_shows_fifty_clips_at_most_and_says_so(tmp_path):
    write_page(tmp_path / "page.html", [PageRun("run", CMCLSettings(), CLIPS * 26)])

    text = (tmp_path / "page.html").read_text()
    assert "Of 52 clips the page shows the first 50." in text
    assert text.count('"clip_id"') == 50
