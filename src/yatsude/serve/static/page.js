// The chat page. It talks to the server it came from and to nobody else; conversations stay in this browser.

const WORDS = {
  ja: {
    skip: "入力欄へ", newChat: "新しい会話", conversations: "会話の一覧", storedHere: "会話はこの端末だけに保存されます。", exportAll: "書き出す",
    welcome: "こんにちは。何を書きましょう。", welcomeMore: "この端末で動く小さなモデルが答えます。\nまちがえることもあるので、大切なことは確かめてください。",
    taskNames: { plain: "そのまま" }, log: "会話", tasks: "用途", question: "質問", placeholder: "メッセージを入力", send: "送信", stop: "止める", toEnd: "いちばん下へ",
    settings: "設定", close: "閉じる", done: "完了", cancel: "取り消す", reset: "初期値に戻す", editing: "最後の質問を直しています",
    system: "システムプロンプト", systemHint: "例：ていねいな日本語で短く答えてください。", temperature: "温度", temperatureHint: "低いほど手堅く、高いほど多彩に",
    topP: "top-p", topPHint: "確率の高い候補だけを残す割合", maxTokens: "最大トークン数", maxTokensHint: "答えの長さの上限", seed: "シード",
    seedHint: "同じ数なら同じ答え", byDefault: "おまかせ", noSeed: "毎回変える", theme: "色", themeAuto: "端末に合わせる", themeLight: "明るい", themeDark: "暗い",
    enter: "Enter キー", enterSends: "送信（Shift+Enter で改行）", enterBreaks: "改行（Ctrl+Enter で送信）",
    you: "あなた", model: "モデル", copy: "コピー", copied: "コピーしました", again: "もう一度答える", edit: "質問を直す", remove: "削除", retry: "もう一度試す",
    removeSure: (title) => `「${title}」を削除しますか。元には戻せません。`, untitled: "新しい会話", stopped: "ここで止めました。", cut: "長さの上限に達しました。",
    empty: "答えは空でした。", thinking: "考えています", answered: "答えが届きました",
    left: (n) => `会話が長いので、古い発言 ${n} 件を省いて答えました。`,
    speed: (tokens, seconds, rate) => `${tokens} トークン・${seconds} 秒・${rate} トークン/秒`,
    context: (n) => `${n.toLocaleString("ja")} トークンまで読めます`,
    errors: {
      offline: "サーバーにつながりません。yatsude serve が動いているか確かめてください。",
      broken: "答えが途中で切れました。もう一度試してください。",
      context_length_exceeded: "文章が長すぎて、このモデルには読めません。短くするか、新しい会話を始めてください。",
      overloaded: "いま混み合っています。少し待ってから、もう一度試してください。",
      model_not_found: "サーバーのモデルが替わったようです。ページを読み込み直してください。",
      413: "送る内容が大きすぎます。会話を短くしてください。", 500: "サーバーの中で問題が起きました。詳しくはサーバーの画面を見てください。",
      other: (status, message) => `サーバーが断りました（${status}）：${message}`, storage: "この端末の保存領域がいっぱいです。古い会話を削除してください。",
    },
  },
  en: {
    skip: "To the input", newChat: "New chat", conversations: "Conversations", storedHere: "Conversations are kept on this device only.", exportAll: "Export",
    welcome: "Hello. What shall we write?", welcomeMore: "A small model on this machine answers.\nIt can be wrong: check what matters.",
    taskNames: { plain: "As it is", to_japanese: "English → Japanese", to_english: "Japanese → English", continue: "Continue", rephrase: "Rephrase" },
    log: "Conversation", tasks: "Task", question: "Question", placeholder: "Write a message", send: "Send", stop: "Stop", toEnd: "To the end",
    settings: "Settings", close: "Close", done: "Done", cancel: "Cancel", reset: "Reset", editing: "Editing the last question",
    system: "System prompt", systemHint: "For example: answer briefly and politely.", temperature: "Temperature", temperatureHint: "Lower is safer, higher is livelier",
    topP: "top-p", topPHint: "Share of likely tokens that is kept", maxTokens: "Max tokens", maxTokensHint: "Longest answer", seed: "Seed",
    seedHint: "Same number, same answer", byDefault: "Default", noSeed: "New every time", theme: "Colours", themeAuto: "As the device", themeLight: "Light", themeDark: "Dark",
    enter: "Enter key", enterSends: "Sends (Shift+Enter: new line)", enterBreaks: "New line (Ctrl+Enter: send)",
    you: "You", model: "Model", copy: "Copy", copied: "Copied", again: "Answer again", edit: "Edit the question", remove: "Delete", retry: "Try again",
    removeSure: (title) => `Delete "${title}"? This cannot be undone.`, untitled: "New chat", stopped: "Stopped here.", cut: "The longest length was reached.",
    empty: "The answer was empty.", thinking: "Thinking", answered: "The answer has arrived",
    left: (n) => `The conversation is long: the ${n} oldest messages were left out.`,
    speed: (tokens, seconds, rate) => `${tokens} tokens · ${seconds} s · ${rate} tokens/s`,
    context: (n) => `reads up to ${n.toLocaleString("en")} tokens`,
    errors: {
      offline: "The server cannot be reached. Is yatsude serve running?", broken: "The answer was cut off. Please try again.",
      context_length_exceeded: "The text is too long for this model. Shorten it or start a new chat.",
      overloaded: "The server is busy. Please try again in a moment.", model_not_found: "The server has another model now. Please reload the page.",
      413: "This is too large to send. Shorten the conversation.", 500: "Something failed inside the server; its output says what.",
      other: (status, message) => `The server refused (${status}): ${message}`, storage: "The storage of this device is full. Delete old conversations.",
    },
  },
};

const DEFAULTS = { language: "ja", theme: "", enter: "", system: "", temperature: "", top_p: "", max_tokens: "256", seed: "" };
const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];
const IN_SETTINGS = ["system", ...NUMBERS, "theme", "enter"];
const SAFARI_ENTER_MS = 50;
const REDRAWN = 4; // the last two questions and answers: only their buttons change

const $ = (id) => document.getElementById(id);
const words = () => WORDS[settings.language] ?? WORDS.ja;

// ---------------------------------------------------------------- storage

const KEY = "yatsude.";
const stored = {
  read(name) {
    try {
      return JSON.parse(localStorage.getItem(KEY + name));
    } catch {
      return null;
    }
  },
  write(name, value) {
    try {
      localStorage.setItem(KEY + name, JSON.stringify(value));
    } catch {
      $("status").textContent = words().errors.storage;
    }
  },
  remove: (name) => localStorage.removeItem(KEY + name),
  list: () => [...shelf.values()].sort((a, b) => b.updated - a.updated),
  conversations: () =>
    Object.keys(localStorage)
      .filter((key) => key.startsWith(KEY + "chat."))
      .map((key) => stored.read(key.slice(KEY.length)))
      .filter((chat) => chat?.id && Array.isArray(chat.messages))
      .sort((a, b) => b.updated - a.updated),
};

const settings = { ...DEFAULTS, ...stored.read("settings") };
let server = { name: null, context: 0 };
let tasks = []; // what the model was tuned for; a task only puts its instruction in front of the question
const shelf = new Map();
let chat = blank();
let running = null; // { controller, chat } while an answer is being written
let editing = false;

function blank() {
  return { id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, title: "", updated: 0, messages: [] };
}

function keep(conversation) {
  if (conversation.removed) return;
  const first = conversation.messages.find((message) => message.role === "user");
  conversation.title = (first?.content ?? "").trim().split("\n").pop().slice(0, 40);
  conversation.updated = Date.now();
  stored.write(`chat.${conversation.id}`, conversation);
  shelve(conversation);
}

/** Titles alone, in memory: the list is drawn often, and the conversations are long. */
function shelve({ id, title, updated }) {
  shelf.set(id, { id, title, updated });
}

function readShelf() {
  shelf.clear();
  stored.conversations().forEach(shelve);
}

// ---------------------------------------------------------------- small helpers

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name === "onclick") node.addEventListener("click", value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function symbol(name, className = "") {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#${name}`);
  svg.setAttribute("aria-hidden", "true");
  if (className) svg.setAttribute("class", className);
  svg.append(use);
  return svg;
}

function tool(icon, label, act) {
  return make("button", { type: "button", class: "icon", "aria-label": label, title: label, onclick: act }, symbol(icon));
}

function copier(text) {
  const button = tool("i-copy", words().copy, async () => {
    await copyText(text());
    button.replaceChildren(symbol("i-done"));
    announce(words().copied);
    setTimeout(() => button.replaceChildren(symbol("i-copy")), 1500);
  });
  return button;
}

async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text).catch(() => {});
    return;
  }
  const area = make("textarea", { class: "unseen" }); // plain http from another machine has no clipboard interface
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

const announce = (text) => ($("announce").textContent = text);

// ---------------------------------------------------------------- Markdown

/** Markdown to DOM nodes. Text only ever becomes text nodes, so nothing a model writes can become markup. */
function markdown(source) {
  const out = document.createDocumentFragment();
  const lines = source.split("\n");
  for (let at = 0; at < lines.length; ) at = block(lines, at, out);
  return out;
}

function block(lines, at, out) {
  const line = lines[at];
  const fence = line.match(/^\s*(```+|~~~+)/);
  if (fence) {
    let end = at + 1;
    while (end < lines.length && !lines[end].trim().startsWith(fence[1])) end += 1;
    out.append(codeBlock(lines.slice(at + 1, end).join("\n")));
    return end + 1;
  }
  if (!line.trim()) return at + 1;
  const heading = line.match(/^(#{1,6})\s+(.*)/);
  if (heading) {
    out.append(make(`h${Math.min(heading[1].length + 1, 4)}`, {}, ...inline(heading[2])));
    return at + 1;
  }
  if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
    out.append(make("hr"));
    return at + 1;
  }
  if (line.includes("|") && /^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$/.test(lines[at + 1] ?? "")) {
    return table(lines, at, out);
  }
  for (const [tag, mark] of [["ul", /^\s*[-*+・]\s+/], ["ol", /^\s*\d{1,3}[.)]\s+/], ["blockquote", /^\s*>\s?/]]) {
    if (!mark.test(line)) continue;
    let end = at;
    while (end < lines.length && mark.test(lines[end])) end += 1;
    const inner = lines.slice(at, end).map((text) => text.replace(mark, ""));
    if (tag === "blockquote") out.append(make(tag, {}, markdown(inner.join("\n"))));
    else out.append(make(tag, startOf(tag, line), ...inner.map((text) => make("li", {}, ...inline(text)))));
    return end;
  }
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !/^\s*(```|~~~|#{1,6}\s|>|[-*+]\s|\d{1,3}[.)]\s)/.test(lines[end])) end += 1;
  out.append(make("p", {}, ...inline(lines.slice(at, end).join("\n"))));
  return end;
}

const startOf = (tag, line) => (tag === "ol" ? { start: String(parseInt(line, 10) || 1) } : {});

function codeBlock(code) {
  const pre = make("pre", { tabindex: "0" }, make("code", {}, code));
  return make("div", { class: "block" }, pre, copier(() => code));
}

function table(lines, at, out) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const row = (tag, line) => make("tr", {}, ...cells(line).map((cell) => make(tag, {}, ...inline(cell))));
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const body = make("tbody", {}, ...lines.slice(at + 2, end).map((line) => row("td", line)));
  out.append(make("div", { class: "table", tabindex: "0" }, make("table", {}, make("thead", {}, row("th", lines[at])), body)));
  return end;
}

const INLINE = /(`+)(.+?)\1|\*\*(.+?)\*\*|\*(?!\s)([^*\n]+?)\*|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/s;

function inline(text) {
  const match = text.match(INLINE);
  if (!match) return [text];
  const [all, , code, strong, emphasis, label, address] = match;
  let node;
  if (code !== undefined) node = make("code", {}, code.trim() || code);
  else if (strong !== undefined) node = make("strong", {}, ...inline(strong));
  else if (emphasis !== undefined) node = make("em", {}, ...inline(emphasis));
  else node = make("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, ...inline(label));
  return [text.slice(0, match.index), node, ...inline(text.slice(match.index + all.length))];
}

// ---------------------------------------------------------------- drawing

/** Draw the conversation anew from message `from` on: a long one is not rebuilt for every answer. */
function draw(from = 0) {
  const follow = from === 0 || nearEnd();
  while ($("log").children.length > from) $("log").lastElementChild.remove();
  for (let number = from; number < chat.messages.length; number += 1) $("log").append(messageNode(number));
  drawFrame();
  drawConversations();
  if (follow) toEnd();
}

const tail = () => Math.max(0, chat.messages.length - REDRAWN);

function drawFrame() {
  const fresh = chat.messages.length === 0;
  document.body.classList.toggle("fresh", fresh);
  $("welcome").hidden = !fresh;
  $("editing").hidden = !editing;
  $("send").hidden = running !== null;
  $("stop").hidden = running === null;
  $("send").disabled = !$("question").value.trim();
  $("log").setAttribute("aria-busy", String(running !== null));
  for (const [number, button] of [...$("tasks").children].entries()) {
    button.setAttribute("aria-pressed", String(tasks[number] === currentTask()));
  }
}

function messageNode(number) {
  const message = chat.messages[number];
  const last = number >= chat.messages.length - (message.role === "user" ? 2 : 1);
  const body = make("div", { class: "body" });
  const tools = make("div", { class: "tools" }, copier(() => message.content));
  const heading = make("h3", { class: "unseen" }, message.role === "user" ? words().you : words().model);
  if (message.role === "user") {
    body.textContent = message.content;
    if (last && !running) tools.append(tool("i-edit", words().edit, editLast));
    return make("article", { class: `message user${last ? " last" : ""}` }, heading, body, tools);
  }
  body.append(markdown(message.content));
  if (last && !running) tools.append(tool("i-again", words().again, again));
  if (message.speed) tools.append(make("span", { class: "quiet" }, words().speed(...message.speed)));
  const column = make("div", {}, heading, body, ...notes(message), ...(message.content || !last ? [tools] : []));
  return make("article", { class: "message assistant" }, symbol("leaf", "mark"), column);
}

function notes(message) {
  const out = [];
  if (message.left) out.push(make("p", { class: "note" }, words().left(message.left)));
  if (message.end === "stopped") out.push(make("p", { class: "note" }, words().stopped));
  if (message.end === "length") out.push(make("p", { class: "note" }, words().cut));
  if (message.end === "stop" && !message.content.trim()) out.push(make("p", { class: "note" }, words().empty));
  if (message.error) {
    const retry = make("button", { type: "button", class: "link", onclick: again }, words().retry);
    out.push(make("div", { class: "error", role: "alert" }, make("span", {}, errorText(message.error)), retry));
  }
  return out;
}

function errorText({ code, status, message }) {
  const errors = words().errors;
  return errors[code] ?? errors[status] ?? errors.other(status, message);
}

function drawConversations() {
  const list = stored.list().map((one) => {
    const here = one.id === chat.id;
    const title = one.title || words().untitled;
    const open = make("button", { type: "button", class: "open", title, onclick: () => openChat(stored.read(`chat.${one.id}`) ?? blank()) }, title);
    if (here) open.setAttribute("aria-current", "true");
    const remove = tool("i-bin", `${words().remove}: ${title}`, () => removeChat(one, title));
    remove.classList.add("remove");
    return make("li", here ? { class: "here" } : {}, open, remove);
  });
  $("conversations").replaceChildren(...list);
}

function speak() {
  const table = words();
  document.documentElement.lang = settings.language;
  document.documentElement.dataset.theme = settings.theme;
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = table[node.dataset.t];
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = table[node.dataset.placeholder];
  for (const node of document.querySelectorAll("[data-label]")) {
    node.setAttribute("aria-label", table[node.dataset.label]);
    if (node.tagName === "BUTTON") node.title = table[node.dataset.label];
  }
  $("language").textContent = settings.language === "ja" ? "EN" : "日本語";
  $("language").lang = settings.language === "ja" ? "en" : "ja";
  drawTasks();
  showServer();
  draw();
}

function drawTasks() {
  const follow = nearEnd(); // the buttons take room from the conversation
  $("tasks").replaceChildren(
    ...tasks.map((task) => {
      const name = words().taskNames[task.name] ?? task.label;
      return make("button", { type: "button", onclick: () => chooseTask(task) }, name);
    }),
  );
  if (follow) toEnd();
}

function showServer() {
  $("model").textContent = server.name ?? "…";
  $("reads").textContent = server.name ? words().context(server.context) : "";
}

const nearEnd = () => $("scroll").scrollHeight - $("scroll").scrollTop - $("scroll").clientHeight < 80;

function toEnd() {
  $("scroll").scrollTop = $("scroll").scrollHeight;
}

function fit() {
  const area = $("question");
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
  $("send").disabled = !area.value.trim();
}

// ---------------------------------------------------------------- asking

async function send() {
  const text = $("question").value.trim();
  if (!text || running) return;
  if (editing) chat.messages.length = lastQuestion();
  editing = false;
  chat.messages.push({ role: "user", content: text });
  $("question").value = "";
  fit();
  await answer();
}

async function again() {
  if (running) return;
  chat.messages.length = lastQuestion() + 1;
  await answer();
}

function lastQuestion() {
  return chat.messages.findLastIndex((message) => message.role === "user");
}

function editLast() {
  editing = true;
  $("question").value = chat.messages[lastQuestion()].content;
  fit();
  drawFrame();
  $("question").focus();
}

function stopEditing() {
  editing = false;
  $("question").value = "";
  fit();
  drawFrame();
}

/** Ask the server for the answer to the last question and show it as it grows. */
async function answer() {
  const asked = chat;
  const message = { role: "assistant", content: "" };
  const job = { controller: new AbortController(), chat: asked };
  running = job;
  asked.messages.push(message);
  keep(asked);
  stored.write("here", asked.id);
  draw(tail());
  toEnd();
  announce(words().thinking);
  const view = liveView(message, asked);
  try {
    await listen(asked.messages.slice(0, -1), message, job.controller.signal, view.changed);
  } catch (error) {
    if (error.name === "AbortError") message.end = "stopped";
    else message.error = { code: error.code ?? (error.status ? undefined : "offline"), status: error.status, message: error.message };
  }
  view.close();
  running = null;
  keep(asked);
  draw(tail());
  announce(message.error ? "" : `${words().answered}: ${message.content}`);
}

/** Draws the growing message once a frame, and saves it now and then so that a reload keeps it. */
function liveView(message, asked) {
  let frame = 0;
  let saved = performance.now();
  const paint = () => {
    frame = 0;
    const node = $("log").lastElementChild;
    if (chat !== asked || !node) return;
    const follow = nearEnd();
    node.classList.add("busy");
    node.querySelector(".body").replaceChildren(markdown(message.content));
    if (follow) toEnd();
    if (performance.now() - saved > 1000) {
      saved = performance.now();
      keep(asked);
    }
  };
  paint();
  return { changed: () => (frame ||= requestAnimationFrame(paint)), close: () => cancelAnimationFrame(frame) };
}

/** Stream the answer into `message`; where the conversation is too long, leave its oldest messages out. */
async function listen(history, message, signal, changed) {
  for (let skip = roomFor(history); ; ) {
    const messages = history.slice(skip).filter((one) => one.role === "user" || one.content);
    message.left = skip;
    try {
      return await streamOnce(messages, message, signal, changed);
    } catch (error) {
      if (error.code !== "context_length_exceeded") throw error;
      skip = nextQuestion(history, skip);
      if (skip < 0) throw error;
    }
  }
}

const nextQuestion = (history, after) => history.findIndex((one, number) => number > after && one.role === "user");

/** Where to begin so that an answer still fits, judged by the tokens a character took the last time. */
function roomFor(history) {
  const rate = history.findLast((one) => one.tokensPerCharacter)?.tokensPerCharacter ?? 0;
  const answer = Math.min(Number(settings.max_tokens) || server.context, server.context / 3);
  let skip = 0;
  while (characters(history.slice(skip)) * rate > server.context - answer) {
    const next = nextQuestion(history, skip);
    if (next < 0) break;
    skip = next;
  }
  return skip;
}

const characters = (messages) => messages.reduce((sum, one) => sum + one.content.length + 1, 0);

async function streamOnce(history, message, signal, changed) {
  const system = settings.system.trim() ? [{ role: "system", content: settings.system.trim() }] : [];
  const body = { model: server.name ?? undefined, stream: true, stream_options: { include_usage: true } };
  body.messages = [...system, ...history.map(({ role, content }) => ({ role, content }))];
  for (const name of NUMBERS) if (settings[name] !== "") body[name] = Number(settings[name]);
  const start = performance.now();
  const headers = { "Content-Type": "application/json" };
  const response = await fetch("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!response.ok) throw await refusal(response);
  for await (const event of events(response.body)) {
    if (event.error) throw Object.assign(new Error(event.error.message), { status: 500 });
    const choice = event.choices[0];
    if (choice?.delta.content) {
      message.content += choice.delta.content;
      changed();
    }
    if (choice?.finish_reason) message.end = choice.finish_reason;
    if (event.usage) {
      message.speed = speed(event.usage.completion_tokens, performance.now() - start);
      message.tokensPerCharacter = event.usage.total_tokens / characters([...body.messages, message]);
    }
  }
}

function speed(tokens, milliseconds) {
  const seconds = Math.max(milliseconds / 1000, 0.001);
  return [tokens, seconds.toFixed(1), (tokens / seconds).toFixed(tokens / seconds < 10 ? 1 : 0)];
}

async function refusal(response) {
  const { error } = await response.json().catch(() => ({}));
  return Object.assign(new Error(error?.message ?? response.statusText), { status: response.status, code: error?.code ?? undefined });
}

/** Server-sent events of a stream, parsed; a stream that ends without [DONE] was cut. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { value, done } = await reader.read().catch(rethrowAsCut);
    if (done) throw Object.assign(new Error("cut"), { code: "broken" });
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part === "data: [DONE]") return;
      if (part.startsWith("data: ")) yield JSON.parse(part.slice(6));
    }
  }
}

function rethrowAsCut(error) {
  throw error.name === "AbortError" ? error : Object.assign(new Error("cut"), { code: "broken" });
}

// ---------------------------------------------------------------- conversations

function openChat(conversation) {
  showSide(false);
  if (conversation.id === chat.id) return;
  stopRunning();
  chat = conversation;
  editing = false;
  stored.write("here", chat.id);
  draw();
  $("question").focus();
}

function removeChat(conversation, title) {
  if (!confirm(words().removeSure(title))) return;
  if (conversation.id === chat.id) chat.removed = true; // so that an answer under way is not saved again
  stored.remove(`chat.${conversation.id}`);
  shelf.delete(conversation.id);
  if (conversation.id === chat.id) openChat(blank());
  else drawConversations();
}

function stopRunning() {
  running?.controller.abort();
}

function exportAll() {
  const page = JSON.stringify({ format: "yatsude-conversations", conversations: stored.conversations() }, null, 1);
  const link = make("a", { href: URL.createObjectURL(new Blob([page], { type: "application/json" })), download: "yatsude.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function showSide(shown) {
  document.body.classList.toggle("side-shown", shown);
  $("shade").hidden = !shown;
  $("side-open").setAttribute("aria-expanded", String(shown));
  if (shown) $("side-close").focus();
}

// ---------------------------------------------------------------- tasks and settings

function currentTask() {
  return tasks.find((task) => task.text && $("question").value.startsWith(task.text)) ?? null;
}

function chooseTask(task) {
  const old = currentTask();
  $("question").value = task.text + $("question").value.slice(old?.text.length ?? 0);
  fit();
  drawFrame();
  $("question").focus();
  $("question").setSelectionRange(task.text.length, $("question").value.length);
}

function change(values) {
  Object.assign(settings, values);
  stored.write("settings", settings);
  speak();
}

function openSettings() {
  for (const name of IN_SETTINGS) $(`set-${name}`).value = settings[name];
  $("settings").showModal();
}

function closeSettings() {
  const fields = IN_SETTINGS.map((name) => $(`set-${name}`));
  const wrong = fields.find((field) => !field.checkValidity());
  if (wrong) wrong.reportValidity();
  else $("settings").close();
}

function readSettings() {
  const valid = IN_SETTINGS.filter((name) => $(`set-${name}`).checkValidity());
  change(Object.fromEntries(valid.map((name) => [name, $(`set-${name}`).value])));
}

// ---------------------------------------------------------------- keys and clicks

let composedAt = -Infinity;
$("question").addEventListener("compositionend", (event) => (composedAt = event.timeStamp));

$("question").addEventListener("keydown", (event) => {
  // The Enter that accepts a conversion must not send; Safari reports it just after the composition has ended.
  const composing = event.isComposing || event.keyCode === 229 || event.timeStamp - composedAt < SAFARI_ENTER_MS;
  if (event.key === "Escape" && editing && !composing) stopEditing();
  if (event.key !== "Enter" || event.shiftKey || composing) return;
  if (settings.enter === "newline" && !event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  send();
});
$("question").addEventListener("input", () => {
  fit();
  drawFrame();
});
$("send").addEventListener("click", send);
$("stop").addEventListener("click", () => {
  stopRunning();
  $("question").focus();
});
$("edit-cancel").addEventListener("click", stopEditing);
$("new").addEventListener("click", () => openChat(blank()));
$("export").addEventListener("click", exportAll);
$("language").addEventListener("click", () => change({ language: settings.language === "ja" ? "en" : "ja" }));
$("settings-open").addEventListener("click", openSettings);
$("settings-close").addEventListener("click", closeSettings);
$("settings-done").addEventListener("click", closeSettings);
$("settings").addEventListener("close", readSettings);
$("settings-reset").addEventListener("click", () => {
  for (const name of IN_SETTINGS) $(`set-${name}`).value = DEFAULTS[name];
});
$("side-open").addEventListener("click", () => showSide(true));
for (const id of ["side-close", "shade"]) $(id).addEventListener("click", () => showSide(false));
$("scroll").addEventListener("scroll", () => ($("to-end").hidden = nearEnd()));
$("to-end").addEventListener("click", toEnd);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || $("settings").open) return;
  if (document.body.classList.contains("side-shown")) showSide(false);
  else if (running) stopRunning();
});
window.addEventListener("storage", () => {
  readShelf(); // another tab of this page wrote
  drawConversations();
});

async function meetServer() {
  try {
    const { data } = await (await fetch("/v1/models")).json();
    server = { name: data[0].id, context: data[0].max_model_len };
    tasks = [{ name: "plain", text: "" }, ...(await (await fetch("/tasks")).json()).tasks];
  } catch {
    $("status").textContent = words().errors.offline;
  }
  showServer();
  drawTasks();
}

readShelf();
chat = stored.read(`chat.${stored.read("here")}`) ?? chat;
speak();
fit();
meetServer();
$("question").focus();
