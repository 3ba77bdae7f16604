// All that the page shows follows from this; it is what the address and the settings file hold.

export const OFF = 26; // position of the truncation slider at which latents are not cut off

export const state = {
  grid: { label: null, seed: 0, truncation: null }, // label null: all classes
  start: null, // the opened picture: {seed, index, label, truncation}
  end: null, // what a walk leads to
  latent: 0, // 0 to 1, from start to end
  label: 0,
  together: true,
  own: null, // {png, name, width, height}: a picture of the user's own, shown instead
  points: [], // [x, y] in pixels
  smooth: true,
};

const sample = (chosen) => ({ kind: "sample", ...chosen });

// What the server is asked to draw.
export function picture() {
  if (state.own) return { kind: "own", png: state.own.png };
  if (!state.start) return null;
  if (!state.end || (state.latent === 0 && state.label === 0)) return sample(state.start);
  return { kind: "walk", start: sample(state.start), end: sample(state.end), latent: state.latent, label: state.label };
}

// A settings file's or address's state; what does not fit is left as it was.
export function restore(saved, about) {
  const label = (value) => (Number.isInteger(value) && value >= 0 && value < Math.max(1, about.classes.length) ? value : 0);
  const truncation = (value) => (typeof value === "number" && value > 0 && value <= 10 ? value : null);
  const whole = (value, least, most) => (Number.isInteger(value) && value >= least && value <= most ? value : least);
  const share = (value) => (typeof value === "number" && value >= 0 && value <= 1 ? value : 0);
  const chosen = (one) => one && {
    seed: whole(one.seed, 0, 2 ** 32 - 1), index: whole(one.index, 0, 127), label: label(one.label), truncation: truncation(one.truncation),
  };
  const inside = (at) => typeof at === "number" && at >= 0 && at < about.resolution;
  state.grid = {
    label: saved.grid?.label == null ? null : label(saved.grid.label),
    seed: whole(saved.grid?.seed, 0, 2 ** 32 - 1), truncation: truncation(saved.grid?.truncation),
  };
  state.start = chosen(saved.start) || null;
  state.end = chosen(saved.end) || null;
  state.latent = share(saved.latent);
  state.label = share(saved.label);
  state.together = saved.together !== false;
  state.own = typeof saved.own?.png === "string" ? saved.own : null;
  state.points = (Array.isArray(saved.points) ? saved.points : [])
    .filter((point) => Array.isArray(point) && inside(point[0]) && inside(point[1])).slice(0, about.colours.length);
  state.smooth = saved.smooth !== false;
}

let waiting = null;
export function remember() {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    const { own, ...rest } = state; // a picture of one's own is too long for an address
    history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(rest))}`);
  }, 300);
}

export function remembered() {
  try { return JSON.parse(decodeURIComponent(location.hash.slice(1))); } catch { return null; }
}
