// Mouse, pen, finger and keyboard, all as press, move and release in pixels of the picture.

/** Calls on.press, on.move, on.release (x, y), on.cancel (), on.leave (). Keys: arrows, Space or Enter, Escape. */
export function connect(surface, size, on) {
  let key = [size / 2, size / 2], down = false;
  const place = event => {
    const box = surface.getBoundingClientRect(), inside = value => Math.min(Math.max(value, 0), 1 - 1e-6) * size;
    return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
  };
  surface.addEventListener("pointerdown", event => {
    if (event.button !== 0 || !event.isPrimary) return;
    surface.setPointerCapture(event.pointerId);
    on.press(...place(event));
  });
  surface.addEventListener("pointermove", event => event.isPrimary && on.move(...place(event)));
  surface.addEventListener("pointerup", event => event.isPrimary && on.release(...place(event)));
  surface.addEventListener("pointercancel", on.cancel);
  surface.addEventListener("pointerleave", on.leave);
  const lift = () => { if (down) { down = false; on.release(...key); } };
  surface.addEventListener("blur", lift);
  surface.addEventListener("keydown", event => {
    const [dx, dy] = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key] ?? [0, 0];
    if (dx || dy) {
      key = [key[0] + dx * (event.shiftKey ? 10 : 2), key[1] + dy * (event.shiftKey ? 10 : 2)].map(value => Math.min(Math.max(value, 0), size - 1));
      on.move(...key, true);
    } else if (event.key === " " || event.key === "Enter") {
      if (event.repeat) return event.preventDefault();
      if (down) lift();
      else { down = true; on.press(...key); }
    } else if (event.key === "Escape") {
      down = false;
      on.cancel();
    } else return;
    event.preventDefault();
  });
}
