// Fill values into the words of strings.js: fill("{count} dreams", { count: 3 }).
export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}
