// The large image and its points, for the mouse, a finger or the keyboard alone.

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Stage {
  // Callbacks: `onChange(points)` when a point is set, moved or removed; `onCross(text)` with the position of the cross;
  // `onFull()` when there are as many points as colours.
  constructor(element, { colours, onChange, onCross, onFull }) {
    this.element = element;
    this.image = element.querySelector("img");
    this.crossElement = element.querySelector("#cross");
    Object.assign(this, { colours, onChange, onCross, onFull });
    this.points = [];
    this.resolution = 32;
    this.cross = null;
    element.addEventListener("pointerdown", (event) => this.press(event));
    element.addEventListener("click", (event) => this.tap(event));
    element.addEventListener("keydown", (event) => this.key(event));
    element.addEventListener("focus", () => this.showCrossOnFocus());
    element.addEventListener("blur", () => { this.crossElement.hidden = true; });
  }

  show(url, description) {
    this.image.src = url;
    this.image.alt = description;
  }

  setPoints(points) {
    this.points = points.map((point) => [...point]);
    const buttons = this.element.querySelectorAll(".point");
    for (let i = points.length; i < buttons.length; i++) buttons[i].remove();
    points.forEach((point, i) => this.place(buttons[i] || this.addButton(i), point, i));
  }

  addButton(i) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "point";
    button.textContent = i + 1;
    button.style.setProperty("--of", this.colours[i]);
    button.addEventListener("pointerdown", (event) => this.drag(event, i));
    this.element.append(button);
    return button;
  }

  place(button, [x, y], i) {
    button.style.left = `${((x + 0.5) / this.resolution) * 100}%`;
    button.style.top = `${((y + 0.5) / this.resolution) * 100}%`;
    button.setAttribute("aria-label", `Point ${i + 1} at ${x}, ${y}`);
  }

  pixelAt(event) {
    const box = this.element.getBoundingClientRect();
    const pixel = (offset, side) => Math.max(0, Math.min(this.resolution - 1, Math.floor((offset / side) * this.resolution)));
    return [pixel(event.clientX - box.left, box.width), pixel(event.clientY - box.top, box.height)];
  }

  press(event) {
    this.pointer = event.pointerType;
    if (event.pointerType !== "mouse" || event.button !== 0 || event.target.closest(".point")) return;
    const i = this.add(this.pixelAt(event));
    if (i !== null) this.drag(event, i);
  }

  tap(event) { // a finger sets a point when it is lifted, so that it can still scroll the page
    if (this.pointer === "mouse" || event.target.closest(".point") || event.detail === 0) return;
    this.add(this.pixelAt(event));
  }

  add(point) {
    if (this.points.length >= this.colours.length) {
      this.onFull();
      return null;
    }
    this.update([...this.points, point]);
    return this.points.length - 1;
  }

  drag(event, i) {
    if (event.button !== 0) return;
    const button = this.element.querySelectorAll(".point")[i];
    button.setPointerCapture(event.pointerId);
    const move = (moveEvent) => this.move(i, this.pixelAt(moveEvent));
    button.addEventListener("pointermove", move);
    button.addEventListener("lostpointercapture", () => button.removeEventListener("pointermove", move), { once: true });
  }

  move(i, [x, y]) {
    if (!this.points[i] || (this.points[i][0] === x && this.points[i][1] === y)) return;
    this.update(this.points.map((point, j) => (j === i ? [x, y] : point)));
  }

  update(points) {
    this.setPoints(points);
    this.onChange(this.points);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const point = event.target.closest(".point");
    const step = STEPS[event.key];
    const size = (event.shiftKey ? 4 : 1) * Math.max(1, this.resolution / 64);
    const inside = (value) => Math.max(0, Math.min(this.resolution - 1, value));
    if (point) {
      const i = [...this.element.querySelectorAll(".point")].indexOf(point);
      if (step) this.move(i, [inside(Math.floor(this.points[i][0]) + step[0] * size), inside(Math.floor(this.points[i][1]) + step[1] * size)]);
      else if (event.key === "Delete" || event.key === "Backspace") {
        this.update(this.points.filter((_, j) => j !== i));
        (this.element.querySelectorAll(".point")[Math.min(i, this.points.length - 1)] || this.element).focus();
      } else return;
    } else if (step) {
      this.cross = [inside(this.cross[0] + step[0] * size), inside(this.cross[1] + step[1] * size)];
      this.drawCross();
    } else if (event.key === "Enter" || event.key === " ") this.add([...this.cross]);
    else if (event.key === "Delete" || event.key === "Backspace") this.update(this.points.slice(0, -1));
    else return;
    event.preventDefault();
  }

  showCrossOnFocus() {
    this.cross ||= [this.resolution / 2, this.resolution / 2];
    if (this.element.matches(":focus-visible")) this.drawCross();
  }

  drawCross() {
    const percent = 100 / this.resolution; // of a pixel
    this.crossElement.hidden = false;
    Object.assign(this.crossElement.style, {
      left: `${this.cross[0] * percent}%`, top: `${this.cross[1] * percent}%`, width: `${percent}%`, height: `${percent}%`,
    });
    this.onCross(`Cross at ${this.cross[0]}, ${this.cross[1]}`);
  }
}
