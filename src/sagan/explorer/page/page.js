// The page: reacts to the user and shows the server's answers.

import { getAbout, newestOnly, pngUrl, post, postForFile, upload } from "./server.js";
import { Stage } from "./stage.js";
import { Bar } from "./bar.js";
import { Effect } from "./effect.js";
import { imageSpec, loadFromAddress, markStored, restore, saveToAddress, state, TRUNCATION_OFF } from "./state.js";

const $ = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const ROWS = 8; // most classes in the first grid, and most scores
const STRIP_STEPS = 9; // images in a strip

let run; // the server's description of the run
let stage;
let bar;
let effect;
let grid = []; // the images of the grid: {label, index, png}
let gridRequest = null; // the request that `grid` answers
let gridCommand = "";
let view = null; // the server's last answer about the image
let maps = new Map(); // "network/layer" -> [{png, peak, distance}], by the points' numbers
let mapsRequest = { style: null, points: [] }; // the request that `maps` answer
let enlarged = null; // the map that the stage shows instead of the image: {layer, point}
let picking = false; // whether the user is choosing the end of a walk

// --- text ------------------------------------------------------------------------------------------------------------

function showError(error) {
  $("error").querySelector("p").textContent = error.message ?? String(error);
  $("error").hidden = false;
}
const hideError = () => { $("error").hidden = true; };
const className = (label) => run.classes[label] ?? "";
const nameOf = ({ label, seed, index }) => [className(label), `seed ${seed}`, `no.\u00a0${index + 1}`].filter(Boolean).join(", ");
function title() {
  if (state.own) return `${state.own.name}, ${state.own.width} × ${state.own.height} px`;
  if (!state.start) return "Image";
  if (imageSpec().kind === "sample") return nameOf(state.start);
  return `Between ${nameOf(state.start)} and ${nameOf(state.end)}`;
}
const fileName = () => (state.own ? "own" : [className(state.start.label) || "image", state.start.seed, state.start.index + 1].join("-"))
  .replace(/[^\p{L}\p{N}-]+/gu, "-");

// --- grid ------------------------------------------------------------------------------------------------------------

function gridParameters() {
  const classes = run.classes.length;
  const labels = !classes ? [] : state.grid.label === null ? [...Array(Math.min(classes, ROWS)).keys()] : [state.grid.label];
  const affordable = Math.max(4, Math.min(24, Math.floor(1.5 / run.seconds))); // images that take about 1.5 s
  const count = labels.length > 1 ? Math.max(1, Math.min(6, Math.floor((2 * affordable) / labels.length))) : affordable;
  return { labels, count, seed: state.grid.seed, truncation: state.grid.truncation, gammas: state.gammas };
}

const drawGrid = newestOnly(async ({ open = false, keep = false } = {}) => {
  $("grid").classList.add("busy");
  try {
    const request = gridParameters();
    const answer = await post("grid", request);
    hideError();
    const position = (sample) => grid.findIndex((image) => sameSample(sampleOf(image), sample));
    const start = position(state.start);
    const end = position(state.end);
    grid = answer.images;
    gridCommand = answer.command;
    gridRequest = request;
    showGrid(request);
    if (open || !state.start) openImage(grid[0]);
    else if (start >= 0 && !keep) { // the image at the same position is opened, which shows the effect of an option
      state.start = sampleOf(grid[Math.min(start, grid.length - 1)]);
      if (end >= 0) state.end = sampleOf(grid[Math.min(end, grid.length - 1)]);
      showAll();
    }
    showCommands();
  } finally {
    $("grid").classList.remove("busy");
  }
  saveToAddress();
}, showError);

function showGrid({ labels, count }) {
  const rows = labels.length > 1;
  const columns = rows ? count : Math.min(6, count);
  $("grid").style.gridTemplateColumns = `${rows ? "minmax(2.5rem, 5rem) " : ""}repeat(${columns}, minmax(0, 1fr))`;
  const hadFocus = $("grid").contains(document.activeElement);
  $("grid").replaceChildren();
  grid.forEach((image, i) => {
    if (rows && i % count === 0) $("grid").append(make("span", { className: "row", textContent: className(image.label), title: className(image.label) }));
    const button = make("button", { type: "button", tabIndex: i ? -1 : 0 }, make("img", { src: pngUrl(image.png), alt: nameOf({ ...state.grid, ...image }) }));
    button.addEventListener("click", () => (picking ? setEnd(image) : openImage(image, true)));
    $("grid").append(button);
  });
  $("grid").dataset.columns = columns;
  markGrid();
  if (hadFocus) gridButtons()[0]?.focus();
}

const gridButtons = () => [...$("grid").querySelectorAll("button")];
const sameSample = (a, b) => a && b && a.seed === b.seed && a.index === b.index && a.label === b.label && a.truncation === b.truncation;
const sampleOf = ({ label, index }) => ({ seed: gridRequest.seed, index, label, truncation: gridRequest.truncation });

function markGrid() {
  gridButtons().forEach((button, i) => {
    button.setAttribute("aria-pressed", String(!state.own && sameSample(sampleOf(grid[i]), state.start)));
    button.classList.toggle("end", sameSample(sampleOf(grid[i]), state.end) === true);
  });
}

function gridKey(event) {
  const buttons = gridButtons();
  const i = buttons.indexOf(document.activeElement);
  const columns = Number($("grid").dataset.columns);
  const target = { ArrowLeft: i - 1, ArrowRight: i + 1, ArrowUp: i - columns, ArrowDown: i + columns, Home: 0, End: buttons.length - 1 }[event.key];
  if (i < 0 || target === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  if (!buttons[target]) return;
  buttons[i].tabIndex = -1;
  buttons[target].tabIndex = 0;
  buttons[target].focus();
}

// --- image -----------------------------------------------------------------------------------------------------------

function openImage(image, byUser = false) {
  state.own = null;
  state.start = sampleOf(image);
  state.latent = state.label = 0;
  if (!state.end) { // the next image, in the next row if rows are classes
    const step = gridRequest.labels.length > 1 ? gridRequest.count + 1 : 1;
    state.end = sampleOf(grid[(grid.indexOf(image) + step) % grid.length]);
  }
  showOpened(byUser);
}

function showOpened(byUser) {
  enlarged = null;
  markGrid();
  showWalk();
  look();
  drawStrip();
  if (!byUser) return;
  $("stage").scrollIntoView({ block: "nearest", behavior: "smooth" });
  if ($("grid").contains(document.activeElement) && document.activeElement.matches(":focus-visible")) $("stage").focus({ preventScroll: true });
}

const lookRequest = () => ({
  image: imageSpec(), smooth: state.smooth, over_image: state.overImage, own_scale: state.ownScale, gammas: state.gammas,
});

// Requests the image, and those maps that are not here yet.
const look = newestOnly(async (choose = false) => {
  const request = lookRequest();
  if (!request.image) return;
  const key = JSON.stringify(request);
  const reset = mapsRequest.style !== key;
  const points = state.points.map((point) => [...point]);
  const known = (i) => !reset && mapsRequest.points[i]?.[0] === points[i][0] && mapsRequest.points[i]?.[1] === points[i][1];
  const only = points.map((_, i) => i).filter((i) => !known(i));
  view = await post("look", choose ? { ...request, choose } : { ...request, points, only });
  hideError();
  if (choose) {
    state.points = view.points;
    stage.setPoints(view.points);
  }
  const previous = reset || choose ? new Map() : maps;
  maps = new Map(view.layers.map((layer) => {
    const name = `${layer.network}/${layer.name}`;
    return [name, view.points.map((_, i) => layer.maps[i] ?? previous.get(name)?.[i])];
  }));
  mapsRequest = { style: key, points: view.points };
  showImage();
  showMaps();
  showScores();
  effect.compare(state.own ? null : request.image, state.gammas);
  showCommands();
  saveToAddress();
}, (error) => {
  mapsRequest = { style: null, points: [] };
  showError(error);
});

function showImage() {
  $("title").textContent = title();
  const map = enlarged && maps.get(enlarged.layer)?.[enlarged.point];
  if (!map) enlarged = null;
  stage.show(pngUrl(map ? map.png : view.png), map ? `Map of point ${enlarged.point + 1}` : title());
  $("stage").classList.toggle("map", Boolean(map));
  $("stage").style.setProperty("--of", map ? run.colours[enlarged.point] : "");
  $("place").textContent = map ? `Point ${enlarged.point + 1} in ${layerName(enlarged.layer)}. Press Esc to return to the image.` : "";
  $("remove").disabled = $("clear").disabled = !state.points.length;
  $("save-maps").disabled = !state.points.length || !maps.size;
}

function layerName(key) {
  const [network, name] = key.split("/");
  return `${network[0].toUpperCase()}${network.slice(1)}, layer ${name}`;
}

function showMaps() {
  const parts = [];
  const layers = new Map(view.layers.map((layer) => [`${layer.network}/${layer.name}`, layer]));
  for (const { network, name, gamma } of run.layers) {
    const key = `${network}/${name}`;
    const layerMaps = maps.get(key);
    if (!layerMaps) continue;
    const { share, small } = layers.get(key);
    const facts = ` γ ${(gamma * (state.gammas[key] ?? 1)).toFixed(3)}${small ? "" : `, adds ${share} to its features`}`;
    parts.push(make("h3", {}, layerName(key), make("span", { className: "facts", textContent: facts })));
    if (small) parts.push(make("p", { className: "small", textContent: `${small}.` }));
    const tiles = make("div", { className: "tiles" }, ...layerMaps.map((map, i) => tile(key, map, i)));
    parts.push(tiles);
  }
  const notes = [];
  if (state.own && run.layers.some(({ network }) => network === "generator")) notes.push(`The generator did not generate this image, so ${run.missing.discriminator ? "it has no maps" : "only the discriminator has maps"}.`);
  for (const key of ["generator_maps", "discriminator_maps"]) if (run.missing[key]) notes.push(`No maps: ${run.missing[key]}.`);
  if (run.missing.discriminator) notes.push(`No discriminator, so neither its maps nor its scores: ${run.missing.discriminator}.`);
  const drawn = state.points.length > 0 && parts.length > 0;
  bar.show(drawn, state.ownScale);
  if (!drawn && maps.size) parts.splice(0, parts.length, make("p", { className: "none", textContent: "Set a point on the image to see here what it attends to." }));
  if (drawn) parts.push(make("p", { className: "help", textContent: "Weights in multiples of even attention: 1× everywhere is no preference. Below each map: its peak, the mean attention distance, and what the layer adds to the features at the point. Click a map to enlarge it." }));
  const focused = document.activeElement?.dataset?.map;
  $("maps").replaceChildren(...parts, ...notes.map((text) => make("p", { className: "help", textContent: text })));
  if (focused) $("maps").querySelector(`[data-map="${CSS.escape(focused)}"]`)?.focus();
}

function tile(key, map, i) {
  const pressed = enlarged?.layer === key && enlarged?.point === i;
  const button = make("button", { type: "button" }, make("img", { src: map ? pngUrl(map.png) : "", alt: `${layerName(key)}: map of point ${i + 1}` }));
  button.dataset.map = `${key}/${i}`;
  button.setAttribute("aria-pressed", String(pressed));
  button.addEventListener("click", () => {
    enlarged = pressed ? null : { layer: key, point: i };
    showImage();
    showMaps();
  });
  const peak = map ? (map.peak < 9.95 ? map.peak.toFixed(1) : map.peak.toFixed(0)) : "";
  const figure = make("figure", {}, button, make("figcaption", {}, make("b", { textContent: i + 1 }), map ? make("span", { textContent: `${peak}×\n${map.distance.toFixed(0)} px\nadds ${map.share}` }) : ""));
  figure.style.setProperty("--of", run.colours[i]);
  return figure;
}

function showScores() {
  const scores = view.scores;
  $("score").hidden = !scores;
  if (!scores) return;
  const spec = state.own ? null : imageSpec();
  const ownClasses = !spec ? [] : spec.kind === "sample" ? [spec.label] : [spec.start.label, spec.end.label];
  let order = scores.map((_, i) => i);
  if (order.length > ROWS) order = order.sort((a, b) => scores[b] - scores[a]).filter((label, i) => i < ROWS || ownClasses.includes(label));
  const marks = Object.entries(run.logits);
  const values = [0, ...order.map((i) => scores[i]), ...marks.map(([, value]) => value)];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const percent = (value) => ((value - low) / Math.max(1e-9, high - low)) * 96 + 2; // position along the track
  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
  $("scores").replaceChildren(...order.flatMap((label) => {
    const bar = make("div", { className: "bar" });
    bar.style.left = `${Math.min(percent(0), percent(scores[label]))}%`;
    bar.style.width = `${Math.abs(percent(scores[label]) - percent(0))}%`;
    const track = make("div", { className: "track" }, bar);
    for (const [kind, value] of [["zero", 0], ...marks]) {
      const mark = make("div", { className: `mark ${kind}` });
      mark.style.left = `${percent(value)}%`;
      track.append(mark);
    }
    return [
      make("span", { className: `name${ownClasses.includes(label) ? " own" : ""}`, textContent: run.classes.length ? `as ${className(label)}` : "score", title: className(label) }),
      track,
      make("span", { textContent: signed(scores[label]) }),
    ];
  }));
  const names = { real: "real images", fake: "generated images" };
  $("score-help").replaceChildren("Higher: more like the training images. ", ...marks.flatMap(([kind, value], i) => [
    i ? ", " : "Means at the end of training: ", make("span", { className: `swatch ${kind}` }), `${names[kind]} ${signed(value)}`,
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

const drawStrip = newestOnly(async () => {
  if (state.own || !state.start) return;
  const sample = (side) => ({ kind: "sample", ...state[side] });
  const request = { walk: { kind: "walk", start: sample("start"), end: sample("end"), latent: 0, label: 0 }, steps: STRIP_STEPS, gammas: state.gammas };
  if (!state.together) request.label = state.label;
  const { images } = await post("strip", request);
  if (state.together) {
    $("start").src = pngUrl(images[0]);
    $("end").src = pngUrl(images.at(-1));
  } else for (const side of ["start", "end"]) { // the strip has mixed classes, so its ends are other images
    const { images: [image] } = await post("strip", { walk: { ...request.walk, start: sample(side), end: sample(side) }, steps: 2, gammas: state.gammas });
    $(side).src = pngUrl(image);
  }
  $("start").alt = nameOf(state.start);
  $("end").alt = nameOf(state.end);
  $("strip").replaceChildren(...images.map((png, i) => {
    const share = i / (STRIP_STEPS - 1);
    const button = make("button", { type: "button" }, make("img", { src: pngUrl(png), alt: `${Math.round(share * 100)} %` }));
    button.addEventListener("click", () => walkTo(share, state.together ? share : state.label));
    return button;
  }));
  markStrip();
}, showError);

function markStrip() {
  [...$("strip").children].forEach((button, i) => button.setAttribute("aria-pressed", String(Math.abs(state.latent - i / (STRIP_STEPS - 1)) < 0.005)));
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

function setEnd(image) {
  state.end = sampleOf(image);
  setPicking(false);
  $("pick").focus();
  markGrid();
  showWalk();
  drawStrip();
  if (imageSpec().kind === "walk") look();
}

function setPicking(on) {
  picking = on;
  $("picking").hidden = !on;
  $("pick").setAttribute("aria-pressed", String(on));
  if (on) {
    $("choose").scrollIntoView({ block: "nearest", behavior: "smooth" });
    $("grid").querySelector("[tabindex='0']")?.focus();
  }
}

// --- uploads and files -----------------------------------------------------------------------------------------------

async function openFile(file) {
  try {
    if (!file) return;
    if (/\.json$/i.test(file.name)) {
      if (file.size > 4e6) throw new Error(`${file.name}: this is not a settings file of this page.`);
      let saved;
      try { saved = JSON.parse(await file.text()).state; } catch { /* reported below */ }
      if (!saved) throw new Error(`${file.name}: this is not a settings file of this page.`);
      restore(saved, run);
      showOptions();
      stage.setPoints(state.points);
      await drawGrid({ open: !state.start && !state.own, keep: true });
      if (state.start || state.own) showAll();
      return;
    }
    if (file.size > run.max_upload) throw new Error(`${file.name}: ${(file.size / 1e6).toFixed(0)} MB is too large; the limit is ${run.max_upload / 1e6} MB.`);
    const uploaded = await upload(file).catch((error) => { throw new Error(`${file.name}: ${error.message}`); });
    hideError();
    state.own = { ...uploaded, name: file.name };
    enlarged = null;
    showOpened(true);
  } catch (error) {
    showError(error);
  }
}

function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function saveOrShowError(task) {
  try { await task(); hideError(); } catch (error) { showError(error); }
}

function settings() {
  return {
    sagan: run.version, run: run.run, step: run.step, state,
    grid: gridParameters(), picture: imageSpec(), points: state.points,
    commands: [gridCommand, ...(view?.commands ?? [])], python: view?.python ?? "",
  };
}

function showCommands() {
  const lines = [];
  if (gridCommand) lines.push("# the grid", gridCommand);
  if (view?.commands?.length) lines.push(`# the image${state.points.length ? " and its maps" : ""}: the last of each output`, ...view.commands);
  $("shell").textContent = lines.join("\n");
  $("python").textContent = view?.python ?? "";
}

// --- page ------------------------------------------------------------------------------------------------------------

function showOptions() {
  $("label").value = state.grid.label === null ? "" : state.grid.label;
  $("seed").value = state.grid.seed;
  $("truncation").value = state.grid.truncation === null ? TRUNCATION_OFF : Math.round(state.grid.truncation * 10);
  showTruncation();
  $("smooth").checked = state.smooth;
  $("smooth-image").checked = state.smoothImages;
  $("over-image").checked = state.overImage;
  $("own-scale").checked = state.ownScale;
  document.body.classList.toggle("smooth-images", state.smoothImages);
  effect.showGammas(state.gammas);
}

function showTruncation() {
  const value = Number($("truncation").value);
  const text = value >= TRUNCATION_OFF ? "off" : `|z| ≤ ${(value / 10).toFixed(1)}`;
  $("truncation-value").textContent = text;
  $("truncation").setAttribute("aria-valuetext", text);
}

function showAll() {
  markGrid();
  showWalk();
  look();
  drawStrip();
}

function addListeners() {
  $("options").addEventListener("submit", (event) => event.preventDefault());
  $("label").addEventListener("change", () => { state.grid.label = $("label").value === "" ? null : Number($("label").value); drawGrid(); });
  $("seed").addEventListener("input", () => {
    const seed = Number($("seed").value);
    if ($("seed").value === "" || !Number.isInteger(seed) || seed < 0 || seed > 4294967295) return showError(new Error("The seed must be an integer from 0 to 4294967295."));
    hideError();
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
    state.grid.truncation = value >= TRUNCATION_OFF ? null : value / 10;
    showTruncation();
    drawGrid();
  });
  $("grid").addEventListener("keydown", gridKey);

  $("five").addEventListener("click", () => look(true));
  $("remove").addEventListener("click", () => stage.update(state.points.slice(0, -1)));
  $("clear").addEventListener("click", () => stage.update([]));
  for (const [id, key] of [["smooth", "smooth"], ["over-image", "overImage"], ["own-scale", "ownScale"]]) {
    $(id).addEventListener("change", () => { state[key] = $(id).checked; look(); });
  }
  $("smooth-image").addEventListener("change", () => {
    state.smoothImages = $("smooth-image").checked;
    document.body.classList.toggle("smooth-images", state.smoothImages);
    saveToAddress();
  });

  $("latent").addEventListener("input", () => { const share = Number($("latent").value) / 100; walkTo(share, state.together ? share : state.label); });
  $("class").addEventListener("input", () => { const share = Number($("class").value) / 100; walkTo(state.together ? share : state.latent, share); });
  $("together").addEventListener("change", () => {
    state.together = $("together").checked;
    if (state.together) walkTo(state.latent, state.latent);
    drawStrip();
  });
  $("pick").addEventListener("click", () => setPicking(!picking));
  $("end-button").addEventListener("click", () => setPicking(!picking));
  $("end-class").addEventListener("change", () => { state.end = { ...state.end, label: Number($("end-class").value) }; markGrid(); walkTo(state.latent, state.together ? state.latent : state.label); drawStrip(); });

  $("file").addEventListener("change", () => { openFile($("file").files[0]); $("file").value = ""; });
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  addEventListener("drop", (event) => { event.preventDefault(); document.body.classList.remove("dropping"); openFile(event.dataTransfer.files[0]); });

  $("save-image").addEventListener("click", () => saveOrShowError(async () => {
    const bytes = Uint8Array.from(atob(view.png), (letter) => letter.codePointAt(0));
    save(new Blob([bytes], { type: "image/png" }), `${fileName()}.png`);
  }));
  $("save-maps").addEventListener("click", () => saveOrShowError(async () =>
    save(await postForFile("figure", { ...lookRequest(), points: state.points }), `${fileName()}-maps.png`)));
  $("save-grid").addEventListener("click", () => saveOrShowError(async () => save(await postForFile("grid-page", gridParameters()), `grid-${state.grid.seed}.png`)));
  $("save-settings").addEventListener("click", () => save(new Blob([`${JSON.stringify(settings(), null, 2)}\n`], { type: "application/json" }), `${fileName()}.json`));
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText($(button.dataset.copy).textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    } catch {
      showError(new Error("The browser does not allow the page to copy: select the text and copy it yourself."));
    }
  });

  $("error").querySelector("button").addEventListener("click", hideError);
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (picking) { setPicking(false); $("pick").focus(); }
    else if (enlarged) { enlarged = null; showImage(); showMaps(); }
    else if ($("stage").contains(document.activeElement)) (gridButtons().find((button) => button.ariaPressed === "true") ?? gridButtons()[0])?.focus();
  });
}

async function initialise() {
  try {
    run = await getAbout();
  } catch (error) {
    $("about").textContent = "";
    return showError(error);
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
    onChange: (points) => { state.points = points; look(); },
    onCross: (text) => { $("place").textContent = text; },
    onFull: () => showError(new Error(`There can be at most ${run.colours.length} points: remove one first.`)),
  });
  stage.resolution = run.resolution;
  bar = new Bar(run.ramp, run.ticks);
  effect = new Effect(run.layers, {
    name: layerName,
    onError: showError,
    onChange: (gammas) => {
      state.gammas = gammas;
      drawGrid({ keep: true });
      look();
      drawStrip();
    },
  });
  const saved = loadFromAddress();
  if (saved) restore(saved, run);
  showOptions();
  addListeners();
  stage.setPoints(state.points);
  await drawGrid({ open: !state.start, keep: true });
  if (state.start) showAll();
  addEventListener("popstate", goTo);
}

// Shows the state of the entry of the browser's history that the user went to.
async function goTo() {
  const saved = loadFromAddress();
  if (!saved) return;
  restore(saved, run);
  markStored();
  enlarged = null;
  showOptions();
  stage.setPoints(state.points);
  if (JSON.stringify(gridParameters()) !== JSON.stringify(gridRequest)) await drawGrid({ open: !state.start, keep: true });
  if (state.start || state.own) showAll();
}

initialise();
