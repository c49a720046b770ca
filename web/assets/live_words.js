// What the tab Live says about the queue and the connection.

import strings from "./strings.js";
import { fill } from "./words.js";

const WORDS = strings.live;
const LONG_SECONDS = 12;            // a server that restarts takes longer than a moment

// Show a title and a text in the place of the picture.
export function showIntro(root, title, text) {
  root.querySelector(".sd-title").textContent = title;
  root.querySelector(".sd-text").textContent = text;
}

// ``place``: number of visitors who are before this one; ``seconds``: until its turn, at most.
export function queueWords({ place, sessions, seconds }) {
  const places = sessions > 1 ? fill(WORDS.places, { count: sessions }) : WORDS.only_place;
  const ahead = place > 1 ? fill(WORDS.people_ahead, { count: place }) : place ? WORDS.person_ahead : WORDS.next;
  const minutes = Math.ceil(seconds / 60);
  const wait = minutes > 1 ? fill(WORDS.wait_minutes, { count: minutes }) : WORDS.wait_minute;
  return `${places} ${ahead} ${wait}`;
}

// ``state``: "restart" when the server said that it restarts; ``seconds``: without a connection.
export function connectionWords(state, seconds) {
  if (navigator.onLine === false) return WORDS.offline;
  if (seconds < LONG_SECONDS) return state === "restart" ? WORDS.restart : WORDS.lost;
  const time = seconds < 60 ? fill(WORDS.seconds, { count: Math.floor(seconds) })
    : fill(WORDS.minutes, { count: Math.floor(seconds / 60) });
  return fill(WORDS.lost_long, { time });
}

// Why no WebSocket could be opened: the status of a plain request says more, as from a proxy.
export async function blockedWords() {
  const answer = await fetch(new URL("live/facts", document.baseURI), { cache: "no-store" }).catch(() => null);
  return strings.http[answer?.status] ?? WORDS.blocked;
}
