// What breaks a picture. A tool has press, move and release, in pixels of the picture; press and release return whether the picture changed.
// `marks` is what to draw over the picture at the pointer: {box: [x0, y0, x1, y1]} or {radius}.

/** One stroke from a to b. */
function line(context, [ax, ay], [bx, by], width, colour) {
  Object.assign(context, {lineWidth: width, strokeStyle: colour, lineCap: "round"});
  context.beginPath();
  context.moveTo(ax, ay);
  context.lineTo(bx, by);
  context.stroke();
}

class Brush {
  help = "Draw on the board, in any colour.";

  constructor(picture, options) { Object.assign(this, {picture, options, at: null}); }

  stroke(to) { line(this.picture.context, this.at ?? to, to, this.options.size, this.options.colour); }

  press(...to) { this.picture.remember(); this.stroke(to); this.at = to; }

  move(...to) { if (this.at) { this.stroke(to); this.at = to; } }

  release() { const drawn = this.at !== null; this.at = null; return drawn; }

  marks() { return {radius: this.options.size / 2}; }
}

class Scratch extends Brush {
  help = "Draw a thin, light line that shakes a little.";

  stroke(to) {
    const shaken = to.map(value => value + (Math.random() - 0.5));
    line(this.picture.context, this.at ?? to, shaken, Math.max(1, this.options.size / 8), "rgb(199, 219, 184)");
  }

  marks() { return {radius: Math.max(1, this.options.size / 8)}; }
}

class Stain extends Brush {
  help = "Press where it drips.";

  stroke([x, y]) {
    if (this.at) return;                                                // one press, one stain
    const {context} = this.picture, {size} = this.options;
    context.fillStyle = "rgba(71, 43, 18, 0.75)";
    context.beginPath();
    for (let k = 0, phase = Math.random() * 6; k <= 40; k++) {
      const angle = k / 40 * 2 * Math.PI, radius = size / 2 * (1 + 0.12 * Math.sin(2 * angle + phase) + 0.12 * Math.sin(3 * angle));
      context.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
    }
    context.fill();
  }
}

class TakeAway {
  help = "Press a part of the board, and it was never there.";

  constructor(picture) { this.picture = picture; }

  press(x, y) {
    const part = this.picture.partAt(x, y);
    if (part) { this.picture.remember(); this.picture.takeAway(part); }
    return part > 0;
  }

  move() {}

  release() {}

  marks(x, y) { const part = this.picture.parts[this.picture.partAt(x, y) - 1]; return part ? {box: part.box, name: part.name} : {}; }
}

class Copy {
  help = "Drag a box around something; then press where it should be, as often as you like. Escape lets go of it.";

  constructor(picture) { Object.assign(this, {picture, from: null, to: null, held: null}); }

  get box() {
    const [a, b] = [this.from, this.to], clip = value => Math.min(Math.max(value, 0), this.picture.size);
    return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])].map(value => clip(Math.round(value)));
  }

  corner(x, y) { return [Math.round(x - this.held.width / 2), Math.round(y - this.held.height / 2)]; }

  press(x, y) {
    if (!this.held) { this.from = this.to = [x, y]; return false; }
    this.picture.remember();
    this.picture.context.putImageData(this.held, ...this.corner(x, y));
    return true;
  }

  move(x, y) { if (this.from) this.to = [x, y]; }

  release() {
    if (!this.from) return;
    const [x0, y0, x1, y1] = this.box;
    if (x1 - x0 > 2 && y1 - y0 > 2) this.held = this.picture.context.getImageData(x0, y0, x1 - x0, y1 - y0);
    this.from = null;
  }

  cancel() { this.from = this.held = null; }

  marks(x, y) {
    if (this.from) return {box: this.box};
    if (!this.held) return {radius: 1};
    const [left, top] = this.corner(x, y);
    return {box: [left, top, left + this.held.width, top + this.held.height]};
  }
}

/** All tools for a picture; options {size, colour} are read at each stroke. */
export const toolsFor = (picture, options) => ({
  part: new TakeAway(picture), brush: new Brush(picture, options), scratch: new Scratch(picture, options), stain: new Stain(picture, options),
  copy: new Copy(picture),
});
