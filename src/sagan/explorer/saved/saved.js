// A page of its own in one file: images of a run with all rows of their maps. `Stage` and `Bar` stand before this text.

const $ = (id) => document.getElementById(id);
const page = JSON.parse($("data").textContent);
const { images, layers, resolution, colours, ramp, ticks } = page;
const lut = Uint8Array.from(atob(page.lut), (letter) => letter.charCodeAt(0)); // 256 colours, RGB
const top = ticks.at(-1)[0];
const unpacked = new Map(); // number of an image -> its layers' {peaks, shares, rows}
let opened = 0;
let points = [];
let version = "on";

function showError(error) {
  $("error").textContent = `The page cannot show this: ${error.message ?? error}`;
  $("error").hidden = false;
}

// For every layer: peaks and shares, float32 per query, and rows, a byte per query and key: 255 · sqrt(weight / peak).
async function unpack(i) {
  if (unpacked.has(i)) return unpacked.get(i);
  const packed = Uint8Array.from(atob($(`maps-${i}`).textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  let at = 0;
  const take = (Type, count) => {
    const array = new Type(buffer.slice(at, at + count * Type.BYTES_PER_ELEMENT));
    at += array.byteLength;
    return array;
  };
  unpacked.set(i, layers.map(({ grid, keys }) => ({
    peaks: take(Float32Array, grid ** 2), shares: take(Float32Array, grid ** 2), rows: take(Uint8Array, grid ** 2 * keys ** 2),
  })));
  return unpacked.get(i);
}

function drawMap({ keys }, { peaks, rows }, query) {
  const canvas = Object.assign(document.createElement("canvas"), { width: keys, height: keys });
  const pixels = new ImageData(keys, keys);
  for (let key = 0; key < keys ** 2; key++) {
    const weight = peaks[query] * (rows[query * keys ** 2 + key] / 255) ** 2; // in multiples of even attention
    const colour = 3 * Math.round(255 * Math.sqrt(Math.min(1, weight / top)));
    pixels.data.set([lut[colour], lut[colour + 1], lut[colour + 2], 255], 4 * key);
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

const percent = (share) => `${share >= 0.0995 ? (100 * share).toFixed(0) : (100 * share).toFixed(share >= 0.00095 ? 1 : 3)} %`;

async function showMaps() {
  const number = opened;
  let maps;
  try { maps = await unpack(number); } catch (error) { return showError(error); }
  if (number !== opened) return;
  const parts = [];
  layers.forEach((layer, l) => {
    const { small, share } = images[opened].layers[l];
    const facts = Object.assign(document.createElement("span"), { className: "facts", textContent: ` γ ${layer.gamma.toFixed(3)}${small ? "" : `, adds ${share} to its features`}` });
    const heading = document.createElement("h3");
    heading.append(`Layer ${layer.name}`, facts);
    parts.push(heading);
    if (small) parts.push(Object.assign(document.createElement("p"), { className: "small", textContent: `${small}.` }));
    const tiles = Object.assign(document.createElement("div"), { className: "tiles" });
    points.forEach(([x, y], i) => {
      const at = (coordinate) => Math.floor((coordinate * layer.grid) / resolution);
      const query = at(x) + layer.grid * at(y);
      const canvas = drawMap(layer, maps[l], query);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `Layer ${layer.name}: map of point ${i + 1}`);
      const peak = maps[l].peaks[query];
      const caption = document.createElement("figcaption");
      caption.append(Object.assign(document.createElement("b"), { textContent: i + 1 }), `  ${peak < 9.95 ? peak.toFixed(1) : peak.toFixed(0)}×\nadds ${percent(maps[l].shares[query])}`);
      const figure = document.createElement("figure");
      figure.style.setProperty("--of", colours[i]);
      figure.append(canvas, caption);
      tiles.append(figure);
    });
    parts.push(tiles);
  });
  $("maps").replaceChildren(...parts);
  $("remove").disabled = $("clear").disabled = !points.length;
}

function showImage() {
  const image = images[opened];
  $("title").textContent = image.name;
  $("gain").textContent = `× ${image.gain}`;
  $("effect").textContent = `Attention off changes this image by ${image.size}.`;
  const words = { on: "", off: ", attention off", difference: ", difference that attention makes" };
  stage.show(image[version], image.name + words[version]);
  [...$("grid").children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === opened)));
}

function open(i) {
  opened = i;
  showImage();
  showMaps();
}

const stage = new Stage($("stage"), {
  colours,
  onChange: (changed) => { points = changed; showMaps(); },
  onCross: (text) => { $("place").textContent = text; },
  onFull: () => { $("place").textContent = `There can be at most ${colours.length} points: remove one first.`; },
});
stage.resolution = resolution;
new Bar(ramp, ticks).show(true, false);
document.body.classList.toggle("checker", page.transparent);
images.forEach((image, i) => {
  const button = Object.assign(document.createElement("button"), { type: "button" });
  button.append(Object.assign(document.createElement("img"), { src: image.on, alt: image.name }));
  button.addEventListener("click", () => open(i));
  $("grid").append(button);
});
for (const radio of document.getElementsByName("version")) radio.addEventListener("change", () => { version = radio.value; showImage(); });
$("smooth").addEventListener("change", () => $("maps").classList.toggle("cells", !$("smooth").checked));
$("remove").addEventListener("click", () => stage.update(points.slice(0, -1)));
$("clear").addEventListener("click", () => stage.update([]));
points = [page.point];
stage.setPoints(points);
open(0);
