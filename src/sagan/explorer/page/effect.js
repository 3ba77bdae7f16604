// What attention does to the image: a slider for each layer's gamma, and the image with and without attention.

import { newestOnly, pngUrl, post } from "./server.js";

const $ = (id) => document.getElementById(id);

export class Effect {
  // `layers`: {network, name, gamma}; `name(key)` is what the page calls a layer; `onChange(factors)` when one is moved.
  constructor(layers, { name, onChange, onError }) {
    this.layers = layers.map((layer) => ({ ...layer, key: `${layer.network}/${layer.name}` }));
    this.onChange = onChange;
    this.factors = {};
    this.request = newestOnly((request) => this.load(request), onError);
    this.sliders = new Map(this.layers.map(({ key }, i) => [key, this.addSlider(key, name(key), i)]));
    $("gamma-off").addEventListener("click", () => this.set(Object.fromEntries(this.layers.filter(({ network }) => network === "generator").map(({ key }) => [key, 0]))));
    $("gamma-trained").addEventListener("click", () => this.set({}));
    $("gamma-tools").hidden = !layers.length;
  }

  addSlider(key, name, i) {
    const box = Object.assign(document.createElement("div"), { className: "slider" });
    const label = Object.assign(document.createElement("label"), { htmlFor: `gamma-${i}`, textContent: name });
    const input = Object.assign(document.createElement("input"), { id: `gamma-${i}`, type: "range", min: 0, max: 2, step: 0.05, value: 1 });
    const output = Object.assign(document.createElement("output"), { htmlFor: `gamma-${i}` });
    input.addEventListener("input", () => this.set({ ...this.factors, [key]: Number(input.value) }));
    box.append(label, output, input);
    $("gammas").append(box);
    return { input, output };
  }

  set(factors) {
    this.showGammas(Object.fromEntries(Object.entries(factors).filter(([, factor]) => factor !== 1)));
    this.onChange(this.factors);
  }

  showGammas(factors) {
    this.factors = factors;
    for (const { key, gamma } of this.layers) {
      const factor = factors[key] ?? 1;
      const { input, output } = this.sliders.get(key);
      const text = `γ ${(factor * gamma).toFixed(3)}, ${factor === 1 ? "as trained" : factor === 0 ? "off" : `× ${factor.toFixed(2)}`}`;
      input.value = factor;
      input.setAttribute("aria-valuetext", text);
      output.textContent = text;
    }
    $("gamma-trained").disabled = !Object.keys(factors).length;
  }

  // Compares a generated image with itself without attention; null: an image that the generator did not generate.
  compare(image, gammas) {
    $("effect").hidden = !this.layers.length;
    const generated = image && this.layers.some(({ network }) => network === "generator");
    for (const id of ["pair", "effect-text", "gamma-effect"]) $(id).hidden = !generated;
    if (generated) this.request({ image, gammas });
  }

  async load({ image, gammas }) {
    const answer = await post("effect", { image, gammas });
    const figures = [["on", "as trained"], ["off", "attention off"], ["difference", `difference × ${answer.gain}`]];
    $("pair").replaceChildren(...figures.map(([key, text]) => {
      const figure = document.createElement("figure");
      const element = Object.assign(document.createElement("img"), { src: pngUrl(answer[key]), alt: `The image: ${text}` });
      figure.append(element, Object.assign(document.createElement("figcaption"), { textContent: text }));
      return figure;
    }));
    $("effect-text").textContent = `Attention off changes this image by ${answer.size}.`;
    $("gamma-effect").textContent = Object.keys(gammas).some((key) => key.startsWith("generator/")) ? `Now ${answer.now} from as trained.` : "";
  }
}
