// The slider Intensity: one position for the settings that make a dream strong. web/pages/intensity.py says which, and
// by what factor of the look's own values. The position is that of the strength, so it needs no memory of its own.

const LEADING = "strength";
const DIGITS = 4;

export class Intensity {
  // ``points``: setting -> [[position, factor], ...]; ``own``: values in the middle.
  constructor(points, own) {
    this.points = points;
    this.own = Object.fromEntries(Object.keys(points).map((name) => [name, own[name]]));
    this.own[LEADING] ||= 1;          // a server may start with the picture alone
  }

  // 0..100
  position(values) {
    return interpolate(this.points[LEADING].map(([position, factor]) => [factor, position]), values[LEADING] / this.own[LEADING]);
  }

  // The settings at a position.
  at(position) {
    return Object.fromEntries(Object.entries(this.points).map(([name, points]) =>
      [name, Number((this.own[name] * interpolate(points, position)).toPrecision(DIGITS))]));
  }

  // Take over the own values of what is dreamed now: these, with the intensity that they have, are how it was set.
  learn(values) {
    const position = this.position(values);
    for (const [name, points] of Object.entries(this.points)) {
      if (name !== LEADING) this.own[name] = values[name] / interpolate(points, position);
    }
  }
}

function interpolate(points, at) {
  const next = Math.max(1, points.findIndex(([position]) => position >= at));
  const [[low, from], [high, to]] = at >= points.at(-1)[0] ? points.slice(-2) : points.slice(next - 1, next + 1);
  return from + (to - from) * (Math.max(points[0][0], Math.min(points.at(-1)[0], at)) - low) / (high - low);
}
