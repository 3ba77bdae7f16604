// The page: what happens when something is chosen, and how the answers are shown.

import { about as askAbout, ask, askForFile, newest, source, upload } from "./server.js";
import { Stage } from "./stage.js";
import { OFF, picture, remember, remembered, restore, state } from "./state.js";

const $ = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const ROWS = 8; // classes of the first grid
const STRIP = 9;

let run; // what the server said of the run
let stage;
let grid = []; // the pictures of the grid: {label, index, png}
let options = null; // those that `grid` was drawn with
let command = "";
let seen = null; // the last answer about the picture
let maps = new Map(); // "network/layer" -> [{png, peak, distance}], by the points' numbers
let drawn = { picture: null, smooth: null, points: [] }; // what `maps` are of
let large = null; // the map that the stage shows instead of the picture: {layer, point}
let picking = false;

// --- words -----------------------------------------------------------------------------------------------------------

function complain(error) {
  $("error").querySelector("p").textContent = error.message ?? String(error);
  $("error").hidden = false;
}
const calm = () => { $("error").hidden = true; };
const className = (label) => run.classes[label] ?? "";
const nameOf = ({ label, seed, index }) => [className(label), `seed ${seed}`, `no.\u00a0${index + 1}`].filter(Boolean).join(", ");
function title() {
  if (state.own) return `${state.own.name}, ${state.own.width} × ${state.own.height} px`;
  if (!state.start) return "Picture";
  if (picture().kind === "sample") return nameOf(state.start);
  return `Between ${nameOf(state.start)} and ${nameOf(state.end)}`;
}
const fileName = () => (state.own ? "own" : [className(state.start.label) || "picture", state.start.seed, state.start.index + 1].join("-"))
  .replace(/[^\p{L}\p{N}-]+/gu, "-");

// --- the grid --------------------------------------------------------------------------------------------------------

function askedGrid() {
  const classes = run.classes.length;
  const labels = !classes ? [] : state.grid.label === null ? [...Array(Math.min(classes, ROWS)).keys()] : [state.grid.label];
  const most = Math.max(4, Math.min(24, Math.floor(1.5 / run.seconds))); // pictures that about a second and a half will do
  const count = labels.length > 1 ? Math.max(1, Math.min(6, Math.floor((2 * most) / labels.length))) : most;
  return { labels, count, seed: state.grid.seed, truncation: state.grid.truncation };
}

const drawGrid = newest(async (open) => {
  $("grid").classList.add("busy");
  try {
    const asked = askedGrid();
    const found = await ask("grid", asked);
    calm();
    const [start, end] = [state.start, state.end].map((one) => grid.findIndex((other) => same(whole(other), one)));
    ({ pictures: grid, command } = found);
    options = asked;
    showGrid(asked);
    if (open || !state.start) openPicture(grid[0]);
    else if (start >= 0) { // what was open stays open in its place, so that one sees what an option does to it
      state.start = whole(grid[Math.min(start, grid.length - 1)]);
      if (end >= 0) state.end = whole(grid[Math.min(end, grid.length - 1)]);
      showAll();
    }
    showCommands();
  } finally {
    $("grid").classList.remove("busy");
  }
  remember();
}, complain);

function showGrid({ labels, count }) {
  const rows = labels.length > 1;
  const columns = rows ? count : Math.min(6, count);
  $("grid").style.gridTemplateColumns = `${rows ? "minmax(2.5rem, 5rem) " : ""}repeat(${columns}, minmax(0, 1fr))`;
  const hadFocus = $("grid").contains(document.activeElement);
  $("grid").replaceChildren();
  grid.forEach((one, i) => {
    if (rows && i % count === 0) $("grid").append(make("span", { className: "row", textContent: className(one.label), title: className(one.label) }));
    const button = make("button", { type: "button", tabIndex: i ? -1 : 0 }, make("img", { src: source(one.png), alt: nameOf({ ...state.grid, ...one }) }));
    button.addEventListener("click", () => (picking ? endAt(one) : openPicture(one, true)));
    $("grid").append(button);
  });
  $("grid").dataset.columns = columns;
  markGrid();
  if (hadFocus) gridButtons()[0]?.focus();
}

const gridButtons = () => [...$("grid").querySelectorAll("button")];
const same = (a, b) => a && b && a.seed === b.seed && a.index === b.index && a.label === b.label && a.truncation === b.truncation;
const whole = ({ label, index }) => ({ seed: options.seed, index, label, truncation: options.truncation });

function markGrid() {
  gridButtons().forEach((button, i) => {
    button.setAttribute("aria-pressed", String(!state.own && same(whole(grid[i]), state.start)));
    button.classList.toggle("end", same(whole(grid[i]), state.end) === true);
  });
}

function gridKey(event) {
  const buttons = gridButtons();
  const i = buttons.indexOf(document.activeElement);
  const columns = Number($("grid").dataset.columns);
  const to = { ArrowLeft: i - 1, ArrowRight: i + 1, ArrowUp: i - columns, ArrowDown: i + columns, Home: 0, End: buttons.length - 1 }[event.key];
  if (i < 0 || to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  if (!buttons[to]) return;
  buttons[i].tabIndex = -1;
  buttons[to].tabIndex = 0;
  buttons[to].focus();
}

// --- the picture -----------------------------------------------------------------------------------------------------

function openPicture(one, byHand = false) {
  state.own = null;
  state.start = whole(one);
  state.latent = state.label = 0;
  if (!state.end) state.end = whole(grid[(one.index + (options.labels.length > 1 ? options.count + 1 : 1)) % grid.length]);
  afterOpening(byHand);
}

function afterOpening(byHand) {
  large = null;
  markGrid();
  showWalk();
  look();
  drawStrip();
  if (!byHand) return;
  $("stage").scrollIntoView({ block: "nearest", behavior: "smooth" });
  if ($("grid").contains(document.activeElement) && document.activeElement.matches(":focus-visible")) $("stage").focus({ preventScroll: true });
}

const look = newest(async (choose = false) => {
  const asked = { picture: picture(), smooth: state.smooth };
  if (!asked.picture) return;
  const key = JSON.stringify(asked.picture);
  const fresh = drawn.picture !== key || drawn.smooth !== state.smooth;
  const points = state.points.map((point) => [...point]);
  const old = (i) => !fresh && drawn.points[i]?.[0] === points[i][0] && drawn.points[i]?.[1] === points[i][1];
  const only = points.map((_, i) => i).filter((i) => !old(i));
  const found = await ask("look", choose ? { ...asked, choose } : { ...asked, points, only });
  calm();
  if (choose) {
    state.points = found.points;
    stage.setPoints(found.points);
  }
  seen = found;
  const before = fresh || choose ? new Map() : maps;
  maps = new Map(found.layers.map((layer) => {
    const name = `${layer.network}/${layer.name}`;
    return [name, found.points.map((_, i) => layer.maps[i] ?? before.get(name)?.[i])];
  }));
  drawn = { picture: key, smooth: asked.smooth, points: found.points };
  showPicture();
  showMaps();
  showScores();
  showCommands();
  remember();
}, (error) => {
  drawn = { picture: null, smooth: null, points: [] };
  complain(error);
});

function showPicture() {
  $("title").textContent = title();
  const shown = large && maps.get(large.layer)?.[large.point];
  if (!shown) large = null;
  stage.show(source(shown ? shown.png : seen.png), shown ? `Map of point ${large.point + 1} over the picture` : title());
  $("stage").classList.toggle("map", Boolean(shown));
  $("stage").style.setProperty("--of", shown ? run.colours[large.point] : "");
  $("place").textContent = shown ? `Point ${large.point + 1} in ${layerName(large.layer)}. Esc: the picture again` : "";
  for (const [id, off] of [["remove", !state.points.length], ["clear", !state.points.length], ["save-maps", !state.points.length || !maps.size]]) $(id).disabled = off;
}

function layerName(key) {
  const [network, name] = key.split("/");
  return `${network[0].toUpperCase()}${network.slice(1)}, layer ${name}`;
}

function showMaps() {
  const parts = [];
  for (const { network, name, grid: size, keys, gamma } of run.layers) {
    const key = `${network}/${name}`;
    const found = maps.get(key);
    if (!found) continue;
    const facts = make("span", { className: "facts", textContent: ` ${size} × ${size} places look at ${keys} × ${keys}, γ ${gamma.toFixed(3)}` });
    parts.push(make("h3", {}, layerName(key), facts));
    parts.push(make("div", { className: "tiles" }, ...found.map((map, i) => tile(key, map, i))));
  }
  const notes = [];
  if (state.own && run.layers.some(({ network }) => network === "generator")) notes.push(`The generator has not drawn this picture, so ${run.missing.discriminator ? "nothing looks" : "only the discriminator’s layers look"} at it.`);
  for (const what of ["generator_maps", "discriminator_maps"]) if (run.missing[what]) notes.push(`No maps: ${run.missing[what]}.`);
  if (run.missing.discriminator) notes.push(`Without the discriminator’s maps and scores: ${run.missing.discriminator}.`);
  if (!state.points.length && maps.size) parts.splice(0, parts.length, make("p", { className: "none", textContent: "Set a point on the picture, and its maps appear here: the brighter, the more that place counts for the point." }));
  else if (parts.length) parts.push(make("p", { className: "help", textContent: "The brighter, the more the point attends to it; each map goes up to its own peak. Below: the peak in multiples of even attention, and the mean distance to what is attended to. Click a map to enlarge it." }));
  const focused = document.activeElement?.dataset?.map;
  $("maps").replaceChildren(...parts, ...notes.map((text) => make("p", { className: "help", textContent: text })));
  if (focused) $("maps").querySelector(`[data-map="${CSS.escape(focused)}"]`)?.focus();
}

function tile(key, map, i) {
  const pressed = large?.layer === key && large?.point === i;
  const button = make("button", { type: "button" }, make("img", { src: map ? source(map.png) : "", alt: `${layerName(key)}: map of point ${i + 1}` }));
  button.dataset.map = `${key}/${i}`;
  button.setAttribute("aria-pressed", String(pressed));
  button.addEventListener("click", () => {
    large = pressed ? null : { layer: key, point: i };
    showPicture();
    showMaps();
  });
  const peak = map ? (map.peak < 9.95 ? map.peak.toFixed(1) : map.peak.toFixed(0)) : "";
  const figure = make("figure", {}, button, make("figcaption", {}, make("b", { textContent: i + 1 }), map ? `${peak}× · ${map.distance.toFixed(0)} px` : ""));
  figure.style.setProperty("--of", run.colours[i]);
  return figure;
}

function showScores() {
  const scores = seen.scores;
  $("score").hidden = !scores;
  if (!scores) return;
  const end = state.own ? null : picture();
  const own = !end ? [] : end.kind === "sample" ? [end.label] : [end.start.label, end.end.label];
  let order = scores.map((_, i) => i);
  if (order.length > ROWS) order = order.sort((a, b) => scores[b] - scores[a]).filter((label, i) => i < ROWS || own.includes(label));
  const marks = Object.entries(run.logits);
  const values = [0, ...order.map((i) => scores[i]), ...marks.map(([, value]) => value)];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const place = (value) => ((value - low) / Math.max(1e-9, high - low)) * 96 + 2;
  $("scores").replaceChildren(...order.flatMap((label) => {
    const bar = make("div", { className: "bar" });
    bar.style.left = `${Math.min(place(0), place(scores[label]))}%`;
    bar.style.width = `${Math.abs(place(scores[label]) - place(0))}%`;
    const track = make("div", { className: "track" }, bar);
    for (const [kind, value] of [["zero", 0], ...marks]) {
      const mark = make("div", { className: `mark ${kind}` });
      mark.style.left = `${place(value)}%`;
      track.append(mark);
    }
    const value = scores[label];
    return [
      make("span", { className: `name${own.includes(label) ? " own" : ""}`, textContent: run.classes.length ? `as ${className(label)}` : "score", title: className(label) }),
      track,
      make("span", { textContent: `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}` }),
    ];
  }));
  const words = { real: "real pictures", fake: "generated ones" };
  $("score-help").replaceChildren("Higher: more like the pictures of training. ", ...marks.flatMap(([kind, value], i) => [
    i ? ", " : "On average at the end of training: ", make("span", { className: `swatch ${kind}` }), `${words[kind]} ${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`,
  ]), marks.length ? "." : "");
}

// --- walks -----------------------------------------------------------------------------------------------------------

function showWalk() {
  $("walk").hidden = Boolean(state.own) || !state.start;
  if ($("walk").hidden) return;
  const classes = run.classes.length > 1;
  for (const id of ["between-classes", "together-label", "end-class-label"]) $(id).hidden = !classes;
  $("latent").value = Math.round(state.latent * 100);
  $("class").value = Math.round(state.label * 100);
  $("latent-value").textContent = `${$("latent").value} %`;
  const [from, to] = [className(state.start.label), className(state.end.label)];
  $("class-value").textContent = from === to ? from : state.label === 0 ? from : state.label === 1 ? to : `${100 - $("class").value} % ${from}, ${$("class").value} % ${to}`;
  $("class").disabled = state.start.label === state.end.label;
  $("together").checked = state.together;
  $("end-class").value = state.end.label;
  $("start-name").textContent = nameOf(state.start);
  $("end-name").textContent = nameOf(state.end);
}

const drawStrip = newest(async () => {
  if (state.own || !state.start) return;
  const end = (kind) => ({ kind: "sample", ...state[kind] });
  const asked = { walk: { kind: "walk", start: end("start"), end: end("end"), latent: 0, label: 0 }, steps: STRIP };
  if (!state.together) asked.label = state.label;
  const { pictures } = await ask("strip", asked);
  if (state.together) {
    $("start").src = source(pictures[0]);
    $("end").src = source(pictures.at(-1));
  } else for (const kind of ["start", "end"]) {
    const { pictures: [one] } = await ask("strip", { walk: { ...asked.walk, start: end(kind), end: end(kind) }, steps: 2 });
    $(kind).src = source(one);
  }
  $("start").alt = nameOf(state.start);
  $("end").alt = nameOf(state.end);
  $("strip").replaceChildren(...pictures.map((png, i) => {
    const share = i / (STRIP - 1);
    const button = make("button", { type: "button" }, make("img", { src: source(png), alt: `${Math.round(share * 100)} %` }));
    button.addEventListener("click", () => walkTo(share, state.together ? share : state.label));
    return button;
  }));
  markStrip();
}, complain);

function markStrip() {
  [...$("strip").children].forEach((button, i) => button.setAttribute("aria-pressed", String(Math.abs(state.latent - i / (STRIP - 1)) < 0.005)));
}

function walkTo(latent, label) {
  if (state.start.label === state.end.label) label = latent === 0 ? 0 : label;
  const classMoved = !state.together && label !== state.label;
  Object.assign(state, { latent, label });
  showWalk();
  markStrip();
  look();
  if (classMoved) drawStrip();
}

function endAt(one) {
  state.end = whole(one);
  pick(false);
  $("pick").focus();
  markGrid();
  showWalk();
  drawStrip();
  if (picture().kind === "walk") look();
}

function pick(on) {
  picking = on;
  $("picking").hidden = !on;
  $("pick").setAttribute("aria-pressed", String(on));
  if (on) {
    $("choose").scrollIntoView({ block: "nearest", behavior: "smooth" });
    $("grid").querySelector("[tabindex='0']")?.focus();
  }
}

// --- one's own pictures and files ------------------------------------------------------------------------------------

async function take(file) {
  try {
    if (!file) return;
    if (/\.json$/i.test(file.name)) {
      if (file.size > 4e6) throw new Error(`${file.name}: not a settings file of this page.`);
      let saved;
      try { saved = JSON.parse(await file.text()).state; } catch { /* said below */ }
      if (!saved) throw new Error(`${file.name}: not a settings file of this page.`);
      restore(saved, run);
      showOptions();
      stage.setPoints(state.points);
      await drawGrid(!state.start && !state.own);
      if (state.start || state.own) showAll();
      return;
    }
    if (file.size > run.max_upload) throw new Error(`${file.name}: ${(file.size / 1e6).toFixed(0)} MB is too large; ${run.max_upload / 1e6} MB at most.`);
    const found = await upload(file).catch((error) => { throw new Error(`${file.name}: ${error.message}`); });
    calm();
    state.own = { ...found, name: file.name };
    large = null;
    afterOpening(true);
  } catch (error) {
    complain(error);
  }
}

function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function saving(task) {
  try { await task(); calm(); } catch (error) { complain(error); }
}

function settings() {
  return {
    sagan: run.version, run: run.run, step: run.step, state,
    grid: askedGrid(), picture: picture(), points: state.points,
    commands: [command, ...(seen?.commands ?? [])], python: seen?.python ?? "",
  };
}

function showCommands() {
  const lines = seen?.commands?.length ? [`# the picture${state.points.length ? " and its maps" : ""}: the last of each`, ...seen.commands] : [];
  $("shell").textContent = [...(command ? ["# the grid", command] : []), ...lines].join("\n");
  $("python").textContent = seen?.python ?? "";
}

// --- all of it -------------------------------------------------------------------------------------------------------

function showOptions() {
  $("label").value = state.grid.label === null ? "" : state.grid.label;
  $("seed").value = state.grid.seed;
  $("truncation").value = state.grid.truncation === null ? OFF : Math.round(state.grid.truncation * 10);
  showTruncation();
  $("smooth").checked = state.smooth;
}

function showTruncation() {
  const value = Number($("truncation").value);
  const words = value >= OFF ? "off" : `|z| ≤ ${(value / 10).toFixed(1)}`;
  $("truncation-value").textContent = words;
  $("truncation").setAttribute("aria-valuetext", words);
}

function showAll() {
  markGrid();
  showWalk();
  look();
  drawStrip();
}

function listen() {
  $("options").addEventListener("submit", (event) => event.preventDefault());
  $("label").addEventListener("change", () => { state.grid.label = $("label").value === "" ? null : Number($("label").value); drawGrid(); });
  $("seed").addEventListener("input", () => {
    const seed = Number($("seed").value);
    if ($("seed").value === "" || !Number.isInteger(seed) || seed < 0 || seed > 4294967295) return complain(new Error("Seed: a whole number from 0 to 4294967295."));
    calm();
    state.grid.seed = seed;
    drawGrid();
  });
  $("another").addEventListener("click", () => {
    state.grid.seed = Math.floor(Math.random() * 100_000);
    $("seed").value = state.grid.seed;
    drawGrid();
  });
  $("truncation").addEventListener("input", () => {
    const value = Number($("truncation").value);
    state.grid.truncation = value >= OFF ? null : value / 10;
    showTruncation();
    drawGrid();
  });
  $("grid").addEventListener("keydown", gridKey);

  $("five").addEventListener("click", () => look(true));
  $("remove").addEventListener("click", () => stage.update(state.points.slice(0, -1)));
  $("clear").addEventListener("click", () => stage.update([]));
  $("smooth").addEventListener("change", () => { state.smooth = $("smooth").checked; look(); });

  $("latent").addEventListener("input", () => { const to = Number($("latent").value) / 100; walkTo(to, state.together ? to : state.label); });
  $("class").addEventListener("input", () => { const to = Number($("class").value) / 100; walkTo(state.together ? to : state.latent, to); });
  $("together").addEventListener("change", () => {
    state.together = $("together").checked;
    if (state.together) walkTo(state.latent, state.latent);
    drawStrip();
  });
  $("pick").addEventListener("click", () => pick(!picking));
  $("end-button").addEventListener("click", () => pick(!picking));
  $("end-class").addEventListener("change", () => { state.end = { ...state.end, label: Number($("end-class").value) }; markGrid(); walkTo(state.latent, state.together ? state.latent : state.label); drawStrip(); });

  $("file").addEventListener("change", () => { take($("file").files[0]); $("file").value = ""; });
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  addEventListener("drop", (event) => { event.preventDefault(); document.body.classList.remove("dropping"); take(event.dataTransfer.files[0]); });

  $("save-picture").addEventListener("click", () => saving(async () => {
    const bytes = Uint8Array.from(atob(seen.png), (letter) => letter.codePointAt(0));
    save(new Blob([bytes], { type: "image/png" }), `${fileName()}.png`);
  }));
  $("save-maps").addEventListener("click", () => saving(async () =>
    save(await askForFile("figure", { picture: picture(), points: state.points, smooth: state.smooth }), `${fileName()}-maps.png`)));
  $("save-grid").addEventListener("click", () => saving(async () => save(await askForFile("grid-page", askedGrid()), `grid-${state.grid.seed}.png`)));
  $("save-settings").addEventListener("click", () => save(new Blob([`${JSON.stringify(settings(), null, 2)}\n`], { type: "application/json" }), `${fileName()}.json`));
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText($(button.dataset.copy).textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    } catch {
      complain(new Error("The browser does not let the page copy: mark the text and copy it by hand."));
    }
  });

  $("error").querySelector("button").addEventListener("click", calm);
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (picking) { pick(false); $("pick").focus(); }
    else if (large) { large = null; showPicture(); showMaps(); }
    else if ($("stage").contains(document.activeElement)) (gridButtons().find((button) => button.ariaPressed === "true") ?? gridButtons()[0])?.focus();
  });
}

async function begin() {
  try {
    run = await askAbout();
  } catch (error) {
    $("about").textContent = "";
    return complain(error);
  }
  document.title = `${run.run} · sagan explore`;
  document.body.classList.toggle("checker", run.channels === 4);
  const facts = [run.run, `step ${run.step.toLocaleString("en")}`, `${run.resolution} × ${run.resolution} px`];
  if (run.classes.length) facts.push(`${run.classes.length} class${run.classes.length > 1 ? "es" : ""}`);
  $("about").textContent = facts.join(" · ");
  $("of-class").hidden = !run.classes.length;
  const all = run.classes.length > ROWS ? `The first ${ROWS}` : "All";
  $("label").append(make("option", { value: "", textContent: all }), ...run.classes.map((name, i) => make("option", { value: i, textContent: name })));
  $("end-class").append(...run.classes.map((name, i) => make("option", { value: i, textContent: name })));
  stage = new Stage($("stage"), {
    colours: run.colours,
    changed: (points) => { state.points = points; look(); },
    said: (text) => { $("place").textContent = text; },
    full: () => complain(new Error(`${run.colours.length} points at most: remove one first.`)),
  });
  stage.resolution = run.resolution;
  const saved = remembered();
  if (saved) restore(saved, run);
  showOptions();
  listen();
  stage.setPoints(state.points);
  await drawGrid(!state.start);
  if (state.start) showAll();
}

begin();
