"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);

// Dark or light: as the system has it, until a person says otherwise.
const root = document.documentElement;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const followSystem = () => { root.dataset.theme = prefersDark.matches ? "dark" : "light"; };
followSystem();
prefersDark.addEventListener("change", followSystem);
one("#theme").addEventListener("click", () => {
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
});

// Search, filter, sort.
const cards = all(".cards > .card");
for (const card of cards) card.words = card.textContent.toLowerCase();
const sorters = {
  seconds: (a, b) => b.dataset.seconds - a.dataset.seconds,
  bytes: (a, b) => b.dataset.bytes - a.dataset.bytes,
  members: (a, b) => b.dataset.members - a.dataset.members,
  score: (a, b) => a.dataset.score - b.dataset.score,
  name: (a, b) => a.dataset.name.localeCompare(b.dataset.name),
};
function filter() {
  const wanted = one("#search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const kinds = all("#filters [aria-pressed=true]").map((chip) => chip.dataset.kind);
  let shown = 0;
  for (const card of cards) {
    const fits = wanted.every((word) => card.words.includes(word))
      && card.dataset.kinds.split(" ").some((kind) => kinds.includes(kind));
    card.hidden = !fits;
    shown += fits;
  }
  one("#shown").textContent = shown === cards.length ? "" : `${shown} of ${cards.length} shown`;
}
one("#search").addEventListener("input", filter);
one("#filters").addEventListener("click", (event) => {
  const chip = event.target.closest("button");
  if (!chip) return;
  chip.setAttribute("aria-pressed", chip.getAttribute("aria-pressed") !== "true");
  filter();
});
one("#sort").addEventListener("change", (event) => {
  for (const list of all(".cards")) {
    list.append(...[...list.children].sort(sorters[event.target.value]));
  }
});

// One player for all. Within a pair, switching sides stays at the same moment of the sound.
const audio = new Audio();
let playing = null; // {button, pair, side, until}
function stop() {
  audio.pause();
  if (!playing) return;
  playing.button.classList.remove("playing");
  playing.button.textContent = "▶";
  if (playing.pair) one(".cursor", playing.pair)?.style.removeProperty("display");
  playing = null;
}
function play(button, src, at, pair = null, side = null, until = Infinity) {
  stop();
  playing = { button, pair, side, until };
  button.classList.add("playing");
  button.textContent = "❚❚";
  audio.src = src;
  audio.currentTime = Math.max(0, at);
  audio.play().catch(() => {
    if (playing?.button !== button || !audio.error) return;
    button.title = "This browser cannot play the file";
    button.classList.add("unplayable");
    stop();
  });
}
// The time of a that a pair shows at a share of its width, and what side b has there.
const number = (pair, name) => Number(pair.dataset[name]);
const toB = (pair, t) => number(pair, "bStart") + (t - number(pair, "aStart")) * number(pair, "speed");
const toA = (pair, t) => number(pair, "aStart") + (t - number(pair, "bStart")) / number(pair, "speed");
function playSide(pair, side, t) {
  const button = one(`.play[data-side=${side}]`, pair);
  const src = pair.dataset[side + "Src"];
  if (!button || !src) return;
  const end = number(pair, "aEnd");
  const until = t < end ? end : Infinity;
  const place = side === "a" ? (x) => x : (x) => toB(pair, x);
  play(button, src, place(t), pair, side, place(until));
}
const nowInA = () => playing.side === "a" ? audio.currentTime : toA(playing.pair, audio.currentTime);
audio.addEventListener("ended", stop);
(function follow() {
  if (playing) {
    if (audio.currentTime > playing.until) stop();
    else if (playing.pair) {
      const x = (nowInA() - number(playing.pair, "from")) / number(playing.pair, "span");
      const cursor = one(".cursor", playing.pair);
      if (cursor) Object.assign(cursor.style, { display: x >= 0 && x <= 1 ? "block" : "none", left: `${100 * x}%` });
    }
  }
  requestAnimationFrame(follow);
})();
document.addEventListener("click", (event) => {
  const button = event.target.closest("button.listen, button.play");
  const picture = event.target.closest(".picture");
  if (button && playing?.button === button) stop();
  else if (button?.matches(".listen")) play(button, button.dataset.src, 0);
  else if (button) {
    const pair = button.closest(".pair");
    playSide(pair, button.dataset.side, playing?.pair === pair ? nowInA() : number(pair, "aStart"));
  } else if (picture) {
    const pair = picture.closest(".pair");
    const box = picture.getBoundingClientRect();
    const t = number(pair, "from") + number(pair, "span") * (event.clientX - box.left) / box.width;
    playSide(pair, event.clientY < box.top + box.height / 2 ? "a" : "b", t);
  }
});

// Verdicts, to be saved for "earmark dedup judge".
const judged = new Map();
document.addEventListener("click", (event) => {
  const button = event.target.closest(".verdict");
  if (!button) return;
  const { a, b } = button.closest(".pair").dataset;
  const key = JSON.stringify([a, b]);
  const no = !judged.delete(key);
  if (no) judged.set(key, [a, b]);
  for (const pair of all(".pair")) {
    if (pair.dataset.a !== a || pair.dataset.b !== b) continue;
    pair.classList.toggle("judged", no);
    one(".verdict", pair).setAttribute("aria-pressed", no);
  }
  one("#judged").textContent = judged.size;
  one("#tray").hidden = judged.size === 0;
});
one("#save").addEventListener("click", () => {
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const lines = [...judged.values()].map((names) => [...names.map(quoted), "no"].join(","));
  const blob = new Blob([["a,b,verdict", ...lines, ""].join("\r\n")], { type: "text/csv" });
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: "verdicts.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
});
addEventListener("beforeunload", (event) => { if (judged.size) event.preventDefault(); });
filter();
