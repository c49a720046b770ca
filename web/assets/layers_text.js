// The text of layers, as in streamdream/settings_parsing.py: "mixed3:1,mixed5[33,220]:0.5,mixed5[12]:-0.5".

const PART = /\s*([^[\]:,]+)(?:\[([^[\]]*)\])?(?::([^,]*))?(?:,|$)/g;

// -> [{layer, channel, weight}], a part for each channel; ``channel`` is null for a whole layer. The weight of several
// channels is that of their mean, so each gets its share.
export function parseLayers(text) {
  return [...text.matchAll(PART)].flatMap(([, layer, numbers, weight]) => {
    const channels = numbers ? numbers.split(",").map(Number) : [null];
    return channels.map((channel) =>
      ({ layer: layer.trim(), channel, weight: (weight ? Number(weight) : 1) / channels.length }));
  });
}

export function formatLayers(parts) {
  return parts.map(({ layer, channel, weight }) =>
    `${layer}${channel === null ? "" : `[${channel}]`}:${Number(weight.toPrecision(4))}`).join(",");
}

// The layers that name no channels get these: ("mixed3:1", "3,17") -> "mixed3[3]:0.5,mixed3[17]:0.5".
export function withChannels(text, numbers) {
  const channels = numbers.split(",").map(Number);
  return formatLayers(parseLayers(text).flatMap((part) => (part.channel !== null ? [part]
    : channels.map((channel) => ({ ...part, channel, weight: part.weight / channels.length })))));
}

// As in "mixed3:1,mixed5[33]:0.5" -> ["mixed3", "mixed5"].
export function layerNames(text) {
  return [...new Set(parseLayers(text).map(({ layer }) => layer))];
}

export function isSame(one, other) {
  return one.layer === other.layer && one.channel === other.channel;
}
