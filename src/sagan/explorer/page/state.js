// The state from which everything on the page follows; the address and the settings file store it.

export const TRUNCATION_OFF = 26; // position of the truncation slider at which latents are not truncated

export const state = {
  grid: { label: null, seed: 0, truncation: null }, // label null: all classes
  start: null, // the opened image: {seed, index, label, truncation}
  end: null, // the end of a walk, like start
  latent: 0, // from 0 (start) to 1 (end)
  label: 0,
  together: true,
  own: null, // {png, name, width, height}: an uploaded image, shown instead
  points: [], // [x, y] in pixels
  smooth: true, // maps
  smoothImages: false,
  overImage: false, // maps are composited over the image
  ownScale: false, // each map is scaled to its own peak
  gammas: {}, // "network/layer" -> factor of the layer's gamma; none: as trained
};

const sampleSpec = (sample) => ({ kind: "sample", ...sample });

// The image to request from the server, or null.
export function imageSpec() {
  if (state.own) return { kind: "own", png: state.own.png };
  if (!state.start) return null;
  if (!state.end || (state.latent === 0 && state.label === 0)) return sampleSpec(state.start);
  return { kind: "walk", start: sampleSpec(state.start), end: sampleSpec(state.end), latent: state.latent, label: state.label };
}

// Restores the state of a settings file or of an address; invalid values are replaced by defaults.
export function restore(saved, about) {
  const label = (value) => (Number.isInteger(value) && value >= 0 && value < Math.max(1, about.classes.length) ? value : 0);
  const truncation = (value) => (typeof value === "number" && value > 0 && value <= 10 ? value : null);
  const integer = (value, min, max) => (Number.isInteger(value) && value >= min && value <= max ? value : min);
  const share = (value) => (typeof value === "number" && value >= 0 && value <= 1 ? value : 0);
  const sample = (value) => value && {
    seed: integer(value.seed, 0, 2 ** 32 - 1), index: integer(value.index, 0, 127), label: label(value.label), truncation: truncation(value.truncation),
  };
  const inside = (coordinate) => typeof coordinate === "number" && coordinate >= 0 && coordinate < about.resolution;
  state.grid = {
    label: saved.grid?.label == null ? null : label(saved.grid.label),
    seed: integer(saved.grid?.seed, 0, 2 ** 32 - 1), truncation: truncation(saved.grid?.truncation),
  };
  state.start = sample(saved.start) || null;
  state.end = sample(saved.end) || null;
  state.latent = share(saved.latent);
  state.label = share(saved.label);
  state.together = saved.together !== false;
  state.own = typeof saved.own?.png === "string" ? saved.own : null;
  state.points = (Array.isArray(saved.points) ? saved.points : [])
    .filter((point) => Array.isArray(point) && inside(point[0]) && inside(point[1])).slice(0, about.colours.length);
  state.smooth = saved.smooth !== false;
  state.smoothImages = saved.smoothImages === true;
  state.overImage = saved.overImage === true;
  state.ownScale = saved.ownScale === true;
  state.gammas = {};
  for (const { network, name } of about.layers) {
    const factor = saved.gammas?.[`${network}/${name}`];
    if (typeof factor === "number" && factor >= 0 && factor <= 2 && factor !== 1) state.gammas[`${network}/${name}`] = factor;
  }
}

// An entry of the browser's history for every change, so that Back undoes it. Changes within 300 ms, such as the steps
// of a slider, are one. An uploaded image is too long for an address: the entry itself holds it.
let timer = null;
let stored = null;
export function saveToAddress() {
  clearTimeout(timer);
  timer = setTimeout(() => {
    const { own, ...rest } = state;
    const text = JSON.stringify(state);
    if (text === stored) return;
    const entry = [{ own }, "", `#${encodeURIComponent(JSON.stringify(rest))}`];
    if (stored === null) history.replaceState(...entry);
    else history.pushState(...entry);
    stored = text;
  }, 300);
}

// The state of the current entry, or null.
export function loadFromAddress() {
  clearTimeout(timer);
  try { return { ...JSON.parse(decodeURIComponent(location.hash.slice(1))), own: history.state?.own }; } catch { return null; }
}

// Marks the state as stored in the current entry.
export function markStored() { stored = JSON.stringify(state); }
