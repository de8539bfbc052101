// What the reader sees of a detection: verdict, maps, steps, histogram.
import {step} from "./dynamic_noise.js";
import {colourOf, grey, paintImage, paintMap} from "./heat.js";
import {histogram} from "./histogram.js";

export class View {
  /** root: the section. facts: {manifest, device, distances, edges, patchEdges} from the worker. */
  constructor(root, facts) {
    Object.assign(this, {root, facts, size: facts.manifest.settings.image_size});
    this.get = name => root.querySelector(`#live-${name}`);
    this.largest = Number(root.querySelector("[data-setting=T_max]").max);
  }

  /** The answer `found`, made from the picture x0, as ImageData `pixels`, under `settings`; own: those of its step rule, {settings, threshold}. */
  show(found, {x0, pixels}, settings, own) {
    const {size} = this, {threshold} = own;
    this.verdict(found, settings, own);
    paintMap(this.get("map"), found.A, size, threshold ?? found.score, pixels);
    this.ring(found.peak);
    paintMap(this.get("latent"), found.latent, size, 1);
    paintMap(this.get("feature"), found.feature, size, 1);
    if (found.patch) paintMap(this.get("patch"), found.patch, size, 1);
    this.howFar(found, pixels, b => step(b, settings), settings.bins);
    this.steps(found, x0);
  }

  verdict({score, peak, b, T_hat, seconds}, settings, {threshold, settings: own}) {
    const isOwn = Object.entries(settings).every(([name, value]) => JSON.stringify(own[name]) === JSON.stringify(value));
    const anomalous = threshold !== null && score > threshold, two = value => value.toFixed(2);
    const sentence = threshold === null ? `The score is ${two(score)}; this detector has no threshold.`
      : anomalous ? `Something is wrong here: the score ${two(score)} is above the threshold ${two(threshold)}.`
        : `Looks good: the score ${two(score)} stays below the threshold ${two(threshold)}.`;
    Object.assign(this.root.dataset, {score, threshold, peak, seconds, verdict: anomalous ? "anomalous" : "good"});
    this.get("verdict").textContent = sentence + (isOwn ? "" : " The threshold belongs to this step rule's own settings, so here it is only a guide.");
    this.root.style.setProperty("--score", Math.min(score / (2 * (threshold ?? score)), 1));
    const from = {image: `so the picture is denoised from step ${T_hat}`, static: `but static, so the picture is denoised from step ${T_hat}`,
      region: `so its regions are denoised from steps up to ${T_hat}`}[settings.step_rule];
    const first = settings.step_rule === "region" ? "Of the farthest region: bin" : "Bin";
    this.get("note").textContent = `${first} ${b} of ${settings.bins}, ${from}. Computed in ${seconds.toFixed(2)} s by `
      + `${this.facts.device === "webgpu" ? "WebGPU" : "WebAssembly on one thread"}.`;
  }

  /** A ring on the map where it is largest. */
  ring([x, y]) {
    const context = this.get("map").getContext("2d");
    Object.assign(context, {strokeStyle: "white", lineWidth: 1});
    context.beginPath();
    context.arc(x + 0.5, y + 0.5, 5, 0, 2 * Math.PI);
    context.stroke();
  }

  /** The step map, of one step where there is no map T; the distances in their bins, of pictures or, with T, of this picture's regions. stepOf: b -> T_hat. */
  howFar(found, pixels, stepOf, bins) {
    const {T, d_p} = found, {distances, edges, patchEdges} = this.facts;
    this.root.dataset.rule = T ? "region" : "image";
    this.stepMap(T ?? new Array(d_p.length).fill(found.T_hat), pixels, [...new Set(Array.from({length: bins}, (_, i) => stepOf(i + 1)))]);
    if (T) {
      histogram(this.get("histogram"), {distances: d_p, edges: patchEdges, what: "regions"}, {...found, d: Math.max(...d_p)}, stepOf);
    } else histogram(this.get("histogram"), {distances, edges, what: "training pictures"}, found, stepOf);
  }

  /** The step of each region over the picture, by its logarithm, and which colour is which step: a step keeps its colour whatever T_max is. */
  stepMap(T, pixels, steps) {
    const {size} = this, h = Math.sqrt(T.length), shade = t => Math.log(t / 10) / Math.log(this.largest / 10), at = n => Math.floor(n * h / size);
    paintMap(this.get("stepmap"), Float32Array.from({length: size * size}, (_, n) => shade(T[at(Math.floor(n / size)) * h + at(n % size)])), size, 0.5, grey(pixels), 0.3);
    const shares = steps.map(t => T.filter(one => one === t).length / T.length);
    this.get("stepmap").setAttribute("aria-label", "Steps, over the picture: "
      + steps.map((t, i) => `${t} on ${Math.round(100 * shares[i])}%`).filter((_, i) => shares[i]).join(", "));
    this.get("legend").replaceChildren(...steps.map((t, i) => {
      const entry = document.createElement("span"), swatch = document.createElement("i");
      swatch.style.background = `rgb(${colourOf(shade(t)).map(Math.round)})`;
      entry.classList.toggle("live-absent", shares[i] === 0);
      entry.append(swatch, t);
      return entry;
    }));
  }

  /** A button for the input, for it decoded only, for each step, and the end; empty until it is decoded. Pressed, it shows its picture large. */
  steps({ts, x0_hat, T_hat}, x0) {
    this.tiles = ["input", "decoded", ...ts.map(t => `t = ${t}`), "end"].map((label, i) => {
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

  /** The guess of step i, counted from 0; of -1, the picture encoded and decoded only. */
  showStep(i, x0_hat) { this.fill(i + 2, x0_hat); }

  fill(tile, x0_hat) {
    this.tiles[tile].x0_hat = x0_hat;
    paintImage(this.tiles[tile].canvas, x0_hat, this.size);
  }

  choose(chosen) {
    const {x0_hat, label} = this.tiles[chosen];
    if (!x0_hat) return;
    this.tiles.forEach(({tile}, i) => tile.setAttribute("aria-pressed", i === chosen));
    paintImage(this.get("repainted"), x0_hat, this.size);
    this.get("shown").textContent = {input: "The picture as given", decoded: "The picture encoded and decoded, nothing in between", end: `Repainted from step ${this.T_hat}`}[label] ?? `The clean picture guessed at ${label}`;
  }
}
