// The colour bar of the maps.

export class Bar {
  // `ramp`: evenly spaced colours; `ticks`: [weight in multiples of even attention, position from 0 to 1].
  constructor(ramp, ticks) {
    this.ticks = ticks;
    this.element = document.getElementById("bar");
    document.getElementById("ramp").style.background = `linear-gradient(to right, ${ramp.join(", ")})`;
  }

  show(visible, ownScale) {
    this.element.hidden = !visible;
    const top = this.ticks.at(-1)[0];
    const ticks = ownScale ? [["0", 0], ["each map’s peak", 1]] : this.ticks.map(([weight, at]) => [weight === top ? `${weight}× and more` : `${weight}×`, at]);
    this.element.setAttribute("aria-label", ownScale ? "Colours: from no weight to each map’s own peak" : `Colours: from 0 to ${top} times even attention`);
    document.getElementById("ticks").replaceChildren(...ticks.map(([text, at]) => {
      const tick = document.createElement("span");
      tick.textContent = text;
      tick.style.left = `${100 * at}%`;
      return tick;
    }));
  }
}
