// The page: joins the picture, its tools, the settings and the worker. Nothing is loaded before the reader presses start, but a list of files.
import {Picture} from "./picture.js";
import {connect} from "./pointer.js";
import {toolsFor} from "./tools.js";
import {View} from "./view.js";

const root = document.querySelector("#live"), get = name => root.querySelector(`#live-${name}`), base = import.meta.url;
const megabytes = bytes => (bytes / 1e6).toFixed(1);
const settingInputs = [...root.querySelectorAll("[data-setting]")];
let worker, view, picture, rules, own, settings, asked = 0, waiting = null;   // own: settings, ranges and threshold of the chosen step rule

function fail(message) {
  const said = root.querySelector(".live-error");
  said.textContent = `This did not work: ${message}`;
  said.hidden = false;
  root.dataset.state = "failed";
}

// --- start

const files = await fetch(new URL("files.json", base)).then(response => response.json()).catch(() => null);
if (files) {
  const sum = names => names.reduce((bytes, name) => bytes + files.bytes[name], 0);
  const most = sum(files.model) + Math.max(...Object.values(files.runtime).map(({script, binary}) => sum([script, binary])));
  get("size").textContent = `loads ${megabytes(most)} MB or less, once`;
  root.querySelector(".live-start").hidden = false;
  get("start").onclick = start;
} else fail("files.json, which the site's build makes, could not be loaded.");

function start() {
  root.dataset.state = "loading";
  get("start").disabled = true;
  get("progress").hidden = false;
  worker = new Worker(new URL("worker.js", base), {type: "module"});
  worker.onerror = event => fail(event.message || "the background worker could not be started");
  worker.onmessage = ({data}) => answers[data.type](data);
  worker.postMessage({type: "start", files});
}

const answers = {
  progress({loaded, total}) {
    get("progress").value = loaded / total;
    get("size").textContent = loaded < total ? `${megabytes(loaded)} of ${megabytes(total)} MB` : "preparing the networks";
  },
  async ready(facts) {
    view = new View(root, facts);
    rules = Object.fromEntries(files.rules.map(({changes, ...rest}) => {
      const settings = {...facts.manifest.settings, ...changes};
      return [settings.step_rule, {settings, ...rest}];
    }));
    chooseRule(facts.manifest.settings.step_rule);
    picture = new Picture(get("picture"), settings.image_size);
    furnish();
    root.querySelector(".live-still").hidden = root.querySelector(".live-start").hidden = true;
    root.querySelector(".live-demo").hidden = false;
    await openBoard(0);
  },
  found(found) {
    if (found.id !== asked) return;
    view.show(found, waiting, settings, own);
    root.dataset.state = "ready";
  },
  step({id, i, x0_hat}) {
    if (id === asked) view.showStep(i, x0_hat);
  },
  error({message}) { fail(message); },
};

/** Asks the worker about the picture and settings as they are now. */
function detect() {
  root.dataset.state = "working";
  root.querySelector(".live-error").hidden = true;
  waiting = {x0: picture.x0(), pixels: picture.pixels()};
  worker.postMessage({type: "detect", id: ++asked, x0: waiting.x0, settings, ranges: own.ranges});
}

// --- the picture

async function openBoard(n) {
  await picture.openGood(files.gallery[n], base).then(detect, error => fail(error.message));
  [...get("gallery").children].forEach((button, i) => button.setAttribute("aria-pressed", i === n));
}

function furnish() {
  const options = {get size() { return Number(get("brush").value); }, get colour() { return get("colour").value; }};
  const tools = toolsFor(picture, options);
  let tool = tools.part;
  const pick = name => { tool.cancel?.(); tool = tools[name]; get("help").textContent = tool.help; mark(); };
  const changed = yes => yes && detect();
  get("tools").onchange = ({target}) => pick(target.value);
  connect(get("surface"), picture.size, {
    press(x, y) { changed(tool.press(x, y)); mark(x, y); },
    move(x, y, byKey) { tool.move(x, y); mark(x, y, byKey); },
    release(x, y) { changed(tool.release(x, y)); mark(x, y); },
    cancel() { changed(tool.release()); tool.cancel?.(); mark(); },
    leave() { mark(); },
  });

  /** Shows what the tool would touch at (x, y), or nothing; with the keyboard, also where that is. */
  function mark(x, y, byKey = false) {
    const marks = get("marks"), scale = 4, context = Object.assign(marks, {width: scale * picture.size, height: scale * picture.size}).getContext("2d");
    const {box, radius, name} = x === undefined ? {} : tool.marks(x, y);
    context.scale(scale, scale);
    for (const [colour, width] of [["black", 1.2], ["white", 0.6]]) {
      Object.assign(context, {strokeStyle: colour, lineWidth: width});
      context.beginPath();
      if (box) context.rect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
      if (radius || byKey) context.arc(x, y, Math.max(radius ?? 1.5, 1), 0, 2 * Math.PI);
      context.stroke();
    }
    get("where").textContent = name ? `Here: ${name}.` : "";
  }

  get("undo").onclick = () => { picture.undo(); detect(); };
  get("reset").onclick = () => { picture.reset(); detect(); };
  get("file").onchange = async ({target}) => {
    if (!target.files.length) return;
    await picture.openFile(target.files[0]).then(detect, error => fail(error.message));
    [...get("gallery").children].forEach(button => button.setAttribute("aria-pressed", false));
  };
  get("gallery").append(...files.gallery.map(({good}, n) => {
    const button = Object.assign(document.createElement("button"), {type: "button", onclick: () => openBoard(n)});
    button.append(Object.assign(new Image(), {src: new URL(good, base).href, alt: `good board ${n + 1}`, width: 44, height: 44}));
    return button;
  }));
  pick("part");
}

// --- the settings

/** The detector under a step rule, with all that goes with it. */
function chooseRule(name) {
  own = rules[name];
  settings = {...own.settings};
  root.querySelector(`[name=live-rule][value=${name}]`).checked = true;
  showSettings();
}

get("rules").onchange = ({target}) => { chooseRule(target.value); detect(); };

function showSettings() {
  for (const input of settingInputs) {
    input.value = JSON.stringify(settings[input.dataset.setting]);
    const output = input.parentElement.querySelector("output");
    if (output) output.textContent = input.value;
  }
  root.querySelector("[data-setting=noise]").disabled = settings.step_rule === "region";
}

for (const input of settingInputs) {
  input.oninput = () => {
    settings = {...settings, [input.dataset.setting]: JSON.parse(input.value)};
    settings.noise &&= settings.step_rule !== "region";                 // a region's start is only scaled
    showSettings();
    detect();
  };
}
get("own").onclick = () => {
  chooseRule(own.settings.step_rule);
  detect();
};
