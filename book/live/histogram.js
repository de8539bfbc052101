// The histogram of distances in the bins of Algorithm 2, with the picture's own mark, as an SVG that follows the theme.

const HEIGHT = 190, LEFT = 12, BASE = 130, TOP = 30;

const draw = (name, attributes, text = "") => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
};

/** distances (N) of `what`, edges (bins + 1), the picture's d, b and T_hat, and stepOf: b -> T_hat under the present settings. */
export function histogram(holder, {distances, edges, what}, {d, b, T_hat}, stepOf) {
  const WIDTH = Math.max(320, holder.clientWidth);                        // one unit a pixel, so that the letters keep their size
  const low = edges[0], high = edges[edges.length - 1], bins = edges.length - 1;
  const room = (high - low) * 0.35;                                       // beyond the bins, for pictures like none
  const x = value => LEFT + (Math.min(Math.max(value, low - room / 6), high + room) - low + room / 6) / (high - low + room * 7 / 6) * (WIDTH - 2 * LEFT);
  const counts = Array.from({length: bins}, (_, i) => distances.filter(v => (i === 0 || v >= edges[i]) && (i === bins - 1 || v < edges[i + 1])).length);
  const y = count => BASE - count / Math.max(...counts) * (BASE - TOP);
  const beyond = d > high + room || d < low - room / 6;
  const said = `d = ${d.toFixed(3)}${beyond ? ", farther than shown" : ""}: bin ${b}, step ${T_hat}`;
  const svg = draw("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
    "aria-label": `${bins} bins hold ${counts.join(", ")} ${what}; ${said}`});
  counts.forEach((count, i) => {
    const middle = (x(edges[i]) + x(edges[i + 1])) / 2;
    svg.append(
      draw("rect", {x: x(edges[i]) + 1, y: y(count), width: x(edges[i + 1]) - x(edges[i]) - 2, height: BASE - y(count), class: i + 1 === b ? "own" : "bar"}),
      draw("text", {x: middle, y: BASE + 18, class: i + 1 === b ? "strong" : ""}, i + 1),
      draw("text", {x: middle, y: BASE + 38, class: i + 1 === b ? "strong" : ""}, stepOf(i + 1)));
  });
  const rest = (x(high) + WIDTH - LEFT) / 2;
  svg.append(
    draw("line", {x1: LEFT, x2: WIDTH - LEFT, y1: BASE, y2: BASE, class: "axis"}),
    draw("text", {x: rest, y: BASE + 18}, "bin b"), draw("text", {x: rest, y: BASE + 38}, "step"),
    draw("line", {x1: x(d), x2: x(d), y1: TOP - 6, y2: BASE, class: "mark"}), draw("circle", {cx: x(d), cy: BASE, r: 5, class: "dot"}),
    draw("text", {x: x(d), y: TOP - 14, class: "strong", style: `text-anchor: ${x(d) > WIDTH * 0.7 ? "end" : x(d) < WIDTH * 0.3 ? "start" : "middle"}`}, said));
  holder.replaceChildren(svg);
}
