"""Each page and each main gesture in a real browser, on the installed wheel, without a network."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytest.importorskip("playwright")

PAGES = {
    "/": "The walk", "/browse": "All latents", "/search": "Search", "/steer": "Steer",
    "/text": "A text, token by token", "/heads": "Attention heads", "/patch": "Patch", "/unit?number=7": "Unit 7",
    "/compare?a=192&b=3": "Two latents", "/dark": "Dark matter", "/runs": "Runs", "/lists": "Lists",
    "/latent/192": "Latent 192",
}  # fmt: skip


def settled(page):
    page.wait_for_load_state("networkidle")
    page.wait_for_function("() => !document.querySelector('[aria-busy=true]')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_accessible_and_fits(visit, path, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(path, scheme=scheme, width=1440 if scheme == "light" else 390)
    settled(page)
    assert page.locator("h1").inner_text().startswith(PAGES[path])
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{path} scrolls sideways by {wide} px"
    found = Axe().run(page).response["violations"]
    serious = [
        f"{v['id']}: {v['help']} ({[n['html'][:90] for n in v['nodes']][:3]})"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert not serious


def test_the_walk_shows_nine_beats_and_a_new_sentence(visit):
    page = visit("/")
    settled(page)
    titles = page.locator("main h2").all_inner_texts()
    for n, words in enumerate(
        ["Tokens", "vector", "guess", "neuron", "Latents", "fires on", "splice", "Turn it up", "ledger"], 1
    ):
        assert any(t.strip().startswith(str(n)) and words in t for t in titles), (n, titles)
    page.get_by_label("Sentence", exact=True).fill("The reliability of the Gazette is very")
    page.get_by_role("button", name="Walk", exact=True).click()
    page.wait_for_url("**prompt=*")
    settled(page)
    assert "Gazette" in page.locator("#tokens").inner_text()


def test_the_slider_changes_the_next_word(visit):
    page = visit("/?s=0")
    settled(page)
    words = page.locator("#steer table.words tbody th")
    before = words.first.inner_text()
    page.locator("#steer input[type=range]").first.focus()
    for _ in range(9):
        page.keyboard.press("PageUp")
    page.wait_for_function("() => !document.querySelector('#steer [aria-busy=true]')")
    page.wait_for_function(f"() => document.querySelector('#steer table.words tbody th').textContent !== {before!r}")
    assert float(re.search(r"s=([\d.]+)", page.url).group(1)) > 1
    page.wait_for_selector("#steer .continuation")
    assert page.locator("#steer .verdict").first.is_visible()


def test_the_lens_grid_explains_a_cell(visit):
    page = visit("/")
    settled(page)
    cell = page.locator("#lens table.grid tbody tr").last.locator("button").last
    cell.hover()
    assert page.locator("#lens .top-ten li").count() == 10
    cell.click()
    page.wait_for_selector("#lens .decomposition .bars li")
    assert "sum to it within" in page.locator("#lens .decomposition").inner_text()


def test_a_latent_can_be_ablated_and_followed(visit):
    page = visit("/")
    settled(page)
    row = page.locator("#latents tbody tr").first
    row.get_by_role("button", name="ablate").click()
    page.get_by_text("The next word without latent").wait_for()
    number = row.locator("th").inner_text()
    row.get_by_role("button", name="follow").click()
    page.wait_for_url(f"**latent={number}*")
    page.get_by_role("heading", name=f"What latent {number} fires on").wait_for()


def test_the_latent_page_tests_labels_and_goes_on(visit):
    page = visit("/latent/192")
    settled(page)
    page.get_by_label("Your own text").fill("The reliability of the Chronicle is very doubtful")
    page.get_by_label("Your label").fill("judgement to come")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_text("judgement to come").wait_for()
    page.get_by_role("button", name="Remove the label judgement to come").click()
    page.get_by_text("judgement to come").wait_for(state="detached")
    page.locator("h1").click()
    page.keyboard.press("j")
    page.get_by_role("heading", name="Latent 193").wait_for()
    page.keyboard.press("k")
    page.get_by_role("heading", name="Latent 192").wait_for()


def test_the_table_sorts_filters_and_scrolls(visit):
    page = visit("/browse")
    settled(page)
    page.get_by_role("button", name="max", exact=True).click()
    page.wait_for_url("**sort=-max*")
    settled(page)
    page.get_by_label("Bounds, with commas").fill("density<0.001")
    page.wait_for_function("() => /^\\d+ latents/.test(document.querySelector('main [role=status]').textContent)")
    assert int(page.locator("main [role=status]").inner_text().split()[0].replace(",", "")) < 1024
    page.get_by_label("Bounds, with commas").fill("")
    page.wait_for_function("() => document.querySelector('main [role=status]').textContent.startsWith('1,024')")
    page.locator(".virtual").evaluate("box => box.scrollTo(0, 20000)")
    page.wait_for_function("() => document.querySelectorAll('.virtual tbody th a').length > 5")
    assert page.locator(".virtual tbody tr").count() < 100, "the table is not virtual"
    page.get_by_text("map", exact=True).click()
    page.locator(".scatter canvas").wait_for()
    page.get_by_text("what is missed", exact=True).click()
    page.locator(".contexts li").first.wait_for()


def test_search_by_label_word_text_and_example(visit):
    page = visit("/search")
    page.get_by_role("searchbox").fill("river")
    page.locator(".hits li").first.wait_for()
    page.get_by_text("word", exact=True).click()
    page.get_by_role("searchbox").fill("river")
    page.get_by_role("heading", name="promotes “river”").wait_for()
    page.get_by_text("what fires on a text").click()
    page.get_by_role("textbox", name="A text").fill("The reliability of the Almanac is very")
    settled(page)
    page.locator(".tokens [data-at='3']").click()
    page.wait_for_url("**at=3*")
    page.get_by_text("examples", exact=True).click()
    settled(page)
    page.locator(".mark-row .tokens [data-at='7']").click()
    page.get_by_role("columnheader", name="AUROC").wait_for()


def test_steering_streams_both_sides_and_can_be_shared(visit):
    page = visit("/steer?l=192:4&n=12&t=0")
    page.get_by_role("button", name="Continue").click()
    page.get_by_text("nats a token under the unsteered model").first.wait_for()
    plain, steered = page.locator(".said").all_inner_texts()
    assert plain != steered
    assert page.locator(".verdict").is_visible()
    again = visit(page.url)
    again.get_by_role("button", name="Continue").click()
    again.get_by_text("nats a token under the unsteered model").first.wait_for()
    assert again.locator(".said").all_inner_texts() == [plain, steered]


def test_a_text_is_tinted_by_anything(visit):
    page = visit("/text")
    settled(page)
    page.get_by_label("Tint by").select_option("loss")
    page.wait_for_url("**by=loss*")
    page.locator(".tokens [data-at='5']").click()
    page.get_by_role("heading", name="Next words that go missing there").wait_for()
    page.get_by_label("or any latent").fill("192")
    page.wait_for_url("**by=latent*")


def test_heads_answer_to_pointing(visit):
    page = visit("/heads")
    settled(page)
    page.get_by_role("combobox", name="Layer").select_option("2")
    page.wait_for_url("**layer=2*")
    settled(page)
    page.locator(".thumbs button").nth(1).click()
    page.get_by_role("heading", name="Head 2.1").wait_for()
    page.locator(".tokens [data-at='7']").click()
    page.wait_for_selector(".tokens .chosen")


def test_patching_and_a_word_that_is_unknown(visit):
    page = visit("/patch")
    settled(page)
    page.locator("table.heat td").first.wait_for()
    page.get_by_label("What is patched").select_option("mlp_out")
    page.get_by_role("button", name="Patch", exact=True).click()
    page.wait_for_function("() => document.querySelector('ul.plain').textContent.includes('mlp_out')")


def test_a_dictionary_without_an_index_offers_to_build_it(visit):
    page = visit("/browse")
    settled(page)
    page.get_by_label("Dictionary").select_option("almanac/mlp_out.2/w1024")
    said = page.get_by_role("button", name="Build it now")
    said.wait_for()


def test_the_keyboard_reaches_everything(visit):
    page = visit("/")
    settled(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    page.keyboard.press("/")
    page.get_by_role("heading", name="Search").wait_for()
    page = visit("/text")
    settled(page)
    page.locator(".tokens [tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Next words that go missing there").wait_for()


def test_the_ledger_is_made_and_closes(visit):
    page = visit("/dark")
    page.get_by_role("heading", name="What would mend it").wait_for(timeout=60_000)
    rows = page.locator("table.ledger-table").first.locator("tbody tr")
    shares = [float(t.replace("−", "-").strip("+%")) for t in rows.locator("td:nth-child(2)").all_inner_texts()]
    assert sum(shares[:-1]) == pytest.approx(shares[-1], abs=0.03)


def test_the_theme_is_kept(visit):
    page = visit("/runs")
    page.get_by_role("button", name="Dark", exact=True).click()
    page.reload()
    page.get_by_role("button", name="Light", exact=True).wait_for()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_nowhere_is_said(visit):
    page = visit("/no/such/page")
    page.get_by_role("heading", name="There is no such page").wait_for()


def test_the_first_load_is_small(visit, address):
    import httpx

    names = ["/", "/static/page.js", "/static/page.css", "/static/format.js"]
    with httpx.Client(base_url=address, headers={"accept-encoding": "gzip"}) as client:
        size = 0
        for name in names:
            with client.stream("GET", name) as answer:
                assert answer.status_code == 200
                size += sum(map(len, answer.iter_raw()))
    assert size < 250_000


def test_the_wheel_is_whole_and_small(wheel):
    site, found = wheel
    assert (site / "lensing" / "server" / "static" / "index.html").is_file()
    assert found.stat().st_size < 30e6
    code = "import lensing, sys; from lensing.registry import shipped_indexes; print(len(shipped_indexes()))"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(site)}, capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr
