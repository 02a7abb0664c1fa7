"use strict";
const about = JSON.parse(document.getElementById("about").textContent);
const cases = JSON.parse(document.getElementById("data").textContent);
const PER_PAGE = 24;
const UNUSUAL = 3.5;
const NAMES = { a: "accepted", r: "rejected", u: "undecided" };
const at = (id) => document.getElementById(id);

// Decisions: case → {mark: "a" | "r" | "u", note}. What this browser knows goes before the store's own list.
const byId = new Map(cases.map((one) => [one.id, one]));
const decisions = new Map();

function load() {
  decisions.clear();
  for (const one of cases) if (one.excluded !== null) decisions.set(one.id, { mark: "r", note: one.excluded });
  try {
    const kept = JSON.parse(localStorage.getItem(about.key) || "[]");
    for (const [id, told] of kept) if (byId.has(id)) decisions.set(id, told);
  } catch {
    say("This browser kept no decisions of this store that can be read.");
  }
}

function save() {
  try {
    localStorage.setItem(about.key, JSON.stringify([...decisions]));
  } catch {
    say("This browser cannot keep decisions: export them before you close the page.");
  }
}

const decision = (one) => decisions.get(one.id) || { mark: "u", note: "" };

function decide(one, mark, note = decision(one).note) {
  decisions.set(one.id, { mark, note });
  save();
  const card = cardOf(one);
  if (card) showDecision(card, one);
  count();
}

// Which cases are shown: settled when filter, sort or search change, so that nothing moves under one's eyes.
let shown = cases;
let page = 0;
let current = null;

function choose() {
  const filter = at("filter").value;
  const part = at("search").value.trim().toLowerCase();
  shown = cases.filter((one) => (filter === "all" || one.split === filter || NAMES[decision(one).mark] === filter)
    && one.id.toLowerCase().includes(part));
  if (at("sort").value === "name") {
    shown = [...shown].sort((x, y) => x.id.localeCompare(y.id, "en", { numeric: true }));
  }
  draw(0);
}

const pages = () => Math.max(1, Math.ceil(shown.length / PER_PAGE));
const onPage = () => shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE);

function draw(wanted, first = true) {
  page = Math.min(Math.max(wanted, 0), pages() - 1);
  const here = onPage();
  at("cases").replaceChildren(...here.map(card));
  if (!here.length) at("cases").append(element("p", "", "No case to show."));
  at("place").textContent = `page ${page + 1} of ${pages()}`;
  at("previous").disabled = page === 0;
  at("next").disabled = page === pages() - 1;
  current = here.length ? (first ? here[0] : here[here.length - 1]) : null;
  for (const article of at("cases").children) article.tabIndex = article.dataset.case === current?.id ? 0 : -1;
  window.scrollTo(0, 0);
  count();
}

function count() {
  const tally = { a: 0, r: 0, u: 0 };
  for (const one of cases) tally[decision(one).mark] += 1;
  at("counts").textContent = `${tally.u} undecided · ${tally.a} accepted · ${tally.r} rejected`;
}

function element(name, style = "", text = "") {
  const made = document.createElement(name);
  if (style) made.className = style;
  if (text) made.textContent = text;
  return made;
}

function card(one) {
  const article = element("article");
  article.dataset.case = one.id;
  article.tabIndex = -1;
  article.style.setProperty("--count", about.tiles.length);
  const told = element("div", "about");
  const title = element("h2", "", one.id);
  const score = element("span", one.score === null || one.score >= UNUSUAL ? "score high" : "score",
    one.score === null ? "damaged" : one.score.toFixed(1));
  score.title = "How unusual, in robust standard deviations";
  const reasons = element("ul");
  reasons.append(...one.reasons.map((reason) => element("li", "", reason)));
  const choice = element("div", "choice");
  for (const [mark, style, text] of [["a", "accept", "Accept"], ["r", "reject", "Reject"]]) {
    const button = element("button", style, text);
    button.type = "button";
    button.addEventListener("click", () => decide(one, decision(one).mark === mark ? "u" : mark));
    choice.append(button);
  }
  const note = element("input", "note");
  note.type = "text";
  note.placeholder = "why (Enter)";
  note.setAttribute("aria-label", `Why ${one.id} is rejected`);
  note.addEventListener("input", () => {
    decisions.set(one.id, { mark: "r", note: note.value });
    save();
  });
  title.prepend(score);
  told.append(title, element("p", "facts", facts(one)), reasons, choice, note);
  article.append(told, tiles(one));
  article.setAttribute("aria-label", one.id);
  article.addEventListener("focusin", () => { select(one); });
  showDecision(article, one);
  return article;
}

// Lines break between facts, not within one.
const facts = (one) => [one.split, ...one.facts].map((fact) => fact.replaceAll(" ", "\u00a0")).join(" · ");

function tiles(one) {
  const row = element("div", "tiles");
  if (!one.strip) return row;
  about.tiles.forEach((name, i) => {
    const tile = element("div", "tile");
    tile.setAttribute("role", "img");
    tile.setAttribute("aria-label", name);
    tile.style.backgroundImage = `url("data:image/jpeg;base64,${one.strip}")`;
    tile.style.backgroundPosition = `${(100 * i) / Math.max(1, about.tiles.length - 1)}% 0`;
    tile.append(element("span", "", name));
    row.append(tile);
  });
  return row;
}

function showDecision(article, one) {
  const { mark, note } = decision(one);
  article.className = NAMES[mark];
  article.querySelector(".accept").setAttribute("aria-pressed", mark === "a");
  article.querySelector(".reject").setAttribute("aria-pressed", mark === "r");
  const field = article.querySelector(".note");
  field.hidden = mark !== "r";
  if (document.activeElement !== field) field.value = note;
}

const cardOf = (one) => [...at("cases").children].find((article) => article.dataset.case === one.id);

function select(one) {
  for (const article of at("cases").children) article.tabIndex = -1;
  current = one;
  const article = cardOf(one);
  if (article) article.tabIndex = 0;
  return article;
}

function focus(one) {
  if (!one) return;
  const article = select(one);
  article.focus({ preventScroll: true });
  article.scrollIntoView({ block: "nearest" });
}

function move(step) {
  const here = onPage();
  const next = here.indexOf(current) + step;
  if (here[next]) focus(here[next]);
  else turn(step, step > 0);
}

function turn(step, first = true) {
  if (page + step < 0 || page + step >= pages()) return;
  draw(page + step, first);
  focus(current);
}

function say(text) {
  at("status").textContent = text;
}

// exclude.csv, as `xr2ct` reads it.
const quoted = (text) => (/[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const reasonOf = (one) => decision(one).note.trim() || one.reasons.join("; ") || "rejected by eye";

function exclude() {
  const rejected = cases.filter((one) => decision(one).mark === "r");
  rejected.sort((x, y) => (x.id < y.id ? -1 : 1));
  const lines = rejected.map((one) => `${quoted(one.id)},${quoted(reasonOf(one))}\n`);
  return { text: `case,reason\n${lines.join("")}`, many: rejected.length };
}

function exportFile() {
  const { text, many } = exclude();
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "exclude.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say(`exclude.csv with ${many} rejected ${many === 1 ? "case" : "cases"} is in your downloads.`);
}

function records(text) {
  const rows = [[""]];
  let inside = false;
  for (let i = 0; i < text.length; i += 1) {
    const row = rows[rows.length - 1];
    const sign = text[i];
    if (inside && sign === '"' && text[i + 1] === '"') { row[row.length - 1] += '"'; i += 1; }
    else if (sign === '"') inside = !inside;
    else if (!inside && sign === ",") row.push("");
    else if (!inside && sign === "\n") rows.push([""]);
    else if (inside || sign !== "\r") row[row.length - 1] += sign;
  }
  return rows.map((row) => row.map((cell) => cell.trim())).filter((row) => row.some((cell) => cell));
}

async function importFile(file) {
  const [header, ...rows] = records((await file.text()).replace(/^\ufeff/, ""));
  if (!header || header.join() !== "case,reason") {
    say(`${file.name}: expected a CSV with the header case,reason.`);
    return;
  }
  const unknown = rows.filter(([id]) => !byId.has(id)).map(([id]) => id);
  for (const [id, reason = ""] of rows) if (byId.has(id)) decisions.set(id, { mark: "r", note: reason });
  save();
  draw(page);
  const many = rows.length - unknown.length;
  say(`${file.name}: ${many} ${many === 1 ? "case" : "cases"} rejected.`
    + (unknown.length ? ` Not in this store: ${unknown.slice(0, 5).join(", ")}${unknown.length > 5 ? " …" : ""}` : ""));
}

const KEYS = {
  j: () => move(1), ArrowDown: () => move(1), ArrowRight: () => move(1),
  k: () => move(-1), ArrowUp: () => move(-1), ArrowLeft: () => move(-1),
  n: () => turn(1), p: () => turn(-1),
  a: () => current && decide(current, "a"),
  r: () => current && decide(current, "r"),
  u: () => current && decide(current, "u"),
  A: () => onPage().filter((one) => decision(one).mark === "u").forEach((one) => decide(one, "a")),
  z: () => { document.body.classList.toggle("large"); focus(current); },
  "?": () => at("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || at("keys").open) return;
  const field = event.target.closest("input, select");
  if (field) {
    if (field.matches(".note, #search") && ["Enter", "Escape"].includes(event.key)) {
      event.preventDefault();
      focus(current);
    }
    return;
  }
  if (event.key === "Enter" && !event.target.closest("button")) {
    if (current && decision(current).mark === "r") cardOf(current).querySelector(".note").focus();
  } else if (Object.hasOwn(KEYS, event.key)) KEYS[event.key]();
  else return;
  event.preventDefault();
});

at("filter").addEventListener("change", choose);
at("sort").addEventListener("change", choose);
at("search").addEventListener("input", choose);
at("previous").addEventListener("click", () => turn(-1));
at("next").addEventListener("click", () => turn(1));
at("help").addEventListener("click", () => at("keys").showModal());
at("export").addEventListener("click", exportFile);
at("import").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", async () => {
  if (at("file").files.length) await importFile(at("file").files[0]);
  at("file").value = "";
});
// The same page in another tab decides too.
window.addEventListener("storage", (event) => {
  if (event.key !== about.key) return;
  load();
  for (const one of onPage()) showDecision(cardOf(one), one);
  count();
});

load();
choose();
focus(current);
