// The gallery: filters, a list to browse by mouse or arrow keys, and the pictures of one image. What it shows was recorded: gallery/gallery.json
// and sheets of tiles, by book/tools/make_gallery.py.
const base = new URL("gallery/", import.meta.url), root = document.querySelector("#gallery"), get = name => root.querySelector(`#gallery-${name}`);
const OUTCOMES = {hit: ["hits", "✓"], miss: ["misses", "✕"], "false alarm": ["false alarms", "!"], "true negative": ["true negatives", "–"]};
const ALL = "all", RINGED = ["input", "repainting", "map"], THUMB = 64;
const words = text => text.replaceAll("_", " "), named = ({image}) => image.replace(/^test\/|\.\w+$/g, "");
const shown = {detector: "board", kind: ALL, outcome: ALL, image: ""};           // as in the address
let sets, images = [];                                                           // of all detectors; those that the filters leave

function make(tag, attributes = {}, ...children) {
  const element = tag === "svg" || make.svg.includes(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
make.svg = ["circle", "line", "text", "title"];

function fail(message) {
  Object.assign(root.querySelector(".gallery-error"), {textContent: `The gallery cannot be shown: ${message}`, hidden: false});
  root.dataset.state = "failed";
}

// --- sheets

const sheets = {};

/** A sheet of tiles, loaded once. */
function load({file}) {
  const sheet = Object.assign(new Image(), {src: new URL(file, base).href});
  return sheets[file] ??= sheet.decode().then(() => sheet, () => { throw new Error(`${file} could not be loaded.`); });
}

/** Draws tile n of a sheet, over what is there. */
function draw(canvas, sheet, n, side) {
  const {columns} = sets[shown.detector], context = canvas.getContext("2d");
  context.imageSmoothingEnabled = side > 32;
  context.drawImage(sheet, n % columns * side, Math.floor(n / columns) * side, side, side, 0, 0, canvas.width, canvas.height);
}

// --- filters

const among = (kind, outcome) => sets[shown.detector].images.filter(one => (kind === ALL || one.kind === kind) && (outcome === ALL || one.outcome === outcome));

function chip(name, value, text, mark = "") {
  const input = make("input", {type: "radio", name, value});
  input.checked = shown[name] === value;
  return make("label", {"data-outcome": mark && value}, input, make("span", {class: "gallery-mark", "aria-hidden": true}, mark), text);
}

function filters() {
  const kinds = [...new Set(sets[shown.detector].images.map(one => one.kind))];
  if (![ALL, ...kinds].includes(shown.kind)) shown.kind = ALL;
  const counted = (text, kind, outcome) => `${text} (${among(kind, outcome).length})`;
  get("detectors").replaceChildren(...Object.entries(sets).map(([name, {title}]) => chip("detector", name, title)));
  get("outcomes").replaceChildren(chip("outcome", ALL, counted("all", shown.kind, ALL)),
    ...Object.entries(OUTCOMES).map(([name, [many, mark]]) => chip("outcome", name, counted(many, shown.kind, name), mark)));
  get("kind").replaceChildren(...[ALL, ...kinds].map(kind => make("option", {value: kind}, counted(kind === ALL ? "all kinds" : words(kind), kind, ALL))));
  get("kind").value = shown.kind;
}

/** Another choice: the same image stays, if the filters leave it. */
async function choose(name, value) {
  shown[name] = value;
  const {activeElement} = document, focused = root.contains(activeElement) && activeElement.name;
  filters();
  if (focused) get("filters").querySelector(`[name="${focused}"]:is(:checked, select)`)?.focus();
  await list();
}

// --- the list

async function list() {
  const {title, sheets: {input}} = sets[shown.detector];
  images = among(shown.kind, shown.outcome);
  const options = images.map(one => {
    const canvas = make("canvas", {width: THUMB, height: THUMB});
    return make("div", {role: "option", "data-outcome": one.outcome, "aria-label": `${words(named(one))}, ${one.outcome}`}, canvas,
      make("span", {class: "gallery-mark", "aria-hidden": true}, OUTCOMES[one.outcome][1]));
  });
  get("list").replaceChildren(...options);
  get("list").hidden = root.querySelector(".gallery-shown").hidden = !images.length;
  if (!images.length) {
    const kind = shown.kind === ALL ? "" : ` of the kind “${words(shown.kind)}”`;
    get("position").textContent = `Nothing here: the detector “${title}” has no ${shown.outcome}${kind}.`;
    shown.image = "";
    return remember();
  }
  const sheet = await load(input), of = sets[shown.detector].images;
  options.forEach((option, i) => option.isConnected && draw(option.firstChild, sheet, of.indexOf(images[i]), input.side));
  await select(Math.max(0, images.findIndex(one => named(one) === shown.image)));
}

/** Which image the key leads to, from image i; undefined for a key of no meaning here. */
function moved(key, i) {
  const top = n => get("list").children[n].offsetTop, row = images.findIndex((_, n) => top(n) !== top(0)), last = images.length - 1;
  const by = row < 0 ? last : row;
  const to = {ArrowRight: i + 1, ArrowLeft: i - 1, ArrowDown: i + by, ArrowUp: i - by, Home: 0, End: last}[key];
  return to === undefined ? to : Math.min(Math.max(to, 0), last);
}

const current = () => images.findIndex(one => named(one) === shown.image);

async function select(i, focus = false) {
  const one = images[i], box = get("list"), option = box.children[i];
  shown.image = named(one);
  [...box.children].forEach((other, n) => {
    other.setAttribute("aria-selected", n === i);
    other.tabIndex = n === i ? 0 : -1;
  });
  if (focus) option.focus({preventScroll: true});
  box.scrollTop = Math.min(Math.max(box.scrollTop, option.offsetTop + option.offsetHeight - box.clientHeight + 4), option.offsetTop - 4);
  get("position").textContent = `${i + 1} of ${images.length}: ${words(shown.image)}, ${one.outcome}`;
  get("back").disabled = i === 0;
  get("on").disabled = i === images.length - 1;
  remember();
  await show(one);
}

// --- one image

const SAID = {
  hit: (score, bound, kind) => `Hit: the defect (${kind}) is found, its score ${score} is above the threshold ${bound}.`,
  miss: (score, bound, kind) => `Miss: there is a defect (${kind}), but the score ${score} is not above the threshold ${bound}.`,
  "false alarm": (score, bound) => `False alarm: the image is good, but its score ${score} is above the threshold ${bound}.`,
  "true negative": (score, bound) => `True negative: the image is good, and its score ${score} is not above the threshold ${bound}.`,
};

async function show(one) {
  const set = sets[shown.detector], n = set.images.indexOf(one), three = value => value.toFixed(3), size = `${(100 * one.area).toFixed(2)}%`;
  const [score, bound] = [one.score, set.threshold].map(three), stepped = Boolean(set.sheets.steps);
  root.dataset.outcome = one.outcome;
  get("verdict").textContent = SAID[one.outcome](score, bound, words(one.kind));
  const facts = {score, threshold: bound, [stepped ? "largest step" : "step"]: one.T_hat, "defect covers": one.area ? size : "nothing", file: one.image};
  get("facts").replaceChildren(...Object.entries(facts).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  axis(set, one);
  get("step").textContent = one.T_hat;
  get("most").textContent = set.T_max;
  root.querySelectorAll("[data-steps]").forEach(element => { element.hidden = (element.dataset.steps === "regions") !== stepped; });
  if (stepped) get("legend").replaceChildren(...Object.entries(set.steps).map(([T, colour]) => make("span", {}, make("i", {style: `background: ${colour}`}), T)));
  const told = {input: `Input: ${words(one.kind)}`, steps: `Steps of the regions, up to ${one.T_hat}`, repainting: "The input repainted",
    map: `Anomaly map, its largest value ${score}, threshold ${bound}`, mask: one.area ? `True mask: the defect covers ${size}` : "True mask: empty"};
  const ringed = get("ring").checked && one.area > 0;
  for (const [name, label] of Object.entries(told)) if (set.sheets[name]) {
    const canvas = get(name), sheet = await load(set.sheets[name]), ring = await load(set.sheets.ring);
    if (one !== set.images[n] || named(one) !== shown.image || set !== sets[shown.detector]) return;      // another was chosen meanwhile
    Object.assign(canvas, {width: set.sheets.input.side, height: set.sheets.input.side}).setAttribute("aria-label", label);
    draw(canvas, sheet, n, set.sheets[name].side);
    if (ringed && RINGED.includes(name)) draw(canvas, ring, n, set.sheets.ring.side);
  }
  root.dataset.state = "ready";
}

/** All scores that the filters leave, good images above, defective ones below, and the threshold. */
function axis({threshold, images: all}, one) {
  const holder = get("axis"), width = Math.max(300, holder.clientWidth), most = Math.max(...all.map(({score}) => score));
  const x = score => 78 + score / most * (width - 90), y = ({kind}) => kind === "good" ? 32 : 54;
  const dot = (other, r, name) => make("circle", {cx: x(other.score), cy: y(other), r, class: name});
  const label = `Scores from 0 to ${most.toFixed(2)}: this image ${one.score.toFixed(3)}, threshold ${threshold.toFixed(3)}`;
  holder.replaceChildren(make("svg", {viewBox: `0 0 ${width} 66`, role: "img", "aria-label": label},
    make("text", {x: 0, y: 36}, "good"), make("text", {x: 0, y: 58}, "defective"),
    ...images.map(other => dot(other, 4, `gallery-${other.outcome.replace(" ", "-")}`)),
    make("line", {x1: x(threshold), x2: x(threshold), y1: 18, y2: 66}), make("text", {x: x(threshold), y: 13, class: "gallery-middle"}, "threshold"),
    dot(one, 8, "gallery-current")));
}

// --- the address

const remember = () => history.replaceState(null, "", `#${new URLSearchParams(shown)}`);

/** Takes the choices from the address; whether there were any. */
function recall() {
  const asked = new URLSearchParams(location.hash.slice(1));
  if (!(asked.get("detector") in sets)) return false;
  for (const name of Object.keys(shown)) shown[name] = asked.get(name) ?? (name === "image" ? "" : ALL);
  if (!(shown.outcome in OUTCOMES)) shown.outcome = ALL;
  return true;
}

const unlessBroken = promise => promise.catch(error => fail(error.message));

async function start() {
  const answer = await fetch(new URL("gallery.json", base)).catch(() => null);
  if (!answer?.ok) throw new Error("gallery.json could not be loaded; opened from a disk, a browser refuses to, so serve the folder.");
  sets = await answer.json();
  const asked = recall();
  filters();
  root.querySelector(".gallery-all").hidden = false;
  get("filters").onchange = ({target}) => unlessBroken(target === get("ring") ? show(images[current()]) : choose(target.name, target.value));
  get("list").onclick = ({target}) => {
    const i = [...get("list").children].indexOf(target.closest("[role=option]"));
    if (i >= 0) unlessBroken(select(i, true));
  };
  get("list").onkeydown = event => {
    const to = event.ctrlKey || event.metaKey || event.altKey ? undefined : moved(event.key, current());
    if (to === undefined) return;
    event.preventDefault();
    unlessBroken(select(to, true));
  };
  get("back").onclick = () => unlessBroken(select(current() - 1));
  get("on").onclick = () => unlessBroken(select(current() + 1));
  addEventListener("hashchange", () => { if (recall()) { filters(); unlessBroken(list()); } });
  if (asked) root.scrollIntoView();
  await list();
}

unlessBroken(start());
