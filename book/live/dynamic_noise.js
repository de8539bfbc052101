// Dynamic noise (paper, section 3.2, Algorithm 2): how far a picture is denoised follows how anomalous it looks at first.
// The same functions as in ddad/dynamic_noise.py.

/** y: a feature map phi_j(x0), {data, shape: [C, h, w]}, average-pooled to pool x pool and flattened. */
export function feature({data, shape: [C, h, w]}, pool) {
  const p = Math.min(pool, w), y = new Float32Array(C * p * p);
  const from = (i, n) => Math.floor(i * n / p), to = (i, n) => Math.ceil((i + 1) * n / p);
  for (let c = 0, n = 0; c < C; c++) for (let i = 0; i < p; i++) for (let j = 0; j < p; j++, n++) {
    let sum = 0, count = 0;
    for (let row = from(i, h); row < to(i, h); row++) for (let column = from(j, w); column < to(j, w); column++, count++) {
      sum += data[(c * h + row) * w + column];
    }
    y[n] = sum / count;
  }
  return y;
}

/** d: mean over features of the L1 distance from y (D) to the K nearest rows of the bank, {data, shape: [N, D]}. */
export function meanDistance(y, {data, shape: [N, D]}, K) {
  const distance = new Float64Array(N);
  for (let n = 0; n < N; n++) {
    let sum = 0;
    for (let k = 0; k < D; k++) sum += Math.abs(y[k] - data[n * D + k]);
    distance[n] = sum / D;
  }
  return distance.sort().subarray(0, K).reduce((a, b) => a + b, 0) / K;
}

/** b in 1 .. bins: below the first edge bin 1, beyond the last the last bin; an inner edge belongs to the bin that `edge_bin` says. */
export function bin(d, edges, {edge_bin}) {
  const inner = edges.subarray(1, edges.length - 1);
  return 1 + inner.filter(edge => edge_bin === "upper" ? edge <= d : edge < d).length;
}

/** T_hat of bin b, a multiple of ten: floor(b / bins T_max), rounded to the nearest ten; T_max itself where the step is static. */
export function step(b, {bins, smallest_bin, T_max, step_rule, level_rounding, timesteps}) {
  if (step_rule === "static") return T_max;
  const level = Math.max(b, smallest_bin) * T_max / bins;
  const tens = level_rounding === "floor" ? roundHalfEven(Math.floor(level) / 10) : Math.floor(level / 10 + 0.5);
  return Math.min(Math.max(10 * tens, 10), timesteps - 1);
}

/** A tie goes to the even number, as in Python. */
function roundHalfEven(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + low % 2 : Math.round(x);
}
