// Markdown as the page shows it.

import { copier, make } from "./nodes.js";

/** Markdown to DOM nodes. Text only ever becomes text nodes, so nothing a model writes can become markup. */
export function markdown(source) {
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
