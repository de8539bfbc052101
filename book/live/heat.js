// Maps as colours: matplotlib's "inferno", as ddad/deploy/overlays.py has it.

const INFERNO = [[0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164]];

const TABLE = Array.from({length: 256}, (_, i) => {
  const x = i / 255 * (INFERNO.length - 1), low = Math.min(Math.floor(x), INFERNO.length - 2);
  return INFERNO[low].map((value, c) => value + (x - low) * (INFERNO[low + 1][c] - value));
});

/** [r, g, b] of a value in 0 .. 1, which is what the others are taken for. */
export const colourOf = value => TABLE[Math.round(255 * Math.min(Math.max(value, 0), 1))];

/** Paints a map of side n, `middle` lying in the middle of the scale; over a picture (ImageData) where one is given, of which `share` is seen. */
export function paintMap(canvas, A, n, middle, under = null, share = 0.45) {
  const image = new ImageData(n, n);
  A.forEach((value, i) => {
    const colour = colourOf(value / (2 * middle));
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = under ? share * under.data[4 * i + c] + (1 - share) * colour[c] : colour[c];
    image.data[4 * i + 3] = 255;
  });
  Object.assign(canvas, {width: n, height: n}).getContext("2d").putImageData(image, 0, 0);
}

/** The picture without its colours. */
export function grey({data, width, height}) {
  const image = new ImageData(width, height);
  for (let i = 0; i < data.length; i += 4) image.data.fill((data[i] + data[i + 1] + data[i + 2]) / 3, i, i + 3);
  return image;
}

/** Paints an image x0 (3 n n) in [-1, 1]. */
export function paintImage(canvas, x0, n) {
  const image = new ImageData(n, n);
  for (let i = 0; i < n * n; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round((x0[c * n * n + i] + 1) * 127.5);
    image.data[4 * i + 3] = 255;
  }
  Object.assign(canvas, {width: n, height: n}).getContext("2d").putImageData(image, 0, 0);
}
