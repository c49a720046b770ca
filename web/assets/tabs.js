// The tabs of the page: which one is open outlives a reload, and a link to a dream opens its list.

const OPEN_TAB = "streamdream-tab", FIND_MS = 200, MAX_TRIES = 100;

const buttonOf = (name) => document.getElementById(`tab-${name}-button`);
const nameOf = (button) => button?.id.replace(/^tab-|-button$/g, "") ?? "";

export function openTab(name) {
  buttonOf(name)?.click();
}

// Open the tab of a link, or the one that was open before a reload, as soon as there are tabs; not once the visitor has
// opened one.
export function restoreTab() {
  const name = new URLSearchParams(location.search).has("dream") ? "dreams" : readTab();
  let isChosen = false;
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[role=tab]");
    if (!button) return;
    isChosen = true;
    storeTab(nameOf(button));
  });
  const open = (tries) => {
    const opened = document.querySelector("[role=tab][aria-selected=true]");
    if (isChosen || !name) return;
    if (!opened && tries) setTimeout(() => open(tries - 1), FIND_MS);
    else if (opened === document.querySelector("[role=tab]")) openTab(name);
    else storeTab(nameOf(opened));
  };
  open(MAX_TRIES);
}

// In this tab of the browser only: another one begins with the first tab of the page.
function readTab() {
  try {
    return sessionStorage.getItem(OPEN_TAB);
  } catch {
    return null;
  }
}

function storeTab(name) {
  try {
    sessionStorage.setItem(OPEN_TAB, name);
  } catch { /* no storage */ }
}

// After an event that a lost network has broken, Gradio asks for its "app_id" until the server answers, and then loads the
// page again. Not while the live dream runs: it goes on by itself, and nothing else is lost by waiting.
const request = window.fetch;
window.fetch = (...parts) => {
  const url = String(parts[0]?.url ?? parts[0]);
  if (url.endsWith("/gradio_api/app_id") && ["live", "lost", "restart"].includes(document.querySelector(".sd")?.dataset.state)) {
    return Promise.reject(new TypeError("the page is in use"));
  }
  return request(...parts);
};
