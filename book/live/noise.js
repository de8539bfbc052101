// Gaussian noise from a seed, for the comparison with noise and for drawn latents. PyTorch draws other numbers from the same seed.

/** () -> one draw from N(0, 1): uniform numbers of the generator "mulberry32", two by two by Box and Muller's rule. */
export function gaussian(seed) {
  const uniform = () => {
    seed = seed + 0x6D2B79F5 | 0;
    let x = Math.imul(seed ^ seed >>> 15, 1 | seed);
    x = x + Math.imul(x ^ x >>> 7, 61 | x) ^ x;
    return ((x ^ x >>> 14) >>> 0) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}
