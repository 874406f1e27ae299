"""The chat page in real Chromium: typed into, clicked, reloaded, and watched for what it must not do."""

import json
import os
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    if not Path(CHROMIUM).exists():
        pytest.fail(f"no browser at {CHROMIUM}; run: apt-get install -y chromium fonts-noto-cjk")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def pace(engine, monkeypatch):
    """Seconds of one engine step, to be changed by a test; the random model never ends an answer by itself."""
    pace, step = {"s": 0.0}, engine.step

    def slow():
        time.sleep(pace["s"])
        return step()

    monkeypatch.setattr(engine, "step", slow)
    monkeypatch.setattr(engine, "ends", frozenset())
    return pace


@pytest.fixture
def context(browser, server, pace):
    context = browser.new_context(locale="ja-JP", viewport={"width": 1200, "height": 800})
    context.set_default_timeout(10_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server)
    yield context
    context.close()


@pytest.fixture
def page(context, server):
    """A page that must end without a console error and without a request to anybody but its server."""
    page, complaints, addresses = context.new_page(), [], []
    page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: addresses.append(request.url))
    page.expected_complaints = 0
    page.goto(server)
    expect(page.locator("#model")).to_contain_text("yatsude-test")
    yield page
    assert all(address.startswith((server, "blob:")) for address in addresses)
    assert len(complaints) <= page.expected_complaints, complaints


def settings(page, **values):
    page.evaluate("v => localStorage.setItem('yatsude.settings', JSON.stringify(v))", values)
    page.reload()
    expect(page.locator("#model")).to_contain_text("yatsude-test")


def ask(page, text):
    page.fill("#question", text)
    page.press("#question", "Enter")


def done(page):
    expect(page.locator("#log")).to_have_attribute("aria-busy", "false")


def answers(page):
    return page.locator(".assistant .body")


def test_a_question_is_answered_with_its_speed(page):
    settings(page, max_tokens="12", seed="1", temperature="0")
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator("#send")).to_be_disabled()
    ask(page, "吾輩は猫である。\n名前は？")
    done(page)
    expect(page.locator(".user .body")).to_have_text("吾輩は猫である。\n名前は？")
    assert answers(page).inner_text().strip()
    expect(page.locator(".assistant .tools .quiet")).to_contain_text("12 トークン")
    expect(page.locator("#welcome")).to_be_hidden()
    expect(page.locator("#question")).to_have_value("")


def test_text_streams_and_the_stop_button_keeps_what_is_there(page, pace, idle):
    pace["s"] = 0.05
    ask(page, "猫")
    expect(answers(page)).not_to_be_empty()
    early = answers(page).inner_text()
    page.wait_for_function("n => document.querySelector('.assistant .body').innerText.length > n", arg=len(early))
    page.click("#stop")
    done(page)
    expect(page.locator(".note")).to_have_text("ここで止めました。")
    expect(page.locator("#question")).to_be_focused()
    assert len(answers(page).inner_text()) >= len(early)
    assert idle()


def test_the_enter_that_accepts_a_conversion_does_not_send(page, context):
    page.click("#question")
    keyboard = context.new_cdp_session(page)
    keyboard.send("Input.imeSetComposition", {"text": "ねこ", "selectionStart": 2, "selectionEnd": 2})
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
    keyboard.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **enter})
    keyboard.send("Input.insertText", {"text": "猫"})
    keyboard.send("Input.dispatchKeyEvent", {"type": "keyUp", **enter})
    # Safari reports the Enter after the composition, as any other
    page.evaluate("""() => { const q = document.querySelector('#question');
        q.dispatchEvent(new CompositionEvent('compositionend', {data: '猫', bubbles: true}));
        q.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true, cancelable: true})); }""")
    expect(page.locator("#question")).to_have_value("猫")
    assert page.locator(".user").count() == 0
    page.wait_for_timeout(100)
    page.press("#question", "Enter")
    expect(page.locator(".user .body")).to_have_text("猫")
    done(page)


def test_shift_enter_is_a_new_line_and_enter_can_be_one_too(page):
    page.fill("#question", "一")
    page.press("#question", "Shift+Enter")
    expect(page.locator("#question")).to_have_value("一\n")
    settings(page, enter="newline", max_tokens="3")
    page.fill("#question", "一")
    page.press("#question", "Enter")
    expect(page.locator("#question")).to_have_value("一\n")
    page.press("#question", "Control+Enter")
    expect(page.locator(".user")).to_have_count(1)
    done(page)


def test_a_reload_keeps_the_conversation(page):
    settings(page, max_tokens="8")
    ask(page, "今日はいい天気ですね。")
    done(page)
    said = answers(page).inner_text()
    page.reload()
    expect(page.locator(".user .body")).to_have_text("今日はいい天気ですね。")
    assert answers(page).inner_text() == said
    expect(page.locator("#conversations .here")).to_contain_text("今日はいい天気ですね。")


def test_a_reload_in_the_middle_keeps_the_question(page, pace, idle):
    pace["s"] = 0.05
    ask(page, "猫")
    expect(answers(page)).not_to_be_empty()
    page.reload()
    expect(page.locator(".user .body")).to_have_text("猫")
    assert idle()


def test_new_open_delete_and_export(page):
    settings(page, max_tokens="3")
    ask(page, "一つ目")
    done(page)
    page.click("#new")
    expect(page.locator("#log article")).to_have_count(0)
    ask(page, "二つ目")
    done(page)
    expect(page.locator("#conversations li")).to_have_count(2)
    with page.expect_download() as download:
        page.click("#export")
    exported = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert {chat["title"] for chat in exported["conversations"]} == {"一つ目", "二つ目"}
    page.click("#conversations .open >> text=一つ目")
    expect(page.locator(".user .body")).to_have_text("一つ目")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#conversations .here .remove")
    expect(page.locator("#conversations li")).to_have_count(1)
    expect(page.locator("#welcome")).to_be_visible()


def test_deleting_a_conversation_that_is_being_answered(page, pace, idle):
    pace["s"] = 0.05
    ask(page, "消える会話")
    expect(answers(page)).not_to_be_empty()
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#conversations .here .remove")
    assert idle()
    page.reload()
    expect(page.locator("#conversations li")).to_have_count(0)


def test_answer_again_and_edit_the_question(page):
    settings(page, max_tokens="10", temperature="2")
    ask(page, "猫")
    done(page)
    first = answers(page).inner_text()
    page.click(".assistant [aria-label='もう一度答える']")
    done(page)
    assert answers(page).count() == 1
    assert answers(page).inner_text() != first
    page.click(".user [aria-label='質問を直す']")
    expect(page.locator("#question")).to_have_value("猫")
    page.press("#question", "Escape")
    expect(page.locator("#question")).to_have_value("")
    page.click(".user [aria-label='質問を直す']")
    ask(page, "犬")
    done(page)
    expect(page.locator(".user .body")).to_have_text(["犬"])


def test_copy(page):
    settings(page, max_tokens="3")
    ask(page, "写すもの")
    done(page)
    page.click(".user [aria-label='コピー']")
    assert page.evaluate("navigator.clipboard.readText()") == "写すもの"


def test_tasks_put_their_instruction_in_front(page):
    page.fill("#question", "The cat sat.")
    page.click("#tasks >> text=英語→日本語")
    value = page.input_value("#question")
    assert value.endswith("\nThe cat sat.")
    assert "日本語に訳して" in value
    page.click("#tasks >> text=そのまま")
    expect(page.locator("#question")).to_have_value("The cat sat.")


def test_settings_are_sent_and_kept(page):
    page.click("#settings-open")
    for name, value in {"temperature": "0", "max_tokens": "4", "seed": "7", "system": "短く"}.items():
        page.fill(f"#set-{name}", value)
    page.click("#settings-done")
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "猫")
    body = sent.value.post_data_json
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0, 4, 7)
    assert body["messages"][0] == {"role": "system", "content": "短く"}
    assert "top_p" not in body
    done(page)
    page.reload()
    page.click("#settings-open")
    expect(page.locator("#set-seed")).to_have_value("7")
    page.fill("#set-temperature", "9")
    page.click("#settings-done")
    expect(page.locator("#settings")).to_be_visible()


def test_english(page):
    page.click("#language")
    expect(page.locator("#question")).to_have_attribute("placeholder", "Write a message")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    page.reload()
    expect(page.locator("#new")).to_contain_text("New chat")


def test_what_a_model_writes_is_never_markup(page):
    nasty = "# 題\n\n<img src=x onerror=alert(1)> **太字** `<b>` [link](javascript:alert(1)) [よい](https://example.com/)\n\n"
    nasty += "- 一\n- 二\n\n```html\n<script>alert(1)</script>\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    chat = {"id": "x", "title": "t", "updated": 1, "messages": [{"role": "assistant", "content": nasty}]}
    page.evaluate(
        """c => { localStorage.setItem('yatsude.chat.x', JSON.stringify(c));
        localStorage.setItem('yatsude.here', '"x"'); }""",
        chat,
    )
    page.reload()
    body = answers(page)
    expect(body.locator("img, script")).to_have_count(0)
    expect(body.locator("a")).to_have_count(1)
    expect(body.locator("strong")).to_have_text("太字")
    expect(body.locator("h2")).to_have_text("題")
    expect(body.locator("li")).to_have_text(["一", "二"])
    expect(body.locator("pre code")).to_have_text("<script>alert(1)</script>")
    expect(body.locator("td")).to_have_text(["1", "2"])


def test_a_question_too_long_is_told_in_japanese_and_can_be_retried(page):
    page.expected_complaints = 1  # the browser itself reports status 400
    ask(page, "長い文章です。" * 100)
    expect(page.locator(".error")).to_contain_text("長すぎて")
    done(page)
    expect(page.locator(".error .link")).to_have_text("もう一度試す")


def test_a_long_conversation_loses_its_oldest_messages_and_goes_on(page):
    settings(page, max_tokens="60")
    for number in range(4):
        ask(page, f"{number}: 今日はいい天気ですね。散歩に行きましょう。")
        done(page)
        expect(page.locator(".assistant .tools .quiet").nth(number)).to_contain_text("60 トークン")
    expect(page.locator(".note", has_text="省いて答えました").first).to_be_visible()


def test_where_the_guess_was_wrong_the_server_decides(page):
    page.expected_complaints = 1  # the browser itself reports status 400
    settings(page, max_tokens="3")
    ask(page, "散歩に行きましょう。" * 12)
    done(page)
    ask(page, "鬱" * 78)
    done(page)
    expect(page.locator(".error")).to_have_count(0)
    expect(page.locator(".note", has_text="古い発言 2 件を省いて")).to_be_visible()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({"status": 503, "json": {"error": {"message": "x", "code": "overloaded"}}}, "混み合って"),
        ({"status": 500, "json": {"error": {"message": "x", "code": None}}}, "サーバーの中で問題"),
        ({"status": 200, "body": 'data: {"choices": [{"delta": {"content": "途中"}}]}\n\n'}, "途中で切れました"),
        ({"status": 200, "body": 'data: {"error": {"message": "x"}}\n\n'}, "サーバーの中で問題"),
        (None, "つながりません"),
    ],
)
def test_errors_are_told_in_japanese(page, reply, words):
    page.expected_complaints = 1
    settings(page, max_tokens="8")
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**reply) if reply else route.abort())
    ask(page, "猫")
    expect(page.locator(".error")).to_contain_text(words)
    page.unroute_all()
    page.click(".error .link")
    done(page)
    expect(page.locator(".error")).to_have_count(0)


def test_a_narrow_screen_has_a_drawer_and_no_sideways_scrolling(page):
    page.set_viewport_size({"width": 360, "height": 700})
    expect(page.locator("#side")).not_to_be_in_viewport()
    page.click("#side-open")
    expect(page.locator("#side")).to_be_in_viewport()
    page.keyboard.press("Escape")
    expect(page.locator("#side")).not_to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_every_control_has_a_name(page):
    settings(page, max_tokens="3")
    ask(page, "猫")
    done(page)
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, input, textarea, select')].filter(
        node => !(node.getAttribute('aria-label') || node.textContent.trim() || node.labels?.length)).length""")
    assert nameless == 0
    expect(page.locator("#log")).to_have_attribute("aria-live", "polite")
