// The frame of the page: its theme, the terms, the tabs. Loaded before Gradio, whose controls it names as they come.

import { describeControls } from "./control_names.js";
import { explainRefusedEvents } from "./event_words.js";
import { keepFocus } from "./focus.js";
import { readOption, storeOption } from "./stored_options.js";
import strings from "./strings.js";
import { restoreTab } from "./tabs.js";
import { holdSettings } from "./use_settings.js";

const DARK = matchMedia("(prefers-color-scheme: dark)");
const TAB_MOVES = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
const WATCHED = ["aria-selected", "class", "data-state", "disabled", "hidden"];

// --- theme: that of the link, else the visitor's choice, else the system's

let theme = new URLSearchParams(location.search).get("__theme") ?? readOption("theme");

function showTheme() {
  const isDark = theme ? theme === "dark" : DARK.matches;
  document.body.classList.toggle("dark", isDark);
  document.documentElement.style.colorScheme = isDark ? "dark" : "light";   // scroll bars, lists of choices
  document.querySelector(".sd-theme").ariaPressed = String(isDark);
  const ground = getComputedStyle(document.body).getPropertyValue("--sd-ground");
  if (ground) document.querySelector("meta[name=theme-color]").content = ground;
}

function toggleTheme() {
  theme = document.body.classList.contains("dark") ? "light" : "dark";
  storeOption("theme", theme);
  showTheme();
}

// --- terms: a visitor agrees to each version once

function showTerms(terms) {
  const { version } = terms.dataset;
  if (readOption("terms") === version) return;
  terms.addEventListener("cancel", (event) => event.preventDefault());   // Escape is no consent,
  terms.addEventListener("keydown", (event) => { if (event.key === "Escape") event.preventDefault(); });   // nor twice
  terms.querySelector("button").addEventListener("click", () => {
    storeOption("terms", version);
    terms.close();
  });
  terms.showModal();
}

// --- tabs: one stop of the Tab key; arrow keys, Home and End move between them

function onTabKey(event) {
  const tab = event.target.closest?.("[role=tab]");
  if (!tab || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  const tabs = [...tab.parentElement.querySelectorAll("[role=tab]")];
  let next = tabs[(tabs.indexOf(tab) + TAB_MOVES[event.key] + tabs.length) % tabs.length];
  if (event.key === "Home") next = tabs[0];
  if (event.key === "End") next = tabs.at(-1);
  if (!next) return;
  event.preventDefault();
  next.focus();
  next.click();
}

function describeTabs() {
  for (const list of document.querySelectorAll("[role=tablist]")) list.ariaLabel = strings.frame.tabs;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    tab.tabIndex = tab.ariaSelected === "true" ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls"))?.setAttribute("aria-labelledby", tab.id);
  }
}

function skipToContent(event) {
  event.preventDefault();             // the address holds the settings of the live dream
  const panel = [...document.querySelectorAll("[role=tabpanel]")].find((each) => each.checkVisibility());
  if (!panel) return;
  panel.tabIndex = -1;
  panel.focus();
}

// --- after each change of the page

let isWaiting = false;

function refresh() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    isWaiting = false;
    describeTabs();
    describeControls();
    keepFocus();
  });
}

showTheme();
DARK.addEventListener("change", showTheme);
new MutationObserver(showTheme).observe(document.body, { attributeFilter: ["class"] });   // Gradio sets the system's
document.querySelector(".sd-theme").addEventListener("click", toggleTheme);
document.querySelector(".sd-skip").addEventListener("click", skipToContent);
document.addEventListener("keydown", onTabKey);
document.addEventListener("focusout", refresh);
new MutationObserver(refresh).observe(document.body, { childList: true, subtree: true, attributeFilter: WATCHED });
const terms = document.querySelector(".sd-terms");
if (terms) showTerms(terms);
holdSettings();
explainRefusedEvents();
restoreTab();
