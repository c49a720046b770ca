// One stop of the Tab key for a group of buttons: the arrow keys move within it, to the next button in that direction.

const DIRECTIONS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

// ``isChoice``: the stop is at the pressed button. Returns a function to call when the buttons, or their state, have
// changed.
export function rove(box, selector, isChoice = false) {
  const items = () => [...box.querySelectorAll(selector)].filter((item) => item.checkVisibility() && !item.disabled);
  const stopAt = (current) => {
    for (const item of box.querySelectorAll(selector)) item.tabIndex = item === current ? 0 : -1;
  };
  const refresh = () => {
    const all = [...box.querySelectorAll(selector)];
    stopAt(all.find((item) => item === document.activeElement)
      ?? all.find((item) => isChoice && item.ariaPressed === "true") ?? all[0]);
  };
  box.addEventListener("focusin", (event) => {
    const item = event.target.closest(selector);
    if (item) stopAt(item);
  });
  box.addEventListener("keydown", (event) => {
    const item = event.target.closest(selector);
    if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = items();
    const next = { Home: all[0], End: all.at(-1) }[event.key] ?? nearest(item, all, DIRECTIONS[event.key]);
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
  refresh();
  return refresh;
}

// The nearest of ``items`` in a direction; the next or the one before in their order at the end of a row.
function nearest(item, items, direction) {
  if (!direction) return undefined;
  const [right, down] = direction, from = item.getBoundingClientRect();
  const ahead = items.map((other) => {
    const to = other.getBoundingClientRect(), x = to.x - from.x, y = to.y - from.y;
    const along = x * right + y * down, across = Math.abs(x * down + y * right);
    return { other, along, isInLine: down || across < from.height / 2, distance: along + 4 * across };
  }).filter(({ along, isInLine }) => along > 1 && isInLine);
  if (ahead.length) return ahead.reduce((one, other) => (other.distance < one.distance ? other : one)).other;
  return right ? items[items.indexOf(item) + right] : undefined;
}
