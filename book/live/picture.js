// The picture that the reader changes: a canvas of exactly the detector's pixels, with what it was, and which part each pixel shows.

const UNDO = 30;

export class Picture {
  constructor(canvas, size) {
    Object.assign(canvas, {width: size, height: size});
    this.size = size;
    this.context = canvas.getContext("2d", {willReadFrequently: true});
    this.history = [];
    this.parts = [];
  }

  pixels() {
    return this.context.getImageData(0, 0, this.size, this.size);
  }

  /** x0 (3 size size) in [-1, 1]. */
  x0() {
    const {data} = this.pixels(), n = this.size ** 2, x0 = new Float32Array(3 * n);
    for (let i = 0; i < n; i++) for (let c = 0; c < 3; c++) x0[c * n + i] = data[4 * i + c] / 127.5 - 1;
    return x0;
  }

  /** Opens a board of the gallery: the good picture, the same without any part, and the part of each pixel. */
  async openGood({good, bare, parts, list}, base) {
    const [whole, without, owner] = await Promise.all([good, bare, parts].map(async path => {
      const response = await fetch(new URL(path, base));
      if (!response.ok) throw new Error(`${path} could not be loaded (HTTP ${response.status})`);
      return this.read(await createImageBitmap(await response.blob()));
    }));
    this.open(whole);
    Object.assign(this, {without, owner: owner.data.filter((_, i) => i % 4 === 0), parts: list});
  }

  /** Opens a picture of the reader's own, squashed to the square, transparent places black: as the package reads files. */
  async openFile(file) {
    const bitmap = await createImageBitmap(file).catch(() => { throw new Error(`${file.name} is no picture that this browser can read`); });
    this.open(this.read(bitmap));
    Object.assign(this, {owner: null, parts: []});
  }

  read(bitmap) {
    const context = Object.assign(document.createElement("canvas"), {width: this.size, height: this.size}).getContext("2d");
    context.fillRect(0, 0, this.size, this.size);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, this.size, this.size);
    return context.getImageData(0, 0, this.size, this.size);
  }

  open(pixels) {
    this.first = pixels;
    this.history = [];
    this.context.putImageData(pixels, 0, 0);
  }

  /** Notes the picture as it is, before a change. */
  remember() {
    this.history = [...this.history.slice(1 - UNDO), this.pixels()];
  }

  undo() {
    if (this.history.length) this.context.putImageData(this.history.pop(), 0, 0);
  }

  reset() {
    this.remember();
    this.context.putImageData(this.first, 0, 0);
  }

  /** The number of the part at a pixel, from 1; 0 where there is none. */
  partAt(x, y) {
    return this.owner?.[Math.floor(y) * this.size + Math.floor(x)] ?? 0;
  }

  /** Shows the bare board where a part was. */
  takeAway(part) {
    const now = this.pixels();
    this.owner.forEach((owner, i) => {
      if (owner === part) now.data.set(this.without.data.subarray(4 * i, 4 * i + 4), 4 * i);
    });
    this.context.putImageData(now, 0, 0);
  }
}
