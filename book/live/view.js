// What the reader sees of a detection: verdict, maps, steps, histogram.
import {step} from "./dynamic_noise.js";
import {paintImage, paintMap} from "./heat.js";
import {histogram} from "./histogram.js";

export class View {
  /** root: the section. facts: {manifest, device, distances, edges} from the worker. */
  constructor(root, facts) {
    Object.assign(this, {root, facts, size: facts.manifest.settings.image_size});
    this.get = name => root.querySelector(`#live-${name}`);
  }

  /** The answer `found`, made from the picture x0, as ImageData `pixels`, under `settings`. */
  show(found, {x0, pixels}, settings) {
    const {threshold} = this.facts.manifest, {size} = this;
    this.verdict(found, threshold, settings);
    paintMap(this.get("map"), found.A, size, threshold ?? found.score, pixels);
    this.ring(found.peak);
    paintMap(this.get("latent"), found.latent, size, 1);
    paintMap(this.get("feature"), found.feature, size, 1);
    histogram(this.get("histogram"), this.facts, found, b => step(b, settings));
    this.steps(found, x0);
  }

  verdict({score, peak, b, T_hat, seconds}, threshold, settings) {
    const own = Object.entries(settings).every(([name, value]) => JSON.stringify(this.facts.manifest.settings[name]) === JSON.stringify(value));
    const anomalous = threshold !== null && score > threshold, two = value => value.toFixed(2);
    const sentence = threshold === null ? `The score is ${two(score)}; this detector has no threshold.`
      : anomalous ? `Something is wrong here: the score ${two(score)} is above the threshold ${two(threshold)}.`
        : `Looks good: the score ${two(score)} stays below the threshold ${two(threshold)}.`;
    Object.assign(this.root.dataset, {score, threshold, peak, seconds, verdict: anomalous ? "anomalous" : "good"});
    this.get("verdict").textContent = sentence + (own ? "" : " The threshold belongs to the detector's own settings, so here it is only a guide.");
    this.root.style.setProperty("--score", Math.min(score / (2 * (threshold ?? score)), 1));
    this.get("note").textContent = `Bin ${b} of ${settings.bins}, ${settings.dynamic ? "so" : "but static, so"} the picture is denoised from step ${T_hat}. `
      + `Computed in ${seconds.toFixed(2)} s by ${this.facts.device === "webgpu" ? "WebGPU" : "WebAssembly on one thread"}.`;
  }

  /** A ring on the map where it is largest. */
  ring([x, y]) {
    const context = this.get("map").getContext("2d");
    Object.assign(context, {strokeStyle: "white", lineWidth: 1});
    context.beginPath();
    context.arc(x + 0.5, y + 0.5, 5, 0, 2 * Math.PI);
    context.stroke();
  }

  /** A button for the input, each step, and the end; a step's is empty until it is decoded. Pressed, it shows its picture large. */
  steps({ts, x0_hat, T_hat}, x0) {
    this.tiles = ["input", ...ts.map(t => `t = ${t}`), "end"].map((label, i) => {
      const tile = document.createElement("button"), canvas = document.createElement("canvas"), text = document.createElement("span");
      Object.assign(tile, {type: "button", onclick: () => this.choose(i)});
      text.textContent = label;
      tile.append(canvas, text);
      return {tile, canvas, label, x0_hat: null};
    });
    this.get("steps").replaceChildren(...this.tiles.map(({tile}) => tile));
    this.T_hat = T_hat;
    this.fill(0, x0);
    this.fill(this.tiles.length - 1, x0_hat);
    this.choose(this.tiles.length - 1);
  }

  /** The guess of step i, counted from 0. */
  showStep(i, x0_hat) { this.fill(i + 1, x0_hat); }

  fill(tile, x0_hat) {
    this.tiles[tile].x0_hat = x0_hat;
    paintImage(this.tiles[tile].canvas, x0_hat, this.size);
  }

  choose(chosen) {
    const {x0_hat, label} = this.tiles[chosen];
    if (!x0_hat) return;
    this.tiles.forEach(({tile}, i) => tile.setAttribute("aria-pressed", i === chosen));
    paintImage(this.get("repainted"), x0_hat, this.size);
    this.get("shown").textContent = {input: "The picture as given", end: `Repainted from step ${this.T_hat}`}[label] ?? `The clean picture guessed at ${label}`;
  }
}
