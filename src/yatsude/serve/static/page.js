// The chat page. It talks to the server it came from and to nobody else; conversations stay in this browser.

import { markdown } from "./markdown.js";
import { $, announce, copier, make, symbol, tool } from "./nodes.js";
import { words } from "./words.js";

const DEFAULTS = { language: "ja", theme: "", enter: "", system: "", temperature: "", top_p: "", max_tokens: "256", seed: "" };
const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];
const IN_SETTINGS = ["system", ...NUMBERS, "theme", "enter"];
const SAFARI_ENTER_MS = 50;
const REDRAWN = 4; // the last two questions and answers: only their buttons change

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
  document.documentElement.lang = settings.language;
  const table = words();
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
