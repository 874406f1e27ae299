// Pieces the page is drawn with.

import { words } from "./words.js";

export const $ = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name === "onclick") node.addEventListener("click", value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export function symbol(name, className = "") {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#${name}`);
  svg.setAttribute("aria-hidden", "true");
  if (className) svg.setAttribute("class", className);
  svg.append(use);
  return svg;
}

export function tool(icon, label, act) {
  return make("button", { type: "button", class: "icon", "aria-label": label, title: label, onclick: act }, symbol(icon));
}

export function copier(text) {
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

export const announce = (text) => ($("announce").textContent = text);
